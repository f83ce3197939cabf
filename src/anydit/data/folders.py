"""Folders of files from outside: one subfolder for each class, at any depth in it, or flat and without classes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from os import R_OK, access, fsencode, walk
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from anydit.data.outside import SHOWN

PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Names of folders that are parts of a data set, not classes."""


Walk = Iterator[tuple[Path, list[str], list[str]]]
"""Folders, each with the names of the folders in it, of which those that are taken out are not walked, and of files."""


class Listing(NamedTuple):
    """The files of a kind in a folder, by names relative to it; no `classes` where it is flat."""

    files: list[str]
    classes: list[str]
    others: list[str]


def listing(root: Path, suffixes: tuple[str, ...], what: str) -> Listing:
    """Find the files named with `suffixes`, in lower case; `what` they are, in the plural.

    Hidden files and folders, and folders named `__...`, are not looked at. Links are followed, but not to folders
    within a class.

    Raises:
        ValueError: it is neither a folder for each class nor a flat one.
    """
    if not root.is_dir():
        raise ValueError(f"data.path: got {root}, which is not a folder; expected one with {what}")
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("__"))
    top = sorted(entry.name for entry in entries if not entry.is_dir())
    within = {name: sorted(_below(root, root / name)) for name in classes}
    files = top + [file for name in classes for file in within[name]]

    def named(file: str) -> bool:
        return file.lower().endswith(suffixes)

    found, flat = [file for file in files if named(file)], sum(map(named, top))
    if not found:
        raise ValueError(f"data.path: got {root} without {what}, expected files named {', '.join(suffixes)}")
    if flat and classes:
        raise ValueError(
            f"data.path: got {root} with {flat} {what} of its own beside the folders {_some(classes)}; "
            f"expected either one folder for each class, or {what} only"
        )
    if empty := [name for name in classes if not any(map(named, within[name]))]:
        raise ValueError(f"data.path: got no {what} in {_some(empty)} of {root}, expected some of every class")
    refuse_parts(root, classes)
    return Listing(found, classes, [file for file in files if not named(file)])


def walked(root: Path) -> Walk:
    """A folder and those at any depth in it, in order; what is hidden, and what a hidden folder holds, is not there.

    Links are followed, but not to folders within a folder of `root`. Where there is no folder nothing is walked over.
    """
    if not root.is_dir():
        return
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    folders = [entry.name for entry in entries if entry.is_dir()]
    yield root, folders, [entry.name for entry in entries if not entry.is_dir()]
    for name in folders:
        yield from _within(root / name)


def files_in(root: Path) -> list[Path]:
    """All files that are `walked` over, in order."""
    return sorted(at / name for at, _, files in walked(root) for name in files)


def _within(folder: Path) -> Walk:
    for at, folders, files in walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(at), folders, sorted(name for name in files if not name.startswith("."))


def _below(root: Path, folder: Path) -> Iterator[str]:
    """The files at any depth in `folder`, relative to `root`."""
    for at, _, files in _within(folder):
        prefix = at.relative_to(root).as_posix()
        yield from (f"{prefix}/{name}" for name in files)


def passed_over(others: Sequence[str], what: str) -> str:
    """One sentence on what is in a folder beside `what` is read."""
    kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in others).most_common(SHOWN)
    found = ", ".join(f"{count} with {plain(kind)}" for kind, count in kinds)
    return f"Passed over files that are not named like {what}: {found}."


def refuse_parts(root: Path, classes: Sequence[str]) -> None:
    """Refuse folders that are all named like parts of a data set.

    Raises:
        ValueError: there are such folders, and no others.
    """
    if classes and {name.lower() for name in classes} <= PARTS:
        raise ValueError(
            f"data.path: got {root} with the folders {_some(classes)}, which are parts, not classes; "
            f"expected one of them, as {root / classes[0]}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(plain(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def plain(name: str) -> str:
    """A file's name on one line and in valid Unicode, which it need not be."""
    return " ".join(fsencode(name).decode(errors="replace").split())


def state(file: Path) -> tuple[int, int, bool] | None:
    """A file's bytes, when it was changed, and whether it may be read; None where it is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns, access(file, R_OK)) if S_ISREG(found.st_mode) else None
