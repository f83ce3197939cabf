"""While a checkpoint is written: killed at any moment, on a full disk, again and again (FAULTS.md, T4, T9, T10)."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from anydit.train.checkpoint import broken, newest, save, sweep
from anydit.train.loop import train
from tests.train.disk import at_touch, die, refuse
from tests.train.tiny import ends_as, silent, tiny_with
from tests.train.together import CONTEXT, run_together

NEVER = 3
"""The exit code of a process in which nothing went wrong."""

FULL = "from tests.train.disk import NoLonger\nNoLonger(20_000).__enter__()"


def save_step(root: Path, step: int, keep: int) -> None:
    save(root, step, {"model": {"w": torch.full((3,), float(step))}, "ema": {}}, {"step": step}, keep)


def save_and_fail(root: Path, keep: int, nth: int, fault: Callable[[], None]) -> None:
    """Save step 2, in a process of its own, of which one touch goes wrong; where there are fewer, say so."""
    touched = at_touch(nth, str(root), fault)
    save_step(root, 2, keep)
    sys.exit(NEVER if touched() < nth else 0)


@pytest.mark.fault("T4")
@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("fault", [die, refuse])
def test_whenever_a_save_ends_a_whole_checkpoint_is_there(tmp_path: Path, keep: int, fault: Callable[[], None]):
    """Before each time that the disk is touched, from the first to the last."""
    ends = list[tuple[int | None, int]]()
    for nth in range(1, 100):
        root = tmp_path / str(nth)
        save_step(root, 1, keep)
        process = CONTEXT.Process(target=save_and_fail, args=(root, keep, nth, fault))
        process.start()
        process.join(60)
        if process.exitcode == NEVER:
            break
        found = newest(root, silent)
        assert found is not None and float(found.tensors("model")["w"][0]) == found.step
        ends.append((process.exitcode, found.step))
        if fault is die:
            sweep(root)
        assert not list(root.glob(".*")), "who goes on, or is told of the error, leaves nothing half"
        save_step(root, 3, keep)
        assert all(broken(folder) is None for folder in root.iterdir())
    # Where it is refused to remove something, the save goes on.
    expected = {(-signal.SIGKILL, 1), (-signal.SIGKILL, 2)} if fault is die else {(1, 1), (1, 2), (0, 2)}
    assert len(ends) > 10 and set(ends) == expected


@pytest.mark.fault("T9")
@pytest.mark.parametrize("keep", [1, 2])
def test_killed_in_mid_save_five_times_over(whole: Path, tmp_path: Path, keep: int):
    """Each time at another moment of the second save; one step of each pair is done again."""
    flags = ("--train.save-every", "2", "--train.keep", str(keep))
    for step, nth in zip(range(4, 13, 2), (1, 2, 5, 9, 12), strict=True):
        die_there = f"from tests.train.disk import at_touch, die\nat_touch({nth}, '{step:09d}', die)"
        (code,), (said,) = run_together(tmp_path, 1, *flags, before=die_there)
        assert code == -signal.SIGKILL, said
        found = newest(tmp_path / "checkpoints")
        assert found is not None and found.step == step - 2
    (code,), (said,) = run_together(tmp_path, 1, *flags)
    assert code == 0 and "Going on from step 10 of 12" in " ".join(said.split()), said
    ends_as(tmp_path, whole)
    assert len(list((tmp_path / "checkpoints").iterdir())) == keep


def goes_on_after_no_room(out: Path, whole: Path, code: int, said: str, why: str) -> None:
    """The error is a sentence, what was there is untouched, nothing half is left, and the next save works."""
    assert code == 1 and "Traceback" not in said, said
    assert "anydit: error: " in said and why in said
    found = newest(out / "checkpoints")
    assert found is not None and found.step == 4
    assert [folder.name for folder in (out / "checkpoints").iterdir()] == ["step-000000004"]
    train(tiny_with(), out, "cpu", silent)
    ends_as(out, whole)


@pytest.mark.fault("T10")
def test_a_file_that_cannot_grow(whole: Path, tmp_path: Path):
    """A limit on its size stands for a full disk's."""
    train(tiny_with(steps=4), tmp_path, "cpu", silent)
    (code,), (said,) = run_together(tmp_path, 1, before=FULL)
    goes_on_after_no_room(tmp_path, whole, code, said, "File too large")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.fault("T10")
def test_a_disk_that_fills(whole: Path, small_disk: Path):
    out = small_disk / "run"
    train(tiny_with(steps=4), out, "cpu", silent)
    (small_disk / "ballast").write_bytes(b"0" * (shutil.disk_usage(small_disk).free - 100_000))
    (code,), (said,) = run_together(out, 1)
    (small_disk / "ballast").unlink()
    goes_on_after_no_room(out, whole, code, said, "No space left on device")
