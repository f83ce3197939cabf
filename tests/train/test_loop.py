"""Nothing lost: runs that are killed, stopped, damaged or disturbed end as the undisturbed run does (FAULTS.md)."""

import json
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anydit.data import Digits
from anydit.inference.pipeline import load
from anydit.train.checkpoint import broken, newest
from anydit.train.guards import NotFinite, locked
from anydit.train.loop import train
from anydit.train.step import TrainStep
from tests.train.tiny import command, losses, run, state_hash, tiny, tiny_with

KILL_AFTER_STEP = """
import os, signal
real = Run._one
def one(self, *rest):
    real(self, *rest)
    if self.done == {step}:
        os.kill(os.getpid(), signal.{signal})
Run._one = one
"""


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run."""
    out = tmp_path_factory.mktemp("whole")
    train(tiny(), out, "cpu", silent)
    return out


def test_leaves_what_the_design_says(whole: Path):
    names = {p.name for p in whole.iterdir()}
    files = {"recipe.json", "model.safetensors", "checkpoints", "log.jsonl", "samples"}
    assert names >= files | {"samples.png", "denoising.png", "denoising.gif", "loss.png"}
    assert [step for step, _, _ in losses(whole)] == list(range(12))
    pipeline = load(whole, "cpu")
    assert pipeline.sample(3, {"label": 1}).shape == (3, 1, 8, 8)
    ema = newest(whole / "checkpoints").tensors("ema")  # type: ignore[union-attr]
    assert all(torch.equal(v, ema[k]) for k, v in pipeline.model.state_dict().items())


def test_twice_gives_the_same_bits(whole: Path, tmp_path: Path):
    """T17."""
    train(tiny(), tmp_path, "cpu", silent)
    assert losses(tmp_path) == losses(whole)
    assert state_hash(tmp_path) == state_hash(whole)


def test_another_seed_does_not(whole: Path, tmp_path: Path):
    """The negative control of every comparison here."""
    train(tiny_with(seed=1), tmp_path, "cpu", silent)
    assert state_hash(tmp_path) != state_hash(whole)
    assert not set(losses(tmp_path)) & set(losses(whole))


def test_killed_in_a_step(whole: Path, tmp_path: Path):
    """T1: kill -9 after step 7 of 12, saved at 4: goes on from 4 and ends as the undisturbed run does."""
    killed = run(tmp_path, before=KILL_AFTER_STEP.format(step=7, signal="SIGKILL"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert newest(tmp_path / "checkpoints").step == 4  # type: ignore[union-attr]
    said: list[str] = []
    train(tiny(), tmp_path, "cpu", said.append)
    assert any("Going on from step 4 of 12" in line for line in said)
    assert losses(tmp_path) == losses(whole)
    assert state_hash(tmp_path) == state_hash(whole)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopped_saves_and_loses_no_step(whole: Path, tmp_path: Path, name: str):
    """T6, one process: what was done is saved, the message says how to go on, no step is done again."""
    stopped = run(tmp_path, before=KILL_AFTER_STEP.format(step=6, signal=name))
    assert stopped.returncode == 130, stopped.stderr
    assert "Run the same command again" in stopped.stdout
    assert newest(tmp_path / "checkpoints").step == 6  # type: ignore[union-attr]
    train(tiny(), tmp_path, "cpu", silent)
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(12))
    assert losses(tmp_path) == losses(whole)
    assert state_hash(tmp_path) == state_hash(whole)


def test_a_damaged_checkpoint_falls_back(whole: Path, tmp_path: Path):
    """T8: the newest is damaged; the one before is taken, and the end is the same."""
    train(tiny_with(steps=8), tmp_path, "cpu", silent)
    file = tmp_path / "checkpoints" / "step-000000008" / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    assert broken(file.parent) is not None
    said: list[str] = []
    train(tiny(), tmp_path, "cpu", said.append)
    assert any("step-000000008 is damaged (optimizer.safetensors" in line for line in said)
    assert losses(tmp_path) == losses(whole)
    assert state_hash(tmp_path) == state_hash(whole)


def test_no_whole_checkpoint_is_never_a_silent_fresh_start(tmp_path: Path):
    train(tiny_with(steps=4), tmp_path, "cpu", silent)
    (tmp_path / "checkpoints" / "step-000000004" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="no checkpoint is whole"):
        train(tiny(), tmp_path, "cpu", silent)


def test_missing_recipe_is_never_a_silent_fresh_start(tmp_path: Path):
    train(tiny_with(steps=4), tmp_path, "cpu", silent)
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoints but no recipe\.json"):
        train(tiny(), tmp_path, "cpu", silent)


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--model.width", "32"], r"model\.width: was 16, is 32"),
        (["--train.optimizer.lr", "0.5"], r"train\.optimizer\.lr: was 0\.01, is 0\.5"),
        (["--train.seed", "3"], r"train\.seed: was 0, is 3"),
    ],
)
def test_another_recipe_is_refused_with_the_difference(whole: Path, flags: list[str], field: str):
    """T18."""
    from anydit.config import overridden

    with pytest.raises(ValueError, match=field):
        train(overridden(tiny(), flags, "test"), whole, "cpu", silent)


def test_more_steps_go_on(tmp_path: Path, whole: Path):
    train(tiny_with(steps=8, save_every=8), tmp_path, "cpu", silent)
    train(tiny_with(steps=12), tmp_path, "cpu", silent)
    assert state_hash(tmp_path) == state_hash(whole)


def test_a_finished_run_run_again_changes_nothing(whole: Path):
    before = state_hash(whole)
    train(tiny(), whole, "cpu", silent)
    assert state_hash(whole) == before


def test_two_trainers_in_one_folder(tmp_path: Path):
    """T19: the second is refused at once; a lock left by a dead process is no hindrance."""
    holder = subprocess.Popen(
        command(tmp_path, "--train.steps", "100000", before="print('up', flush=True)"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "log.jsonl").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(ValueError, match=f"process {holder.pid} is training"):
            train(tiny(), tmp_path, "cpu", silent)
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        pass


def _poison(step: TrainStep, when: range) -> None:
    real = step.objective.loss
    counter = iter(range(1000))

    class Poisoned(type(step.objective)):
        def loss(self, *arguments):
            value = real(*arguments)
            return value * float("nan") if next(counter) in when else value

    step.objective = Poisoned(step.objective.path, step.objective.prediction)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch):
    """Let the loss be NaN at some steps."""

    def at(when: range) -> None:
        real = TrainStep.__init__

        def init(self, *arguments, **names):
            real(self, *arguments, **names)
            _poison(self, when)

        monkeypatch.setattr(TrainStep, "__init__", init)

    return at


def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, poisoned):
    """T13: neither the weights nor their average nor the optimizer see it; it is counted and named."""
    poisoned(range(4, 5))
    said: list[str] = []
    train(tiny_with(steps=4, save_every=1), tmp_path, "cpu", silent)
    before = state_hash(tmp_path)
    poisoned(range(1))
    train(tiny_with(steps=5, save_every=1), tmp_path, "cpu", said.append)
    assert any("Step 4 was skipped" in line for line in said)
    assert state_hash(tmp_path) == before
    assert newest(tmp_path / "checkpoints").info()["skipped"] == 1  # type: ignore[union-attr]
    assert load(tmp_path, "cpu").sample(1).isfinite().all()


def test_too_many_in_a_row_stop_the_run(tmp_path: Path, poisoned):
    poisoned(range(2, 100))
    with pytest.raises(NotFinite, match="3 steps in a row up to step 4"):
        train(tiny_with(max_skipped=3), tmp_path, "cpu", silent)


def test_other_threads_are_reported(tmp_path: Path):
    """T17: one CPU thread and two may give different bits, so a change is said."""
    train(tiny_with(steps=4), tmp_path, "cpu", silent)
    info = newest(tmp_path / "checkpoints").folder / "state.json"  # type: ignore[union-attr]
    content = json.loads(info.read_text(encoding="utf-8"))
    content["threads"] = 99
    info.write_text(json.dumps(content), encoding="utf-8")
    manifest = info.parent / "manifest.json"
    listed = json.loads(manifest.read_text(encoding="utf-8"))
    from anydit.weights import sha256

    listed["sha256"]["state.json"] = sha256(info)
    manifest.write_text(json.dumps(listed), encoding="utf-8")
    said: list[str] = []
    train(tiny(), tmp_path, "cpu", said.append)
    assert any("threads 99" in line for line in said)


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    """T10."""
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be written"):
        train(tiny(), blocked / "run", "cpu", silent)


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
    done = run(tmp_path / "compiled", "--train.steps", "2", "--train.compile", "True")
    assert done.returncode == 0, done.stderr
    plain = train(tiny_with(steps=2), tmp_path / "plain", "cpu", silent).model.state_dict()
    for name, tensor in load(tmp_path / "compiled", "cpu").model.state_dict().items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-3, atol=1e-5)


def test_killed_between_the_checkpoint_and_the_exported_weights(whole: Path, tmp_path: Path):
    """T3: the checkpoint counts; the weights that `anydit.load` reads are written again from it."""
    train(tiny(), tmp_path, "cpu", silent)
    (tmp_path / "model.safetensors").unlink()
    train(tiny(), tmp_path, "cpu", silent)
    again, undisturbed = (load(out, "cpu").model.state_dict() for out in (tmp_path, whole))
    assert all(torch.equal(again[name], tensor) for name, tensor in undisturbed.items())


def test_a_device_that_is_not_there_is_refused_before_the_folder_is_made(tmp_path: Path):
    with pytest.raises(ValueError, match="device: got 'nonsense', expected one that this machine has: cpu"):
        train(tiny(), tmp_path / "run", "nonsense", silent)
    assert not (tmp_path / "run").exists()


def test_changed_data_are_refused(tmp_path: Path):
    """T18: another number of samples is another order of them."""
    recipe = replace(tiny(), data=Digits(held_out=0.2))
    train(replace(recipe, train=replace(recipe.train, steps=4)), tmp_path, "cpu", silent)
    info = newest(tmp_path / "checkpoints").info()  # type: ignore[union-attr]
    assert info["samples"] == len(recipe.data.open("train"))

    class Fewer(Digits):
        def open(self, part):
            return replace(super().open(part), rows=torch.arange(100))

    Fewer.__name__ = "Digits"
    with pytest.raises(ValueError, match="data: got 100 samples, expected the 14"):
        train(replace(recipe, data=Fewer()), tmp_path, "cpu", silent)
