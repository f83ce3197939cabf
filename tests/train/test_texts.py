"""Texts from data to samples: encoded once, read as tokens, told to the model, and asked for in words."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import anydit
from anydit.cli import main
from anydit.codecs.text import Encoder, TextEncoder, opened
from anydit.data import ArraySamples, Samples
from anydit.evaluate.evaluate import evaluate
from anydit.model.dit import DiT
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.tensors import Tokens
from anydit.train import diffusion, texts
from anydit.train.base import Site
from anydit.train.diffusion import DiffusionWork
from anydit.train.latents import Cached
from anydit.train.loop import train
from anydit.train.recipe import Recipe
from tests.codecs.tiny_text import save_encoder
from tests.train.tiny import losses, silent
from tests.train.tiny_codec import tiny_codec
from tests.train.tiny_text import SAID, captioned

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"), "bert")


@pytest.fixture
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder(str(folder), max_tokens=12).measured()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "texts"


@pytest.fixture
def opened_so_often(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often an encoder was opened."""
    count = 0

    def counted(config: TextEncoder, device: torch.device) -> Encoder:
        nonlocal count
        count += 1
        return opened(config, device)

    monkeypatch.setattr(texts, "opened", counted)
    return lambda: count


def same(one: Tokens, other: Tokens) -> bool:
    """Whether tokens are the same but for padding."""
    assert one.pooled is not None and other.pooled is not None
    return torch.equal(one.values[one.exists], other.values[other.exists]) and torch.equal(one.pooled, other.pooled)


def test_what_is_read_is_what_the_encoder_makes(encoder: TextEncoder):
    table, asked = texts.table(encoder, SAID, CPU), [SAID[i] for i in (2, 0, 0, 3, 1)]
    made = table.tokens(asked)
    assert made.values.shape == (5, 7, 16), "one shape for every batch"
    torch.testing.assert_close(made.values[made.exists], (direct := opened(encoder)(asked)).values[direct.exists])
    torch.testing.assert_close(made.pooled, direct.pooled)
    assert table.tokens(["a nine"]).values.shape == (1, 7, 16)


def read_only(*_: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_each_text_is_encoded_once(encoder: TextEncoder, opened_so_often: Callable[[], int], cache: Path):
    first = texts.table(encoder, SAID, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "utime", read_only)
        again = texts.table(encoder, SAID[:2], CPU)
    assert opened_so_often() == 1 and same(first.tokens(SAID[:2]), again.tokens(SAID[:2]))
    more = texts.table(encoder, ["left", *SAID, "right"], CPU)
    assert opened_so_often() == 2 and len(more.shards) == 2
    mixed = ["right", SAID[2], "left", SAID[0], "right"]
    made, alone = more.tokens(mixed), opened(encoder)(mixed)
    torch.testing.assert_close(made.values[made.exists], alone.values[alone.exists])
    torch.testing.assert_close(made.pooled, alone.pooled)
    texts.table(replace(encoder, max_tokens=4), ["left"], CPU)
    assert opened_so_often() == 3 and len(list(cache.iterdir())) == 2, "used otherwise, it makes other tokens"


def test_what_is_damaged_is_made_anew(encoder: TextEncoder, opened_so_often: Callable[[], int], cache: Path):
    whole = texts.table(encoder, SAID, CPU).tokens(SAID)
    (values,) = cache.glob("*/*/values.npy")
    values.write_bytes(values.read_bytes()[:-64])
    assert same(texts.table(encoder, SAID, CPU).tokens(SAID), whole) and opened_so_often() == 2


def test_two_may_write_at_the_same_time(encoder: TextEncoder, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def while_another_writes(config: TextEncoder, device: torch.device) -> Encoder:
        monkeypatch.setattr(texts, "opened", opened)
        assert len(texts.table(config, SAID[:3], device).shards) == 1, "the other ends first"
        return opened(config, device)

    monkeypatch.setattr(texts, "opened", while_another_writes)
    table = texts.table(encoder, SAID, CPU)
    assert len(table.shards) == 2 and len(list(cache.glob("*/.*"))) == 0
    made, alone = table.tokens(SAID), opened(encoder)(SAID)
    torch.testing.assert_close(made.values[made.exists], alone.values[alone.exists])


def test_a_cache_that_cannot_be_written(encoder: TextEncoder, cache: Path):
    cache.parent.mkdir()
    cache.write_text("no folder")
    with pytest.raises(ValueError, match=r"^cache: got .*, which cannot be written .*, by ANYDIT_CACHE"):
        texts.table(encoder, SAID, CPU)


@pytest.mark.parametrize("entry", [Pooled(), Cross(), Joint()])
def test_from_training_to_a_sample(folder: Path, tmp_path: Path, entry: Pooled | Cross | Joint):
    pipe = train(captioned(folder, Text(entry=entry)), tmp_path / "run", "cpu", silent)
    text = pipe.config.model.conditions["text"]
    assert isinstance(text, Text) and (text.width, text.pooled) == (16, 16)
    loaded = anydit.load(tmp_path / "run", "cpu")
    told = loaded.sample(2, {"text": "a nine"}, seed=1)
    assert torch.equal(told, pipe.sample(2, {"text": ["a nine", "a nine"]}, seed=1))
    assert torch.equal(told, pipe.sample(2, {"text": opened(loaded.encoders["text"])(["a nine"])}, seed=1))
    assert not torch.equal(told, loaded.sample(2, {"text": "the three"}, seed=1))
    assert not torch.equal(told, loaded.sample(2, seed=1))


def test_a_new_network_begins_with_texts_on_one_scale(folder: Path, tmp_path: Path):
    recipe = captioned(folder, Text(entry=Joint(), standard=True))
    work = recipe.resolved(samples := recipe.data.open("train"), silent, CPU).begin(
        samples, Site(tmp_path, CPU, silent)
    )
    text = work.samples.read(torch.arange(400)).cond["text"]
    assert isinstance(text, Tokens) and isinstance(work, DiffusionWork)
    values, plain = text.values[text.exists], DiT(work.config.model, recipe.train.seed).conditioner.texts["text"]
    expected = plain.up((values - values.mean(0)) / values.std(0, unbiased=False))
    got, _ = work.step.model.conditioner.texts["text"](text, None)
    torch.testing.assert_close(got[text.exists], expected, rtol=1e-2, atol=1e-2)
    begun = work.step.ema.module.conditioner.texts["text"].up.weight
    assert torch.equal(begun, work.step.model.conditioner.texts["text"].up.weight)


def test_a_run_goes_on_without_its_encoder(folder: Path, tmp_path: Path, opened_so_often: Callable[[], int]):
    """What it made is in the cache; the curve is that of a run in one piece."""
    recipe = captioned(folder)
    train(recipe, tmp_path / "whole", "cpu", silent)
    train(replace(recipe, train=replace(recipe.train, steps=5)), tmp_path / "run", "cpu", silent)
    assert opened_so_often() == 1
    train(recipe, tmp_path / "run", "cpu", silent)
    assert opened_so_often() == 1 and losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_texts_go_with_latents(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    codec = tmp_path / "codec"
    train(tiny_codec(steps=2), codec, "cpu", silent)
    recipe = captioned(folder)
    model = replace(recipe.model, patch=(2, 2))
    latents = anydit.codecs.Latents(path=codec)  # pyright: ignore[reportAttributeAccessIssue]
    for name, how in (("live", recipe.train), ("cached", replace(recipe.train, latents=Cached()))):
        train(replace(recipe, model=model, codec=latents, train=how), tmp_path / name, "cpu", silent)
    one, other = (np.array([float.fromhex(v) for _, v, _ in losses(tmp_path / n)]) for n in ("live", "cached"))
    np.testing.assert_allclose(one, other, rtol=1e-3)
    asked, of_cache = list[Samples](), texts.tables
    monkeypatch.setattr(diffusion, "tables", lambda samples, *rest: asked.append(samples) or of_cache(samples, *rest))
    train(replace(recipe, model=model, codec=latents, train=replace(how, steps=13)), tmp_path / "cached", "cpu", silent)
    assert isinstance(asked[0], ArraySamples), "whose texts are known without decoding a sample"


def test_evaluation_asks_in_words(folder: Path, tmp_path: Path):
    recipe = captioned(folder)
    pipe = train(recipe, tmp_path / "run", "cpu", silent)
    seen = list[str]()
    encode, pipe.encoders = pipe.encoders["text"], dict(pipe.encoders)
    pipe.encoders["text"] = encode
    real, pipe.sample = pipe.sample, lambda n, cond, **k: (seen.extend(cond["text"]), real(n, cond, **k))[1]
    evaluate(pipe, recipe.data, samples=20)
    assert len(seen) == 20 and set(seen) <= set(SAID)


def test_in_words_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(captioned(folder), tmp_path / "run", "cpu", silent)
    run, sheet = str(tmp_path / "run"), str(tmp_path / "sheet.png")
    assert main(["sample", run, "--text", "a nine", "-n", "2", "--out", sheet]) == 0
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a nine\n\nthe three \nthe left\n")
    assert main(["sample", run, "--text-file", str(prompts), "--out", str(tmp_path / "each")]) == 0
    assert len(list((tmp_path / "each").iterdir())) == 3
    guided = ["--negative-text", "a seven", "--guidance", "3", "--out", sheet]
    assert main(["sample", run, "--text", "a nine", "-n", "2", *guided]) == 0
    capsys.readouterr()
    prompts.write_text("\n \n")
    for words, expected in (
        (["--text-file", str(prompts)], f"text-file: got {prompts} without a text, expected one on each line"),
        (["--text-file", str(tmp_path / "none")], "text-file: got"),
        (["--text", "a", "--text-file", str(prompts)], f"text-file: got {prompts} beside --text"),
        (["--negative-text", "a"], "negative-text: got a text without guidance"),
        (["-n", "3", "--text", "a", "b"], "text: got 2"),
    ):
        assert main(["sample", run, *words]) == 2
        assert expected in capsys.readouterr().err


def test_another_encoder_is_refused(folder: Path, tmp_path: Path):
    pipe = train(captioned(folder), tmp_path / "run", "cpu", silent)
    other = save_encoder(tmp_path / "other", "bert", width=32)
    pipe.encoders["text"] = replace(pipe.encoders["text"], source=str(other))
    with pytest.raises(ValueError, match=r"encoders.text.source: got .*other, whose tokens have width 32, expected 16"):
        pipe.sample(1, {"text": "a"})
    del pipe.encoders["text"]
    with pytest.raises(ValueError, match=r"cond: text: got text, expected Tokens"):
        pipe.sample(1, {"text": "a"})
    with pytest.raises(ValueError, match=r"cond: text: got 3, expected a text"):
        pipe.sample(1, {"text": 3})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: replace(r, encoders={}), r"model.conditions.text: got a text without an encoder"),
        (lambda r: replace(r, encoders={"text": TextEncoder("/nowhere")}), r"encoders.text.source: got /nowhere"),
        (lambda r: replace(r, encoders={"label": TextEncoder("x")}), r"encoders: got label, expected one of: text"),
        (
            lambda r: replace(r, model=replace(r.model, conditions={"text": Text(width=8)})),
            r"model.conditions.text.width: got 8, expected 16",
        ),
    ],
)
def test_refused_before_work(folder: Path, tmp_path: Path, change: Callable[[Recipe], Recipe], expected: str):
    with pytest.raises(ValueError, match=expected):
        train(change(captioned(folder)), tmp_path / "run", "cpu", silent)
    assert not (tmp_path / "run" / "recipe.json").exists()
