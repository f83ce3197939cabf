"""The files of fields in a folder, and of which part they are."""

from collections.abc import Sequence
from pathlib import Path

from anydit.data.absent import check_here, links_in
from anydit.data.base import Part
from anydit.data.fields.files import SUFFIXES

PARTS: dict[str, Part] = {"train": "train", "valid": "held_out", "val": "held_out", "validation": "held_out"}
"""Folders that say which part the files in them are of."""


def found_in(path: Path) -> list[tuple[Path, Part | None]]:
    """The files, in order, and of which part each is where its folder says so.

    Raises:
        ValueError: there are none.
    """
    if path.suffix.lower() in SUFFIXES and path.exists():
        return [(path, None)]
    if not path.is_dir():
        raise ValueError(f"data.path: got {path}, expected a file named {', '.join(SUFFIXES)}, or a folder of them")
    root = path / "data" if (path / "data").is_dir() else path
    parts = PARTS if (root / "train").is_dir() else {"": None}
    found: list[tuple[Path, Part | None]] = [
        (f, part) for at, part in parts.items() for f in sorted((root / at).glob("*")) if f.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise ValueError(f"data.path: got {path} without fields, expected files named {', '.join(SUFFIXES)}")
    return found


def refuse_absent(files: Sequence[Path]) -> None:
    """Refuse files whose content is not here; of a store, parts, which would be read as if nothing were written there.

    Raises:
        ValueError: there are such.
    """
    check_here([each for file in files for each in (links_in(file) if file.is_dir() else [file])])
