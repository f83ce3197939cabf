"""Checkpoints that survive a crash at any moment: written aside, flushed, listed by checksum, renamed into place.

A checkpoint is a folder of safetensors and one JSON; `manifest.json` lists each file's sha256. A folder without a whole
manifest does not count. Older ones go only after the new one is on disk.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from torch import Tensor

from anydit.config import Json
from anydit.weights import fsync, load_tensors, sha256, write_safetensors

MANIFEST, INFO = "manifest.json", "state.json"
TEMPORARY = ".unfinished-"

Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """A whole, verified checkpoint on disk."""

    folder: Path
    step: int

    def has(self, group: str) -> bool:
        """Whether this group was saved."""
        return (self.folder / f"{group}.safetensors").is_file()

    def tensors(self, group: str) -> dict[str, Tensor]:
        """One group of tensors, as it was saved."""
        return load_tensors(self.folder / f"{group}.safetensors")

    def info(self) -> Json:
        """What was saved beside the tensors."""
        return json.loads((self.folder / INFO).read_text(encoding="utf-8"))


def save(root: Path, step: int, groups: Groups, info: Json, keep: int) -> Checkpoint:
    """Write a checkpoint of `step` under `root`, then remove all but the newest `keep` whole ones.

    Raises:
        OSError: the disk is full or cannot be written; what was there before is untouched, and nothing half is left.
    """
    root.mkdir(parents=True, exist_ok=True)
    final, temporary = root / f"step-{step:09d}", root / f"{TEMPORARY}{step:09d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, tensors in groups.items():
            plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
            write_safetensors(temporary / f"{name}.safetensors", plain)
        (temporary / INFO).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        _write_manifest(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        fsync(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(root, keep, final)
    return Checkpoint(final, step)


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
        if sha256(folder / name) != expected:
            return f"{name} has another sha256 than when it was written"
    return None


def sweep(root: Path) -> None:
    """Remove what an interrupted save left behind; only for who holds the run's lock."""
    for left in root.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    """Flush every file of `folder`, list their checksums, flush the list."""
    files = sorted(folder.iterdir())
    for file in files:
        fsync(file)
    content: dict[str, Any] = {"schema": 1, "sha256": {file.name: sha256(file) for file in files}}
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
