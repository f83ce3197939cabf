"""Nothing lost: runs that are killed or damaged end as the undisturbed run does (FAULTS.md)."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from anydit.inference.pipeline import load
from anydit.train.checkpoint import broken, newest
from anydit.train.loop import train
from tests.data.images import pictures
from tests.data.images.test_decode import bomb
from tests.train.tiny import (
    IN_STEP,
    KILL_IN_STEP,
    ends_as,
    losses,
    run,
    silent,
    state_hash,
    steps_taken,
    tiny,
    tiny_with,
)  # fmt: skip
from tests.train.together import alone

KILL_IN_COMMIT = """
import os, signal
from anydit.train import checkpoint
real = checkpoint._write_manifest
def write(folder, sums):
    real(folder, sums)
    if folder.name.endswith("{step}"):
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint._write_manifest = write
"""

KILL_IN_EXPORT = """
import os, signal
from anydit.train.run import Run
real = Run._export
def export(self, weights):
    if (self.site.out / "checkpoints" / "step-{step:09d}").is_dir():
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, weights)
Run._export = export
"""


def processes_of(out: Path) -> list[int]:
    """The living processes that were started with this folder."""
    found = list[int]()
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(out).encode() in line.read_bytes() and int(line.parent.name) != os.getpid():
                found.append(int(line.parent.name))
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.fault("T17")
def test_twice_gives_the_same_bits(whole: Path, tmp_path: Path):
    train(tiny(), tmp_path, "cpu", silent)
    ends_as(tmp_path, whole)


@pytest.mark.fault("T17")
def test_another_seed_does_not(whole: Path, tmp_path: Path):
    """The negative control of every comparison here."""
    train(tiny_with(seed=1), tmp_path, "cpu", silent)
    assert state_hash(tmp_path) != state_hash(whole)
    assert not set(losses(tmp_path)) & set(losses(whole))


@pytest.mark.fault("T1")
def test_resumed_with_another_seed_it_ends_elsewhere(whole: Path, tmp_path: Path):
    """The negative control of resuming: the seed is changed behind the run's back."""
    train(tiny_with(steps=8), tmp_path, "cpu", silent)
    recipe = tmp_path / "recipe.json"
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["train"]["seed"] = 1
    recipe.write_text(json.dumps(content), encoding="utf-8")
    train(tiny_with(seed=1), tmp_path, "cpu", silent)
    assert losses(tmp_path)[:8] == losses(whole)[:8]
    assert not set(losses(tmp_path)[8:]) & set(losses(whole)[8:])
    assert state_hash(tmp_path) != state_hash(whole)


@pytest.mark.fault("T1")
def test_killed_in_a_step(whole: Path, tmp_path: Path):
    """Kill -9 when the weights of step 6 are updated and their average is not; saved at 4, read by a worker."""
    killed = run(tmp_path, "--train.workers", "1", before=KILL_IN_STEP.format(step=6))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    found = newest(tmp_path / "checkpoints")
    assert found is not None and found.step == 4
    (tmp_path / ".model.safetensors.123.tmp").write_bytes(b"of a process that was killed while it wrote")
    said: list[str] = []
    train(tiny(), tmp_path, "cpu", said.append)
    assert not list(tmp_path.glob(".*.tmp"))
    assert said[0] == f"Going on from step 4 of 12 in {tmp_path}."
    assert not any("may differ" in line for line in said), "the same threads, and the same PyTorch"
    ends_as(tmp_path, whole)
    assert steps_taken(tmp_path) == [*range(6), *range(4, 12)], "no more is done again than what was not saved"
    deadline = time.monotonic() + 15  # a worker looks for its parent every five seconds
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(tmp_path)


@pytest.mark.fault("T3")
def test_killed_before_a_checkpoint_is_committed(whole: Path, tmp_path: Path):
    """Everything of step 8 is written, but not yet in its place."""
    code, said = alone(tmp_path, before=KILL_IN_COMMIT.format(step=8))
    assert code == -signal.SIGKILL, said
    (left,) = (tmp_path / "checkpoints").glob(".unfinished-*")
    assert broken(left) is None
    found = newest(tmp_path / "checkpoints")
    assert found is not None and found.step == 4
    train(tiny(), tmp_path, "cpu", silent)
    ends_as(tmp_path, whole)
    assert steps_taken(tmp_path)[8:][-8:] == [*range(4, 12)]


SLOW = """
import time
from anydit.train import checkpoint
real_write = checkpoint._write
def slowly(*args):
    time.sleep(2)
    return real_write(*args)
checkpoint._write = slowly
"""


@pytest.mark.fault("T5")
def test_killed_while_a_slow_save_goes_on(whole: Path, tmp_path: Path):
    """Steps go on while a checkpoint is written; killed then, it is absent, and nothing else is lost."""
    kill = IN_STEP.format(step=6, do="os.kill(os.getpid(), signal.SIGKILL)")
    code, said = alone(tmp_path, before=SLOW + kill)
    assert code == -signal.SIGKILL, said
    assert steps_taken(tmp_path)[-1] >= 5, "it did not wait for the disk"
    assert newest(tmp_path / "checkpoints") is None and list((tmp_path / "checkpoints").glob(".unfinished-*"))
    train(tiny(), tmp_path, "cpu", silent)
    ends_as(tmp_path, whole)


@pytest.mark.fault("T5")
def test_what_is_saved_slowly_is_the_state_of_its_step(tmp_path: Path):
    """The weights that change meanwhile are not those that are written."""
    train(tiny_with(steps=4), tmp_path / "four", "cpu", silent)
    code, said = alone(tmp_path / "slow", "--train.steps", "6", "--train.keep", "3", before=SLOW)
    assert code == 0, said
    shutil.rmtree(tmp_path / "slow" / "checkpoints" / "step-000000006")
    assert state_hash(tmp_path / "slow") == state_hash(tmp_path / "four")


@pytest.mark.fault("T3")
def test_killed_between_the_checkpoint_and_the_exported_weights(whole: Path, tmp_path: Path):
    """The checkpoint counts; the weights that `anydit.load` reads are written again from it."""
    code, said = alone(tmp_path, before=KILL_IN_EXPORT.format(step=12))
    assert code == -signal.SIGKILL, said
    stale, trained = (load(out, "cpu").model.state_dict() for out in (tmp_path, whole))
    assert not all(torch.equal(stale[name], tensor) for name, tensor in trained.items())
    train(tiny(), tmp_path, "cpu", silent)
    again = load(tmp_path, "cpu").model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in trained.items())
    ends_as(tmp_path, whole)
    assert steps_taken(tmp_path) == list(range(12))


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run after 8 of its 12 steps, with checkpoints of steps 4 and 8."""
    out = tmp_path_factory.mktemp("eight")
    train(tiny_with(steps=8), out, "cpu", silent)
    return out


@pytest.mark.fault("T8")
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", _flip),
        ("ema.safetensors", lambda file: os.truncate(file, 100)),
        ("optimizer.safetensors", Path.unlink),
        ("state.json", _flip),
        ("manifest.json", Path.unlink),
        ("manifest.json", _flip),
    ],
    ids=["flipped", "cut short", "removed", "flipped state", "without a manifest", "flipped manifest"],
)
def test_a_damaged_checkpoint_falls_back(
    whole: Path, eight: Path, tmp_path: Path, file: str, damage: Callable[[Path], None]
):
    """The newest is damaged and named; the one before is taken, and the end is the same."""
    out = tmp_path / "run"
    shutil.copytree(eight, out)
    damage(out / "checkpoints" / "step-000000008" / file)
    said: list[str] = []
    train(tiny(), out, "cpu", said.append)
    assert said[0].startswith(f"Checkpoint step-000000008 is damaged ({file}")
    assert said[1] == f"Going on from step 4 of 12 in {out}."
    ends_as(out, whole)


@pytest.mark.fault("T8")
def test_no_whole_checkpoint_is_never_a_silent_fresh_start(eight: Path, tmp_path: Path):
    """Both are damaged."""
    shutil.copytree(eight, tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="no checkpoint is whole"):
        train(tiny(), tmp_path / "run", "cpu", silent)


KILL_READERS = """
import multiprocessing
""" + IN_STEP.format(step=5, do="[os.kill(p.pid, signal.SIGKILL) for p in multiprocessing.active_children()]")


@pytest.mark.fault("T21")
def test_a_process_that_reads_data_is_killed(whole: Path, tmp_path: Path):
    """The run stops with a sentence, and goes on with the same samples."""
    code, said = alone(tmp_path, "--train.workers", "1", before=KILL_READERS)
    assert code == 1 and "anydit: error: train.workers: a process that reads data died" in said, said
    train(tiny_with(workers=1), tmp_path, "cpu", silent)
    ends_as(tmp_path, whole)


def photos(root: Path) -> Path:
    """120 images of two classes, of which six are bad, and a good one is in other colours."""
    pictures.by_class(root, ("a", "b"), 57, (8, 8))
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(root / "a" / "cmyk.jpg")
    (root / "a" / "056.png").write_bytes(b"")
    whole = (root / "a" / "000.png").read_bytes()
    for name in ("a/truncated.png", "b/truncated.png"):
        (root / name).write_bytes(whole[: len(whole) // 2])
    (root / "b" / "text.png").write_text("404 not found", encoding="utf-8")
    pictures.write(root / "b" / "one.png", pictures.noise(0, (1, 1)))
    (root / "b" / "bomb.png").write_bytes(bomb(12_000, 12_000))
    return root


@pytest.mark.fault("T15")
def test_one_image_in_twenty_is_bad(tmp_path: Path):
    """Skipped, counted and named; killed in a step, and decoded anew, the same samples are read. Above a limit: no."""
    images = ("--data", "ImageFolder", "--data.path", str(photos(tmp_path / "in")), "--data.size", "8", "8",
              "--data.channels", "1", "--data.bad-limit")  # fmt: skip

    def trained(out: str, cache: str, limit: str = "0.05", before: str = "") -> tuple[int, str]:
        flags = (*images, limit, "--data.cache", str(tmp_path / cache))
        return alone(tmp_path / out, *flags, before=before)

    code, said = trained("whole", "a")
    assert code == 0 and "Skipped 6 unreadable of 120 images (" in said, said
    assert "bomb.png: 12000x12000 pixels" in said
    assert trained("run", "b", before=KILL_IN_STEP.format(step=6))[0] == -signal.SIGKILL
    code, said = trained("run", "c")
    assert code == 0 and "Going on from step 4 of 12" in said and "Skipped 6 unreadable of 120" in said, said
    ends_as(tmp_path / "run", tmp_path / "whole")
    code, said = trained("strict", "d", limit="0.04")
    assert code == 2 and "got 6 unreadable among 120 images" in said and "at most 5" in said, said
    assert not (tmp_path / "strict" / "checkpoints").exists()


@pytest.mark.fault("T17")
def test_two_threads_give_the_same_bits_twice_and_one_instead_is_told(tmp_path: Path):
    """One CPU thread and two may give different bits, so a change is said."""
    torch.set_num_threads(2)
    try:
        for name in ("one", "other"):
            train(tiny_with(steps=4), tmp_path / name, "cpu", silent)
    finally:
        torch.set_num_threads(1)
    assert losses(tmp_path / "one") == losses(tmp_path / "other")
    assert state_hash(tmp_path / "one") == state_hash(tmp_path / "other")
    said: list[str] = []
    train(tiny(), tmp_path / "one", "cpu", said.append)
    assert "The run had threads 2, now it is 1: losses may differ in their last bits." in said
