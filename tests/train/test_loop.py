"""One run in one folder: what it leaves, how it goes on or is refused, what it says. Kills: test_faults.py."""

import json
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import Arrays, ArrayView, ImageFolder
from anydit.inference.pipeline import load
from anydit.overrides import overridden
from anydit.train import loop
from anydit.train import pictures as train_pictures
from anydit.train.checkpoint import newest
from anydit.train.loop import train
from anydit.train.optim import CosineDecay, LinearDecay
from anydit.train.recipe import Recipe
from anydit.weights import RUN_FILE
from tests.data.images import pictures
from tests.train.tiny import losses, run, silent, state_hash, tiny, tiny_with


def test_leaves_what_the_design_says(whole: Path):
    names = {p.name for p in whole.iterdir()}
    files = {"recipe.json", "model.safetensors", "checkpoints", "log.jsonl", "samples"}
    assert names >= files | {"samples.png", "denoising.png", "denoising.gif", "loss.png"}
    assert [step for step, _, _ in losses(whole)] == list(range(12))
    pipeline = load(whole, "cpu")
    assert pipeline.sample(3, {"label": 1}).shape == (3, 1, 8, 8)
    ema = newest(whole / "checkpoints").tensors("ema")  # type: ignore[union-attr]
    assert all(torch.equal(v, ema[k]) for k, v in pipeline.model.state_dict().items())


def test_more_steps_go_on(tmp_path: Path, whole: Path):
    train(tiny_with(steps=8, save_every=8), tmp_path, "cpu", silent)
    train(tiny_with(steps=12), tmp_path, "cpu", silent)
    assert state_hash(tmp_path) == state_hash(whole)


def test_a_run_from_before_an_option_came_goes_on(tmp_path: Path, whole: Path):
    out = tmp_path / "run"
    train(tiny_with(steps=4), out, "cpu", silent)
    content = json.loads((out / RUN_FILE).read_text())
    assert content["model"]["conditions"]["label"].pop("dropout") == 0.1 and content["train"].pop("drop_all") == 0
    (out / RUN_FILE).write_text(json.dumps(content))
    train(tiny(), out, "cpu", silent)
    assert state_hash(out) == state_hash(whole)


def test_accumulation_gives_the_same_step(tmp_path: Path):
    """The same samples, noise and times whatever the parts: weights agree to rounding."""
    one = train(tiny_with(steps=3), tmp_path / "one", "cpu", silent).model.state_dict()
    four = train(tiny_with(steps=3, accumulate=4), tmp_path / "four", "cpu", silent).model.state_dict()
    for name, tensor in one.items():
        torch.testing.assert_close(four[name], tensor, rtol=1e-3, atol=1e-5)


def test_learning(tmp_path: Path):
    train(tiny_with(steps=60, save_every=60, batch=32), tmp_path, "cpu", silent)
    values = [float.fromhex(loss) for _, loss, _ in losses(tmp_path)]
    assert sum(values[-10:]) < 0.8 * sum(values[:10])


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_compiled_trains_alike(tmp_path: Path):
    """In a process of its own, because the checked annotations of the tests cannot be compiled."""
    always = "from anydit.train import pace; pace.FEW = 1; pace.LONG = 0.0; pace.GAIN = 1e9"
    done = run(tmp_path / "compiled", "--train.steps", "2", before=always)
    assert done.returncode == 0, done.stderr
    assert "blocks are compiled" in done.stdout
    assert newest(tmp_path / "compiled" / "checkpoints").info()["compile"] is True  # type: ignore[union-attr]
    plain = train(tiny_with(steps=2), tmp_path / "plain", "cpu", silent).model.state_dict()
    for name, tensor in load(tmp_path / "compiled", "cpu").model.state_dict().items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-3, atol=1e-5)


def test_a_gpu_without_bfloat16_is_refused_before_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "find_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old GPU")
    recipe = replace(tiny_with(bf16=True), data=Arrays(path=tmp_path / "none.npy"))
    with pytest.raises(ValueError, match="bf16: got True, but Old GPU has no bfloat16; set bf16 to False"):
        train(recipe, tmp_path / "run", "cuda", silent)


def test_a_device_that_is_not_there_is_refused_before_the_folder_is_made(tmp_path: Path):
    with pytest.raises(ValueError, match="device: got 'nonsense', expected one that this machine has: cpu"):
        train(tiny(), tmp_path / "run", "nonsense", silent)
    assert not (tmp_path / "run").exists()


def test_more_steps_say_how_the_rate_jumps(tmp_path: Path):
    """The schedule of 8 steps ends at a quarter of the rate; that of 12 goes on higher."""
    schedule = LinearDecay(decay=0.5)
    train(tiny_with(steps=8, schedule=schedule), tmp_path, "cpu", silent)
    said: list[str] = []
    train(tiny_with(steps=12, schedule=schedule), tmp_path, "cpu", said.append)
    rates = [line for line in said if "learning rate" in line]
    assert rates == [
        "The learning rate was 0.0025 at step 7, and goes on with 0.00667: its schedule is now over 12 steps."
    ]
    train(tiny_with(steps=12, schedule=schedule), tmp_path, "cpu", said.append)
    assert [line for line in said if "learning rate" in line] == rates, "it is said once"


def test_the_rate_of_a_run_that_goes_on_as_planned_is_not_spoken_of(tmp_path: Path):
    recipe = tiny_with(schedule=CosineDecay(warmup=2), keep=3)
    train(recipe, tmp_path / "planned", "cpu", silent)
    shutil.copytree(tmp_path / "planned", tmp_path / "stopped")
    for step in (8, 12):
        shutil.rmtree(tmp_path / "stopped" / "checkpoints" / f"step-{step:09d}")
    said: list[str] = []
    train(recipe, tmp_path / "stopped", "cpu", said.append)
    assert any("Going on from step 4 of 12" in line for line in said)
    assert not any("learning rate" in line for line in said)
    assert state_hash(tmp_path / "stopped") == state_hash(tmp_path / "planned")


@pytest.mark.parametrize("steps", [12, 8])
def test_a_run_that_has_its_steps_has_nothing_left_to_do(whole: Path, tmp_path: Path, steps: int):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before, recipe = state_hash(out), (out / "recipe.json").read_bytes()
    said: list[str] = []
    train(tiny_with(steps=steps), out, "cpu", said.append)
    assert said == [f"Nothing is left to do: the run in {out} is at step 12, and train.steps is {steps}."]
    assert state_hash(out) == before and (out / "recipe.json").read_bytes() == recipe


@pytest.mark.parametrize(
    "words",
    ["--sampling.steps 3", "--sampling.sampler Heun", "--view.low -1", "--train.max-skipped 5", "--train.save-every 3"],
)
def test_what_cannot_change_the_result_may_change(whole: Path, tmp_path: Path, words: str):
    shutil.copytree(whole, tmp_path / "run")
    recipe = overridden(tiny_with(steps=13), words.split(), "test")
    train(recipe, tmp_path / "run", "cpu", silent)
    assert [step for step, _, _ in losses(tmp_path / "run")] == list(range(13))


def test_where_decoded_images_are_kept_may_change(tmp_path: Path):
    pictures.by_class(tmp_path / "images", ("a", "b"), 12, (8, 8))
    data = ImageFolder(path=tmp_path / "images", size=(8, 8), cache=tmp_path / "cache")
    recipe = replace(tiny_with(steps=2), data=data)
    train(recipe, tmp_path / "run", "cpu", silent)
    elsewhere = replace(data, cache=tmp_path / "elsewhere", bad_limit=0.5)
    said: list[str] = []
    train(replace(recipe, data=elsewhere, train=tiny_with(steps=3).train), tmp_path / "run", "cpu", said.append)
    assert any("Going on from step 2 of 3" in line for line in said)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch):
    """Let the n-th sheet of samples not be drawn."""

    def at(n: int, error: Exception) -> None:
        real, calls = train_pictures.sheet, count(1)

        def sheet(*arguments):
            if next(calls) == n:
                raise error
            return real(*arguments)

        monkeypatch.setattr(train_pictures, "sheet", sheet)

    return at


def test_a_preview_that_cannot_be_drawn_is_told_and_nothing_else(whole: Path, tmp_path: Path, refusing):
    """It has no influence on the weights; the sheets before and after it are there."""
    refusing(2, OSError(28, "No space left on device"))
    said: list[str] = []
    train(tiny_with(sample_every=3), tmp_path, "cpu", said.append)
    assert "No sheet of samples at step 6 (OSError: [Errno 28] No space left on device); training goes on." in said
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["step-0000003.png", "step-0000009.png"]
    assert losses(tmp_path) == losses(whole)
    assert state_hash(tmp_path) == state_hash(whole)


def test_a_preview_without_memory_ends_the_run_when_its_step_is_saved(tmp_path: Path, refusing):
    refusing(1, MemoryError())
    with pytest.raises(MemoryError):
        train(tiny_with(sample_every=4), tmp_path, "cpu", silent)
    assert newest(tmp_path / "checkpoints").step == 4  # type: ignore[union-attr]


def test_pictures_that_do_not_fit_on_a_gpu_are_done_without(whole: Path, tmp_path: Path, refusing):
    """Training fits there, and goes on; at every restart the same would happen again."""
    refusing(3, torch.OutOfMemoryError("CUDA out of memory"))
    said: list[str] = []
    train(tiny_with(sample_every=3), tmp_path, "cpu", said.append)
    assert "No sheet of samples at step 9 (OutOfMemoryError: CUDA out of memory); training goes on." in said
    assert state_hash(tmp_path) == state_hash(whole)


def test_pictures_of_the_end_that_do_not_fit_are_done_without(whole: Path, tmp_path: Path, refusing):
    refusing(1, torch.OutOfMemoryError("CUDA out of memory"))
    said: list[str] = []
    train(tiny_with(sample_every=1_000_000), tmp_path, "cpu", said.append)
    assert "No pictures of the finished run (CUDA out of memory); its weights are in" in " ".join(said)
    assert state_hash(tmp_path) == state_hash(whole) and (tmp_path / "loss.png").is_file()


def test_a_run_goes_on_in_other_pieces_of_its_batches(whole: Path, tmp_path: Path):
    """As a smaller GPU asks for; what is learned is the same to rounding, and the log says so."""
    train(tiny_with(steps=6), tmp_path, "cpu", silent)
    said: list[str] = []
    recipe = tiny_with()
    train(replace(recipe, train=replace(recipe.train, accumulate=2)), tmp_path, "cpu", said.append)
    assert "The run had accumulate 1, now it is 2: losses may differ in their last bits." in said
    now, then = losses(tmp_path), losses(whole)
    assert [ids for *_, ids in now] == [ids for *_, ids in then]
    each, expected = ([float.fromhex(loss) for _, loss, _ in all_of_them] for all_of_them in (now, then))
    assert each == pytest.approx(expected, rel=1e-4)


@pytest.mark.fault("T18")
def test_missing_recipe_is_never_a_silent_fresh_start(whole: Path, tmp_path: Path):
    """What the checkpoints are of cannot be known."""
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoints but no recipe\.json"):
        train(tiny(), tmp_path / "run", "cpu", silent)


def test_a_run_that_knows_nothing_of_contrast_goes_on_and_learns_it(whole: Path, tmp_path: Path):
    """As those of before there was such a thing do."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    content = json.loads((out / "recipe.json").read_text())
    assert content.pop("contrast") > 0
    (out / "recipe.json").write_text(json.dumps(content))
    train(tiny_with(steps=tiny().train.steps + 1), out, "cpu", silent)
    assert json.loads((out / "recipe.json").read_text())["contrast"] > 0


@pytest.mark.fault("T18")
@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--model.width", "32"], r"model\.width: was 16, is 32"),
        (["--train.optimizer.lr", "0.5"], r"train\.optimizer\.lr: was 0\.01, is 0\.5"),
        (
            ["--train.optimizer.betas", "0.9", "0.95"],
            r"train\.optimizer\.betas: was \[0\.9, 0\.999\], is \[0\.9, 0\.95\]",
        ),
        (["--train.schedule", "LinearDecay"], r"train\.schedule\.type: was 'Constant', is 'LinearDecay'"),
        (["--train.seed", "3"], r"train\.seed: was 0, is 3"),
        (["--data.held-out", "0.3"], r"data\.held_out: was 0\.2, is 0\.3"),
    ],
)
def test_another_recipe_is_refused_with_the_difference(whole: Path, flags: list[str], field: str):
    """And what is there stays as it was."""
    before, recipe = state_hash(whole), (whole / "recipe.json").read_bytes()
    with pytest.raises(ValueError, match=field):
        train(overridden(tiny(), flags, "test"), whole, "cpu", silent)
    assert state_hash(whole) == before
    assert (whole / "recipe.json").read_bytes() == recipe


def arrays(path: Path, **fields: object) -> Recipe:
    """`tiny`, of an array; nothing is measured that could tell of a change."""
    data = Arrays(**{"path": path, "held_out": 0.0, **fields})
    return replace(tiny_with(steps=2), data=data, view=ArrayView(), codec=Normalize((0.0,), (1.0,)))


def values(n: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 1, 8, 8), np.float32)


@pytest.mark.fault("T18")
def test_data_that_are_gone_are_refused(tmp_path: Path):
    """A missing path; where they are back, the run goes on."""
    recipe, out = arrays(tmp_path / "x.npy"), tmp_path / "run"
    np.save(tmp_path / "x.npy", values())
    train(recipe, out, "cpu", silent)
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    before = state_hash(out)
    with pytest.raises(ValueError, match=r"data\.path: got .*x\.npy, which is not a file"):
        train(recipe, out, "cpu", silent)
    assert state_hash(out) == before
    np.save(tmp_path / "x.npy", values())
    said: list[str] = []
    train(replace(recipe, train=tiny_with(steps=3).train), out, "cpu", said.append)
    assert any("Going on from step 2 of 3" in line for line in said)


@pytest.mark.fault("T18")
@pytest.mark.parametrize(("n", "seed"), [(200, 1), (190, 0), (210, 0)], ids=["other values", "fewer", "more"])
def test_changed_data_are_refused(tmp_path: Path, n: int, seed: int):
    """Other samples, and the same samples in another number, which would be another order of them."""
    recipe, out = arrays(tmp_path / "x.npy"), tmp_path / "run"
    np.save(tmp_path / "x.npy", values())
    train(recipe, out, "cpu", silent)
    np.save(tmp_path / "x.npy", values(n, seed))
    with pytest.raises(ValueError, match=rf"^data: got {n} samples, .*x\.npy.* expected 200 samples, sha256 "):
        train(recipe, out, "cpu", silent)


@pytest.mark.fault("T18")
def test_changed_labels_are_refused(tmp_path: Path):
    """The same samples, of which other things are said."""
    recipe, out, label = arrays(tmp_path / "x.npz", label="label"), tmp_path / "run", np.arange(200) % 3
    np.savez(tmp_path / "x.npz", x=values(), label=label)
    train(recipe, out, "cpu", silent)
    np.savez(tmp_path / "x.npz", x=values(), label=label[::-1])
    with pytest.raises(ValueError, match=r"^data: got 200 samples"):
        train(recipe, out, "cpu", silent)


@pytest.mark.fault("T10")
def test_a_folder_that_cannot_be_written(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be written"):
        train(tiny(), blocked / "run", "cpu", silent)
