"""What keeps a run from harm: the lock on its folder, the stop on request, steps that are not finite (FAULTS.md)."""

import errno
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from anydit.inference.pipeline import load
from anydit.train.checkpoint import newest
from anydit.train.guards import NotFinite
from anydit.train.loop import train
from anydit.train.step import TrainStep
from tests.train.tiny import IN_STEP, command, ends_as, silent, state_hash, steps_taken, tiny, tiny_with
from tests.train.together import alone, start_together

SIGNAL_AFTER_STEP = """
import os, signal
from anydit.train.run import Run
real = Run._one
def one(self, *rest):
    real(self, *rest)
    if self.done == {step}:
        os.kill(os.getpid(), signal.{signal})
Run._one = one
"""


@pytest.mark.fault("T6")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopped_saves_and_loses_no_step(whole: Path, tmp_path: Path, name: str):
    """One process: what was done is saved, the message says how to go on, no step is done again."""
    code, said = alone(tmp_path, before=SIGNAL_AFTER_STEP.format(step=6, signal=name))
    assert code == 130 and "Run the same command again" in said, said
    assert newest(tmp_path / "checkpoints").step == 6  # type: ignore[union-attr]
    train(tiny(), tmp_path, "cpu", silent)
    ends_as(tmp_path, whole)
    assert steps_taken(tmp_path) == list(range(12))


@pytest.mark.fault("T6")
def test_asked_twice_it_stops_at_once(whole: Path, tmp_path: Path):
    """In a step that does not end; what was saved before is there."""
    said = tmp_path / "said"
    still = IN_STEP.format(step=6, do=f"open({str(said)!r}, 'w').close(); import time; time.sleep(60)")
    started = start_together(tmp_path / "run", 1, before=still)
    process, deadline = started.processes[0], time.monotonic() + 120
    while not said.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert process.is_alive(), "it waits for the step to end"
    os.kill(process.pid, signal.SIGTERM)
    assert started.ended(0, 10)[0] == -signal.SIGTERM
    assert newest(tmp_path / "run" / "checkpoints").step == 4  # type: ignore[union-attr]
    train(tiny(), tmp_path / "run", "cpu", silent)
    ends_as(tmp_path / "run", whole)


@pytest.mark.fault("T19")
def test_two_trainers_in_one_folder(tmp_path: Path):
    """The second is refused at once, and the first goes on; a lock left by a dead process is no hindrance."""
    holder = subprocess.Popen(
        command(tmp_path, "--train.steps", "100000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while newest(tmp_path / "checkpoints", silent) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(ValueError, match=f"process {holder.pid} is training"):
            train(tiny(), tmp_path, "cpu", silent)
        assert time.monotonic() - began < 2
        log = tmp_path / "log.jsonl"
        written = log.stat().st_size
        while log.stat().st_size == written and time.monotonic() < deadline:
            time.sleep(0.05)
        assert log.stat().st_size > written
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.communicate()
    found = newest(tmp_path / "checkpoints", silent)
    assert found is not None and (tmp_path / ".lock").read_text(encoding="utf-8") == str(holder.pid)
    said: list[str] = []
    train(tiny_with(steps=found.step + 2), tmp_path, "cpu", said.append)
    assert any(f"Going on from step {found.step} of {found.step + 2}" in line for line in said)


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a cluster's may be, which refuses with an error of its own."""

    def refusing(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("anydit.train.guards.fcntl.flock", refusing)
    with pytest.raises(ValueError, match=r"out: got .*, on a disk that locks no files \(No locks available\)"):
        train(tiny(), tmp_path, "cpu", silent)


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
    """Let the loss be NaN at some of the steps that are taken from here on."""
    real = TrainStep.__init__

    def at(when: range) -> None:
        def init(self, *arguments, **names):
            real(self, *arguments, **names)
            _poison(self, when)

        monkeypatch.setattr(TrainStep, "__init__", init)

    return at


@pytest.mark.fault("T13")
def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, poisoned):
    """Neither the weights nor their average nor the optimizer see it; it is named and counted, also later on."""
    train(tiny_with(steps=4, save_every=1), tmp_path / "run", "cpu", silent)
    shutil.copytree(tmp_path / "run", tmp_path / "control")
    before = state_hash(tmp_path / "run")
    train(tiny_with(steps=5, save_every=1), tmp_path / "control", "cpu", silent)
    assert state_hash(tmp_path / "control") != before, "the same step, where it is finite, changes them"
    poisoned(range(1))
    said: list[str] = []
    train(tiny_with(steps=5, save_every=1), tmp_path / "run", "cpu", said.append)
    assert any("Step 4 was skipped" in line for line in said)
    assert state_hash(tmp_path / "run") == before
    assert newest(tmp_path / "run" / "checkpoints").info()["skipped"] == 1  # type: ignore[union-attr]
    poisoned(range(1, 2))
    train(tiny_with(steps=7, save_every=1), tmp_path / "run", "cpu", silent)
    assert newest(tmp_path / "run" / "checkpoints").info()["skipped"] == 2  # type: ignore[union-attr]
    assert state_hash(tmp_path / "run") != before, "a finite step does change them"
    assert load(tmp_path / "run", "cpu").sample(1).isfinite().all()


@pytest.mark.fault("T14")
def test_too_many_in_a_row_stop_the_run(tmp_path: Path, poisoned):
    """The weights that are saved are from before them."""
    poisoned(range(2, 100))
    with pytest.raises(NotFinite, match="3 steps in a row up to step 4"):
        train(tiny_with(max_skipped=3), tmp_path, "cpu", silent)
