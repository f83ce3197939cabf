"""Checkpoints that survive a crash at any moment: written aside, flushed, listed by checksum, renamed into place.

A checkpoint is a folder of safetensors and one JSON; `manifest.json` lists each file's sha256. A folder without a whole
manifest does not count. Older ones go only after the new one is on disk. Where several processes hold parts of a model,
each writes a file of its own, and the first of them the manifest; any number of processes reads what it needs of them.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from anydit.config import Json
from anydit.train.pieces import ALL, Pieces, piece_of, put, read, written
from anydit.weights import fsync, sha256, write_atomically, write_safetensors

MANIFEST, INFO = "manifest.json", "state.json"
TEMPORARY, LISTED = ".unfinished-", ".listed-"
"""How the folder of a checkpoint begins that is being written, and in it the files that say what a writer has done."""

Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Share:
    """What one of several writers of a checkpoint writes: its number, of how many, and which pieces it has.

    `patience`: seconds that the first waits for what the others have to write.
    """

    number: int = 0
    writers: int = 1
    pieces: Pieces = field(default_factory=lambda: ALL)
    patience: float = 600.0

    def file(self, group: str) -> str:
        """The name of its file of a group of tensors."""
        part = "" if self.writers == 1 else f"-{self.number + 1}-of-{self.writers}"
        return f"{group}{part}.safetensors"


WHOLE = Share()


class Unwritten(OSError):
    """Another of a checkpoint's writers has not written its part."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole, verified checkpoint on disk."""

    folder: Path
    step: int

    def has(self, group: str) -> bool:
        """Whether this group was saved."""
        return bool(self._files(group))

    def tensors(self, group: str, pieces: Pieces = ALL) -> dict[str, Tensor]:
        """One group of tensors as it was saved, whoever wrote what; of those in `pieces` these."""
        found = dict[str, Tensor]()
        for file in self._files(group):
            with safe_open(file, "pt") as opened:
                told = read(opened.metadata())
                for key in opened.keys():  # noqa: SIM118, not a mapping
                    put(found, key, opened.get_slice(key), told.get(key), piece_of(pieces, key))
        return found

    def info(self) -> Json:
        """What was saved beside the tensors."""
        return json.loads((self.folder / INFO).read_text(encoding="utf-8"))

    def _files(self, group: str) -> list[Path]:
        name = re.compile(rf"{re.escape(group)}(-\d+-of-\d+)?\.safetensors")
        return sorted(file for file in self.folder.iterdir() if name.fullmatch(file.name))


def save(root: Path, step: int, groups: Groups, info: Json, keep: int, share: Share = WHOLE) -> Checkpoint:
    """Write a checkpoint of `step` under `root`, then remove all but the newest `keep` whole ones.

    Of several writers each calls this after the first has called `begin`; only the first removes anything.

    Raises:
        OSError: the disk is full or cannot be written, or another writer failed; what was there before is untouched,
            and nothing half is left.
    """
    final, temporary = root / f"step-{step:09d}", root / f"{TEMPORARY}{step:09d}"
    if share.number:
        _list(temporary, lambda: _write(temporary, groups, share), share)
        return Checkpoint(final, step)
    try:
        if share.writers == 1:
            begin(root, step)
        sums = _write(temporary, groups, share)
        for number in range(1, share.writers):
            sums |= _listed(temporary / f"{LISTED}{number}", share.patience)
        (temporary / INFO).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        _write_manifest(temporary, sums)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        fsync(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(root, keep, final)
    return Checkpoint(final, step)


def begin(root: Path, step: int) -> None:
    """Make the folder that the writers of a checkpoint write into."""
    temporary = root / f"{TEMPORARY}{step:09d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def newest(root: Path, note: Callable[[str], None] = print, until: float = inf) -> Checkpoint | None:
    """The newest whole checkpoint under `root` of at most the step `until`.

    `note` is told of each broken one that was passed over, and why.
    """
    for folder in _folders(root):
        if _step(folder) > until:
            continue
        fault = broken(folder)
        if fault is None:
            return Checkpoint(folder, _step(folder))
        note(f"Checkpoint {folder.name} is damaged ({fault}): falling back to the one before.")
    return None


def told(root: Path) -> Json:
    """What the newest checkpoint under `root` tells beside its tensors, whether these are whole or not; or nothing."""
    for folder in _folders(root):
        with suppress(OSError, ValueError):
            return Checkpoint(folder, _step(folder)).info()
    return {}


def broken(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file, or None where every checksum agrees."""
    try:
        listed: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, OSError):
        return f"{MANIFEST} cannot be read"
    for name, expected in listed.items():
        if Path(name).name != name or not (folder / name).is_file():
            return f"{name} is missing"
        try:
            same = sha256(folder / name) == expected
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if not same:
            return f"{name} has another sha256 than when it was written"
    return None


def forget(root: Path, after: int) -> None:
    """Remove the checkpoints of steps after this one, the newest first: what a run that went back has left."""
    for folder in _folders(root):
        if _step(folder) > after:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what an interrupted save left behind; only for who holds the run's lock."""
    for left in root.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _write(folder: Path, groups: Groups, share: Share) -> dict[str, str]:
    """Write and flush one writer's files; returns the checksum of each."""
    sums = dict[str, str]()
    for name, tensors in groups.items():
        file = folder / share.file(name)
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        write_safetensors(file, plain, written(share.pieces, plain))
        fsync(file)
        sums[file.name] = sha256(file)
    return sums


def _list(folder: Path, write: Callable[[], dict[str, str]], share: Share) -> None:
    """Let one of the other writers write, and tell the first of it."""
    said: Json = {"failed": "it was stopped"}
    try:
        said = {"sha256": write()}
    except OSError as error:
        said = {"failed": str(error)}
        raise
    finally:
        told = folder / f"{LISTED}{share.number}"
        write_atomically(told, lambda to: to.write_text(json.dumps(said), encoding="utf-8"))


def _listed(file: Path, patience: float) -> dict[str, str]:
    """What another writer has written, when it has."""
    until = time.monotonic() + patience
    while not file.is_file():
        if time.monotonic() > until:
            raise Unwritten(f"another process had not written its part of the checkpoint after {patience:g} s")
        time.sleep(0.01)
    said = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    if "failed" in said:
        raise Unwritten(f"another process could not write its part of the checkpoint: {said['failed']}")
    return said["sha256"]


def _write_manifest(folder: Path, sums: Mapping[str, str]) -> None:
    """List the checksums of what was written and flushed, and of what was said beside it; flush the list."""
    fsync(folder / INFO)
    content: dict[str, Any] = {"schema": 1, "sha256": dict(sorted({**sums, INFO: sha256(folder / INFO)}.items()))}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    fsync(folder / MANIFEST)
    fsync(folder)


def _prune(root: Path, keep: int, newest_whole: Path) -> None:
    """Remove checkpoints older than the newest `keep` whole ones."""
    whole = 1
    for folder in _folders(root):
        if folder == newest_whole:
            continue
        if whole >= keep:
            shutil.rmtree(folder, ignore_errors=True)
        elif broken(folder) is None:
            whole += 1


def _folders(root: Path) -> Iterator[Path]:
    """Checkpoint folders, newest first."""
    named = (folder for folder in root.glob("step-*") if re.fullmatch(r"step-\d{9,}", folder.name))
    return iter(sorted(named, key=_step, reverse=True))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
