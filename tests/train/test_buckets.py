"""Training on samples of several sizes: nothing mixes, nothing is lost, and what is measured is measured of all."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.cli import main
from anydit.codecs import Latents, Normalize
from anydit.codecs.whiten import Whiten
from anydit.config import config
from anydit.data import ArraySamples, ArrayView, Aspects, Data, Facts, ImageFolder, Part, Samples, Sizes
from anydit.data.base import Bucketed
from anydit.data.buckets import Groups, by_bucket, by_size
from anydit.data.loader import BucketOrder
from anydit.inference.pipeline import load
from anydit.model.conditioning import Numbers
from anydit.model.dit import DiTConfig
from anydit.model.text import Text
from anydit.model.tokens import Learned, Rope
from anydit.overrides import overridden
from anydit.tensors import Tokens
from anydit.train.base import Site
from anydit.train.latents import Cached, Encoding
from anydit.train.loop import train
from anydit.train.mesh import Mesh
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved, surveyed
from anydit.train.texts import Told, tables
from tests.codecs.tiny_text import save_encoder
from tests.data.images import pictures
from tests.train.tiny import KILL_IN_STEP, ends_as, losses, run, silent, state_hash, tiny, tiny_with
from tests.train.tiny_codec import tiny_codec
from tests.train.tiny_text import captioned
from tests.train.together import alone

SIZES = ((8, 8), (4, 12), (24, 8))
FLAGS = (
    "--data", "ImageFolder", "--data.size", "8", "8", "--data.channels", "1", "--data.buckets", "Sizes",
    "--data.buckets.more", "4", "12", "24", "8",
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images in two classes: 60 of 8x8, 30 of 4x12, 10 of 24x8: of 4, 3 and 12 tokens."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(100):
        size = SIZES[0 if i < 60 else 1 if i < 90 else 2]
        pictures.write(root / "ab"[i % 2] / f"{i:03d}.png", pictures.noise(i, size, 1))
    return root


def bucketed(photos: Path, **train: Any) -> Recipe:
    data = ImageFolder(path=photos, size=SIZES[0], channels=1, buckets=Sizes(SIZES[1:]))
    return replace(tiny_with(**train), data=data)


def one_size(part: Part, size: tuple[int, ...], n: int, mean: float) -> ArraySamples:
    """Values and a number about a mean, and a text."""
    rng = np.random.default_rng([n, len(part)])
    x = rng.normal(mean, 2, (n, 1, *size)).astype(np.float32)
    number = torch.from_numpy(rng.normal(10 * mean, 1, (n, 1)).astype(np.float32))
    texts = {"text": [("a nine", "the three")[i % 2] for i in range(n)]}
    facts = Facts(1, size, numbers={"speed": ("m/s",)}, texts=("text",))
    return ArraySamples(x, facts, {"speed": number}, texts=texts)


@config
class Lines(Data):
    """Series of three lengths."""

    def open(self, part: Part) -> Samples:
        return Groups([one_size(part, (8,), 20, 0.0), one_size(part, (24,), 50, 1.0), one_size(part, (16,), 30, 5.0)])


def lines(**conditions: Any) -> Recipe:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4,), conditions=conditions, position=Rope())
    return replace(tiny_with(steps=3, batch=4), model=model, codec=Normalize(), view=ArrayView(), data=Lines())


def test_images_of_several_sizes_train_and_are_drawn(photos: Path, tmp_path: Path):
    pipeline = train(bucketed(photos), tmp_path, "cpu", silent)
    assert pipeline.config.model.size == (8, 8), "the size that most have"
    for size in SIZES:
        assert pipeline.sample(2, {"label": 1}, size=size).shape == (2, 1, *size)
    names = {file.name for file in tmp_path.iterdir()}
    assert {"samples.png", "samples-4x12.png", "samples-24x8.png", "denoising.png"} <= names
    # Tiles are enlarged until their shorter side has 48 pixels, and two pixels are left around each.
    for name, (high, wide) in (("samples", (48, 48)), ("samples-4x12", (48, 144)), ("samples-24x8", (144, 48))):
        with Image.open(tmp_path / f"{name}.png") as sheet:
            assert (sheet.width - 2) % (wide + 2) == (sheet.height - 2) % (high + 2 + 12) == 0, name
    assert load(tmp_path).config.model == pipeline.config.model


def test_each_step_is_of_one_size(photos: Path, tmp_path: Path):
    seen = list[tuple[int, ...]]()

    recipe = resolved(bucketed(photos), samples := bucketed(photos).data.open("train"), silent)
    work = recipe.begin(samples, Site(tmp_path, CPU, silent))
    assert isinstance(work.order, BucketOrder) and isinstance(samples, Bucketed)
    counts = samples.buckets.bincount().tolist()
    for step in range(3 * work.order.cycle):
        batch = work.samples.read(work.order.ids(step))
        seen.append(tuple(batch.x.shape[2:]))
        work.step(batch, step)
    for size, count in zip(samples.sizes, counts, strict=True):
        assert abs(seen.count(size) - len(seen) * count / len(samples)) < 1


@pytest.mark.fault("T1")
def test_stopped_and_killed_it_ends_as_if_nothing_had_been(photos: Path, tmp_path: Path):
    """Kill -9 in a step; NL."""
    flags = (*FLAGS, "--data.path", str(photos))
    assert alone(tmp_path / "whole", *flags)[0] == 0
    assert alone(tmp_path / "run", *flags, before=KILL_IN_STEP.format(step=6))[0] == -9
    assert "Going on from step 4 of 12" in alone(tmp_path / "run", *flags)[1]
    ends_as(tmp_path / "run", tmp_path / "whole")
    same = train(overridden(tiny(), flags, "test"), tmp_path / "here", "cpu", silent)
    assert same.config.model.size == (8, 8)
    ends_as(tmp_path / "here", tmp_path / "whole")
    other = overridden(tiny_with(seed=1), flags, "test")
    train(other, tmp_path / "other", "cpu", silent)
    assert not set(losses(tmp_path / "other")) & set(losses(tmp_path / "whole"))


def test_other_buckets_are_another_recipe_and_other_images_other_data(photos: Path, tmp_path: Path):
    shutil.copytree(photos, root := tmp_path / "photos")
    recipe = bucketed(root, steps=2)
    train(recipe, tmp_path / "run", "cpu", silent)
    before = state_hash(tmp_path / "run")
    other = replace(recipe.data, buckets=Sizes(SIZES[1:], at_most=0.5))
    with pytest.raises(ValueError, match=r"data\.buckets\.at_most: was 0\.25, is 0\.5"):
        train(replace(recipe, data=other), tmp_path / "run", "cpu", silent)
    turned = sorted(root.rglob("*.png"))[7]
    pictures.write(turned, pictures.noise(7, (24, 8), 1))
    with pytest.raises(ValueError, match=r"^data: got \d+ samples, sha256"):
        train(recipe, tmp_path / "run", "cpu", silent)
    assert state_hash(tmp_path / "run") == before


def test_a_patch_that_divides_not_all_sizes_is_refused_before_the_folder_is_looked_for(tmp_path: Path):
    data = ImageFolder(path=tmp_path / "missing", size=(8, 8), buckets=Sizes(((4, 18),)))
    with pytest.raises(ValueError, match=r"size: got \(4, 18\), expected multiples of patch"):
        replace(tiny(), data=data)
    assert replace(tiny(), data=replace(data, buckets=Aspects(multiple=4)))


def test_tokens_of_some_size_that_processes_cannot_share_are_refused_before_the_first_step(tmp_path: Path):
    data = ImageFolder(path=tmp_path / "missing", size=(8, 8), buckets=Sizes(((4, 12),)))
    one = replace(tiny(), data=data)
    with pytest.raises(ValueError, match=r"train\.mesh\.context: got 2, expected a divisor of .*3"):
        replace(one, train=replace(one.train, mesh=Mesh(context=2)))


def test_what_is_measured_is_measured_of_all_sizes():
    recipe, samples = lines(speed=Numbers()), Lines().open("train")
    whole = resolved(recipe, samples, silent)
    parts = [part.read(torch.arange(len(part))) for part in by_size(samples)]
    for values, found in (
        (torch.cat([part.x.flatten() for part in parts]), (whole.codec.shift, whole.codec.scale)),  # type: ignore[attr-defined]
        (torch.cat([part.tensor("speed") for part in parts]),
         (whole.model.conditions["speed"].mean, whole.model.conditions["speed"].std)),  # type: ignore[union-attr]
    ):  # fmt: skip
        expected = values.double().mean(), values.double().std(correction=0)
        torch.testing.assert_close(torch.tensor(found)[:, 0].double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert whole.model.size == (24,)


def test_sizes_that_the_network_cannot_take_are_refused():
    recipe = lines()
    with pytest.raises(ValueError, match=r"size: got \(16,\), expected multiples of patch \(12,\)"):
        resolved(replace(recipe, model=replace(recipe.model, patch=(12,))), Lines().open("train"), silent)
    small = replace(recipe.model, position=Learned((4,)))
    with pytest.raises(ValueError, match=r"expected at most position\.canvas"):
        resolved(replace(recipe, model=small), Lines().open("train"), silent)


def test_a_codec_is_measured_over_all_sizes():
    codec = resolved(replace(lines(), codec=Whiten()), Groups(by_size(Lines().open("train"))), silent).codec
    assert isinstance(codec, Whiten) and codec.complete and codec.shift
    mean = (20 * 8 * 0.0 + 50 * 24 * 1.0 + 30 * 16 * 5.0) / (20 * 8 + 50 * 24 + 30 * 16)
    assert codec.shift[0] == pytest.approx(mean, abs=0.15)


def test_texts_of_all_sizes_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    encoders = captioned(save_encoder(tmp_path / "encoder", "bert")).encoders
    recipe = replace(lines(text=Text(standard=True)), encoders=encoders)
    whole = resolved(recipe, Lines().open("train"), silent)
    work = whole.begin(Lines().open("train"), Site(tmp_path / "run", CPU, silent))
    assert isinstance(work.samples, Bucketed) and isinstance(work.order, BucketOrder)
    for ids in by_bucket(work.samples, torch.arange(len(work.samples)), 7):
        batch = work.samples.read(ids)
        assert isinstance(batch.cond["text"], Tokens)
        alone = Told(work.samples, tables(work.samples, whole.encoders, CPU)).read(ids)
        assert torch.equal(alone.cond["text"].values, batch.cond["text"].values)  # type: ignore[union-attr]
    pipeline = train(recipe, tmp_path / "run", "cpu", silent)
    assert pipeline.sample(2, {"text": "a nine"}, size=(8,)).shape == (2, 1, 8)


def test_an_autoencoder_of_several_sizes_and_its_latents(photos: Path, tmp_path: Path, monkeypatch: Any):
    """Latents that are kept are those that would be encoded, in a file for each size."""
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    data = bucketed(photos).data
    train(replace(tiny_codec(steps=3), data=data), tmp_path / "codec", "cpu", silent)
    assert (tmp_path / "codec" / "reconstructions.png").is_file()
    samples = data.open("train")
    about = Latents(path=tmp_path / "codec").measured(surveyed(samples, tiny().view, CPU))
    codec = about.restored()
    kept, _ = Cached(flip=True).opened(Encoding(samples, about, codec, CPU))
    assert len(list((tmp_path / "cache" / "latents").iterdir())) == 3
    assert isinstance(kept, Bucketed) and len(kept) == 2 * len(samples)
    for latents, part in zip(by_size(kept), by_size(samples), strict=True):
        expected = codec.encode(part.read(torch.arange(5)).x)
        torch.testing.assert_close(latents.read(torch.arange(5)).x, expected, rtol=1e-4, atol=1e-4)
    recipe = bucketed(photos, steps=2, latents=Cached())
    recipe = replace(recipe, model=replace(recipe.model, patch=(2, 2)), codec=Latents(path=tmp_path / "codec"))
    pipeline = train(recipe, tmp_path / "latent", "cpu", silent)
    assert pipeline.sample(1, {"label": 0}, size=(4, 12)).shape == (1, 1, 4, 12)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_compiled_it_is_compiled_for_any_size(photos: Path, tmp_path: Path):
    """In a process of its own. One compilation for the first size, and one for all others."""
    flags = (*FLAGS, "--data.path", str(photos), "--train.compile", "True", "--train.steps", "12")
    before = "import torch._logging; torch._logging.set_logs(recompiles=True)"
    done = run(tmp_path / "compiled", *flags, before=before)
    assert done.returncode == 0, done.stderr
    again = done.stderr.count("Recompiling function")
    plain = train(overridden(tiny(), [*flags[:-4]], "test"), tmp_path / "plain", "cpu", silent).model.state_dict()
    for name, tensor in load(tmp_path / "compiled", "cpu").model.state_dict().items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-3, atol=1e-3)
    assert again <= 2, done.stderr


def test_the_command_line_trains_evaluates_and_draws(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "run")
    words = [f"{Path(__file__).with_name('tiny.py')}:tiny", *FLAGS, "--data.path", str(photos)]
    assert main(["train", *words, "--train.steps", "2", "--device", "cpu", "--out", out]) == 0
    assert "100 images in 3 sizes: 60 of 8x8, 30 of 4x12, 10 of 24x8; at most 0% of" in capsys.readouterr().err
    assert main(["sample", out, "--size", "4", "12", "-n", "2", "--out", str(tmp_path / "drawn")]) == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) >= 2
