"""Gradients out of all proportion: skipped, and where they do not end the run goes back, or stops (FAULTS.md, T14)."""

import json
import signal
from pathlib import Path

import pytest
import torch

from anydit.train.checkpoint import newest
from anydit.train.guards import Norms, SkipCounter, Spiked, Spikes
from anydit.train.log import read
from anydit.train.loop import train
from anydit.train.posthoc import PROFILES, Profiles
from anydit.train.step import TrainStep
from tests.train.spiking import SPIKES, ids_of, of_batches, spiking
from tests.train.tiny import KILL_IN_STEP, ends_as, losses, silent, state_hash, tiny_with
from tests.train.together import alone, run_together

NARROW = Spikes(window=4)
"""Statistics of so few steps that a tiny run has them."""

BAD = range(9, 14)
"""Batches that make gradients a million times as large, in some of the tests."""

SLOW = """
import time
from anydit.train import checkpoint
real = checkpoint.save
def save(root, step, *others):
    time.sleep(2 * (step == {step}))
    return real(root, step, *others)
checkpoint.save = save
"""
"""Code that lets a checkpoint take its time; a process runs it first."""

FLAGS = ("--train.steps", "16", "--train.spikes.window", "4")


@pytest.fixture
def spiked(monkeypatch: pytest.MonkeyPatch):
    """Let gradients be a million times too large when the function that is handed over says so."""
    real = TrainStep.terms

    def at(when) -> None:
        monkeypatch.setattr(TrainStep, "terms", real)
        monkeypatch.setattr(TrainStep, "terms", spiking(when))

    return at


@pytest.fixture(scope="module")
def gone_back(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went back because of the bad batches, and that nothing else disturbed."""
    out = tmp_path_factory.mktemp("spiked") / "run"
    code, said = alone(out, *FLAGS, before=SPIKES.format(when=f"of_batches(*{BAD})"))
    assert code == 0 and "Going back to step 8, because the steps 9 to 13 were skipped" in said, said
    return out


@pytest.mark.fault("T14")
def test_one_is_skipped_and_changes_nothing(tmp_path: Path, spiked):
    """Neither the weights nor their average nor the optimizer nor the statistics see it."""
    train(tiny_with(steps=6, spikes=NARROW), tmp_path, "cpu", silent)
    before = state_hash(tmp_path)
    spiked(lambda batch, step: step == 6)
    said: list[str] = []
    train(tiny_with(steps=7, spikes=NARROW), tmp_path, "cpu", said.append)
    assert any(line.startswith("Step 6 was skipped: its gradient, of norm ") for line in said)
    found = newest(tmp_path / "checkpoints")
    assert found is not None and found.step == 7 and found.info()["skipped"] == 1
    assert state_hash(tmp_path) == before
    train(tiny_with(steps=8, spikes=NARROW), tmp_path, "cpu", silent)
    assert state_hash(tmp_path) != before, "a usual step does change them"


@pytest.mark.fault("T14")
@pytest.mark.parametrize("spikes", [None, Spikes(window=7)])
def test_without_the_guard_it_is_applied(tmp_path: Path, spiked, spikes: Spikes | None):
    """The negative control."""
    train(tiny_with(steps=6, spikes=spikes), tmp_path, "cpu", silent)
    before = newest(tmp_path / "checkpoints").tensors("model")  # type: ignore[union-attr]
    spiked(lambda batch, step: step == 6)
    train(tiny_with(steps=7, spikes=spikes), tmp_path, "cpu", silent)
    after = newest(tmp_path / "checkpoints").tensors("model")  # type: ignore[union-attr]
    assert not any(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert not any(entry["skipped"] for entry in read(tmp_path / "log.jsonl"))


@pytest.mark.fault("T14")
def test_after_five_in_a_row_the_run_goes_back_and_passes_over_their_batches(gone_back: Path):
    taken = [ids for _, _, ids in losses(gone_back)]
    expected = [*range(8), *range(14, 22)]
    assert taken == [ids_of(batch) for batch in expected]
    entries = read(gone_back / "log.jsonl")
    assert [e["step"] for e in entries] == list(range(16)) and not any(e["skipped"] for e in entries)
    found = newest(gone_back / "checkpoints")
    assert found is not None and found.info()["skipped"] == len(BAD) and found.info()["passed"] == 6


@pytest.mark.fault("T14")
@pytest.mark.parametrize("step", [11, 14], ids=["when some were skipped", "when it has gone back"])
def test_killed_on_the_way_it_goes_back_again_to_the_same_end(gone_back: Path, tmp_path: Path, step: int):
    spikes, out = SPIKES.format(when=f"of_batches(*{BAD})"), tmp_path / "run"
    code, said = alone(out, *FLAGS, before=spikes + KILL_IN_STEP.format(step=step))
    assert code == -signal.SIGKILL and ("Going back" in said) == (step == 14), said
    assert newest(out / "checkpoints").step == (8 if step == 11 else 12)  # type: ignore[union-attr]
    code, said = alone(out, *FLAGS, before=spikes)
    assert code == 0, said
    ends_as(out, gone_back)


@pytest.mark.fault("T14")
def test_two_processes_go_back_together(gone_back: Path, tmp_path: Path):
    """The gradient of one of them is too large; what is skipped is skipped by both."""
    spikes = SPIKES.format(when=f"of_batches(*{BAD})")
    codes, printed = run_together(tmp_path, 2, *FLAGS, before=spikes)
    assert codes == [0, 0], printed
    assert "Going back to step 8" in printed[0] and "Going back" not in printed[1]
    both, one = read(tmp_path / "log.jsonl"), read(gone_back / "log.jsonl")
    assert [e["ids"] for e in both] == [e["ids"] for e in one]
    assert [e["loss"] for e in both] == pytest.approx([e["loss"] for e in one], rel=1e-5)


@pytest.mark.fault("T14")
def test_two_processes_go_back_to_the_same_step_however_long_it_takes_to_write(tmp_path: Path):
    """The checkpoint is written by the first alone; the other waits for it to be in its place."""
    flags = ["--train.steps", "14", "--train.spikes.window", "4", "--train.spikes.limit", "3"]
    spikes, slow = SPIKES.format(when="of_batches(8, 9, 10)"), SLOW.format(step=8)
    codes, printed = run_together(tmp_path, 2, *flags, before=spikes, own={0: slow})
    assert codes == [0, 0] and "Going back to step 8" in printed[0], printed
    assert [e["ids"] for e in read(tmp_path / "log.jsonl")[8:]] == [ids_of(batch) for batch in range(11, 17)]


@pytest.mark.fault("T14")
def test_what_was_saved_after_the_step_that_it_goes_back_to_is_gone(tmp_path: Path, spiked):
    """Else the next start would take up the run that led to the spikes."""
    spiked(of_batches(*BAD))
    kept = list[list[str]]()

    def note(said: str) -> None:
        if said.startswith("Going back to step 8"):
            kept.append(sorted(folder.name[-2:] for folder in (tmp_path / "checkpoints").iterdir()))

    train(tiny_with(steps=15, spikes=NARROW, save_every=2, keep=5), tmp_path, "cpu", note)
    assert kept == [["04", "06", "08"]]


@pytest.mark.fault("T14")
def test_averages_written_down_after_the_step_that_it_goes_back_to_are_gone(tmp_path: Path, spiked):
    """Else an average made before the run has come so far again would be of the course that was given up."""
    spiked(of_batches(*BAD))
    kept = list[list[str]]()

    def note(said: str) -> None:
        if said.startswith("Going back to step 8"):
            kept.append(sorted(file.stem[-2:] for file in (tmp_path / PROFILES).iterdir()))

    train(tiny_with(steps=15, spikes=NARROW, profiles=Profiles(every=3)), tmp_path, "cpu", note)
    assert kept == [["03", "06"]]
    assert sorted(file.stem[-2:] for file in (tmp_path / PROFILES).iterdir()) == ["03", "06", "09", "12", "15"]


@pytest.mark.fault("T14")
def test_where_going_back_does_not_help_the_run_stops(tmp_path: Path, spiked):
    """With an exit code of its own; what was saved stays, and the guard may be turned off to go on."""
    out = tmp_path / "run"
    code, said = alone(out, *FLAGS, before=SPIKES.format(when="lambda batch, step: 9 <= step < 14"))
    assert code == 4 and "Going back to step 8" in said, said
    assert "anydit: error: train.spikes: the steps 9 to 13 were skipped" in said
    found = newest(out / "checkpoints")
    assert found is not None and found.step == 12 and found.info()["skipped_in_a_row"] == 3
    spiked(lambda batch, step: 9 <= step < 14)
    train(tiny_with(steps=16, spikes=None), out, "cpu", silent)
    assert [e["step"] for e in read(out / "log.jsonl")] == list(range(16))


@pytest.mark.fault("T14")
def test_without_a_checkpoint_from_before_it_stops(tmp_path: Path, spiked):
    spiked(lambda batch, step: step >= 5)
    with pytest.raises(Spiked, match="steps 5 to 9 were skipped"):
        train(tiny_with(spikes=NARROW, save_every=8), tmp_path, "cpu", silent)


@pytest.mark.fault("T14")
def test_a_resumed_run_knows_what_is_usual(tmp_path: Path, spiked):
    """The control is a checkpoint from before there were statistics: it is read, and knows nothing yet."""
    for name in ("with", "without"):
        train(tiny_with(steps=8, spikes=NARROW), tmp_path / name, "cpu", silent)
    forget(tmp_path / "without" / "checkpoints" / "step-000000008")
    spiked(lambda batch, step: step == 9)
    for name in ("with", "without"):
        train(tiny_with(spikes=NARROW), tmp_path / name, "cpu", silent)
        skipped = [e["step"] for e in read(tmp_path / name / "log.jsonl") if e["skipped"]]
        assert skipped == ([9] if name == "with" else [])


def test_norms_beyond_a_multiple_of_the_median_are_not_usual():
    norms = Norms(Spikes(factor=10, window=4), torch.device("cpu"))
    for value in (1.0, 2.0, 30.0, 1000.0):
        assert norms.usual(torch.tensor(value)), "too few to say"
        norms.see(torch.tensor(value), torch.tensor(1.0))
    assert norms.usual(torch.tensor(20.0)) and not norms.usual(torch.tensor(20.1))
    norms.see(torch.tensor(5000.0), torch.tensor(0.0))
    assert norms.values.tolist() == [1, 2, 30, 1000], "what was not applied is not seen"
    norms.see(torch.tensor(3.0), torch.tensor(1.0))
    assert norms.values.tolist() == [2, 30, 1000, 3]


@pytest.mark.parametrize(("window", "kept"), [(2, [3, 4]), (4, [1, 2, 3, 4]), (6, [None, None, 1, 2, 3, 4])])
def test_norms_of_another_window_are_taken_up(window: int, kept: list[float | None]):
    saved = Norms(Spikes(window=4), torch.device("cpu"))
    for value in (1.0, 2.0, 3.0, 4.0):
        saved.see(torch.tensor(value), torch.tensor(1.0))
    other = Norms(Spikes(window=window), torch.device("cpu"))
    other.load_state(saved.state())
    assert [None if v != v else v for v in other.values.tolist()] == kept


def test_a_row_of_skipped_steps_ends_with_one_that_is_applied():
    skips = SkipCounter(10, Spikes(limit=3))
    for step, applied in enumerate((False, False, True, False, False)):
        skips.see(step, applied=applied, finite=True)
    with pytest.raises(Spiked) as row:
        skips.see(5, applied=False, finite=True)
    assert (row.value.first, row.value.last, skips.total) == (3, 5, 5)


@pytest.mark.parametrize("fields", [{"factor": 1.0}, {"factor": float("nan")}, {"window": 1}, {"limit": 0}])
def test_what_makes_no_sense_is_refused(fields: dict[str, float]):
    with pytest.raises(ValueError, match=rf"train\.spikes\.{next(iter(fields))}: got"):
        Spikes(**fields)  # type: ignore[arg-type]


def forget(folder: Path) -> None:
    """Make a checkpoint into one without statistics."""
    (folder / "norms.safetensors").unlink()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["sha256"]["norms.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
