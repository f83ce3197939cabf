"""Folders of the cache: whole or absent, whoever else makes them, and whatever happens meanwhile."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anydit.data.kept import INDEX, STALE_SECONDS, filling, made, sweep


def read(folder: Path) -> str | None:
    """What a folder says, if it is whole."""
    index = folder / INDEX
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    return text if text.endswith(".") else None


def fill(folder: Path) -> None:
    (folder / INDEX).write_text("Mine.", encoding="utf-8")


def test_what_is_there_is_read_and_else_made(tmp_path: Path):
    folder = tmp_path / "cache" / "some"
    assert made(folder, read, fill) == "Mine."
    os.utime(folder, (0, 0))
    assert made(folder, read, lambda _: pytest.fail("it is there")) == "Mine."
    assert folder.stat().st_mtime > 0, "it is of use"
    (folder / INDEX).write_text("Half a", encoding="utf-8")
    (folder / "more").write_text("of the damaged one", encoding="utf-8")
    assert made(folder, read, fill) == "Mine." and len(list(folder.iterdir())) == 1


def test_what_another_process_made_meanwhile_stays(tmp_path: Path):
    folder = tmp_path / "some"

    def overtaken(empty: Path) -> None:
        fill(empty)
        folder.mkdir()
        (folder / INDEX).write_text("Theirs.", encoding="utf-8")

    assert made(folder, read, overtaken) == "Theirs."
    with filling(folder, read) as empty:
        raise OSError(errno.ENOSPC, "the disk is full, but nobody needs this any more", str(empty))
    assert read(folder) == "Theirs." and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("data.cache", "data.cache: got {}, .*, by --data.cache or ANYDIT_CACHE$"),
        (None, "cache: got {}, .*, by ANYDIT"),
    ],
)
def test_what_cannot_be_written_is_a_sentence_and_leaves_nothing(tmp_path: Path, field: str | None, told: str):
    with pytest.raises(ValueError, match="^" + told.format(tmp_path)), filling(tmp_path / "some", read, field):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_killed_processes_left_goes_be_it_a_file_or_a_folder(tmp_path: Path, make: Callable[[Path], None]):
    left, new = tmp_path / ".left", tmp_path / ".new"
    for path in (left, new):
        make(path)
    os.utime(left, (0, time.time() - 2 * STALE_SECONDS))
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
