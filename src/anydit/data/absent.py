"""Files whose content git keeps elsewhere until it is fetched: links of git-annex and DataLad, pointers of LFS."""

from collections.abc import Sequence
from os import walk
from pathlib import Path

POINTERS = {
    b"/annex/objects/": "a pointer of git-annex, whose content is not here; git annex get or datalad get brings it",
    b"version https://git-lfs.": "a pointer of git LFS, whose content is not here; git lfs pull brings it",
}
"""How files begin that stand for others, and what to do about each."""


def elsewhere(file: Path) -> str:
    """Why the content of a file is not here, and what brings it; empty where it is, or where no file is."""
    if file.is_symlink() and not file.exists():
        if "annex" in file.readlink().parts:
            return "a link whose content is not here; datalad get or git annex get brings it"
        return f"a link to {file.readlink()}, which is not there"
    if not file.is_file():  # to open a pipe waits for ever
        return ""
    try:
        with file.open("rb") as opened:
            start = opened.read(max(map(len, POINTERS)))
    except OSError:
        return ""
    return next((why for begins, why in POINTERS.items() if start.startswith(begins)), "")


def links_in(folder: Path) -> list[Path]:
    """The files at any depth in a folder that are links, as those of a store whose parts git-annex has."""
    files = (Path(at, name) for at, _, names in walk(folder) for name in names)
    return [file for file in files if file.is_symlink()]


def check_here(files: Sequence[Path]) -> None:
    """Refuse files of which the content is not here, where all are needed.

    Raises:
        ValueError: says how many these are, names the first, and what brings it.
    """
    found = {file: why for file in files if (why := elsewhere(file))}
    if found:
        first, why = next(iter(found.items()))
        of = f"{first}, {why}" if len(files) == 1 else f"{len(found)} of {len(files)} files, the first {first}: {why}"
        raise ValueError(f"data.path: got {of}; expected all of them")
