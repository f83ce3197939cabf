"""The files of fields in a folder, and of which part they are."""

from collections.abc import Sequence
from pathlib import Path

from anydit.data.absent import check_here, links_in
from anydit.data.base import Part
from anydit.data.fields.files import SUFFIXES
from anydit.data.folders import PARTS as FOLDERS
from anydit.data.folders import walked

PARTS: dict[str, Part] = {"train": "train", "valid": "held_out", "val": "held_out", "validation": "held_out"}
"""Folders that say which part the files in them are of."""


def found_in(path: Path) -> tuple[list[tuple[Path, Part | None]], list[str]]:
    """The files at any depth, in order, and of which part each is where its folder says so; and what is passed over.

    Raises:
        ValueError: there are none, or the folders in it are parts of which none is to train on.
    """
    if path.suffix.lower() in SUFFIXES and path.exists():
        return [(path, None)], []
    if not path.exists():
        raise ValueError(f"data.path: got {path}, which is not there; expected a file of fields, or a folder of some")
    if not path.is_dir():
        raise ValueError(f"data.path: got {path}, expected a file named {', '.join(SUFFIXES)}, or a folder of them")
    root = path / "data" if (path / "data").is_dir() else path
    parts: dict[str, Part | None] = {**PARTS} if (root / "train").is_dir() else {"": None}
    named = sorted(each.name for each in root.iterdir() if each.is_dir() and each.name.lower() in FOLDERS)
    if named and "" in parts:
        raise ValueError(
            f"data.path: got {root} with the folders {', '.join(named)}, which are parts; expected train among them, "
            f"or one of them, as {root / named[0]}"
        )
    every: list[tuple[Path, Part | None]] = [(file, part) for at, part in parts.items() for file in _below(root / at)]
    found = [each for each in every if each[0].suffix.lower() in SUFFIXES]
    if not found:
        raise ValueError(f"data.path: got {path} without fields, expected files named {', '.join(SUFFIXES)}")
    return found, [file.name for file, _ in every if file.suffix.lower() not in SUFFIXES]


def _below(folder: Path) -> list[Path]:
    """The files, and the stores, which are folders; none in these."""
    found = list[Path]()
    for at, folders, files in walked(folder):
        stores = [name for name in folders if Path(name).suffix.lower() in SUFFIXES]
        folders[:] = [name for name in folders if name not in stores]
        found += [at / name for name in (*files, *stores)]
    return sorted(found)


def refuse_absent(files: Sequence[Path]) -> None:
    """Refuse files whose content is not here; of a store, parts, which would be read as if nothing were written there.

    Raises:
        ValueError: there are such.
    """
    check_here([each for file in files for each in (links_in(file) if file.is_dir() else [file])])
