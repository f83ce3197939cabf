"""What is kept in the cache folder, and for how long."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

INDEX = "index.json"
"""What is in a folder of the cache; written last, it says that the folder is whole."""

STALE_SECONDS = 24 * 3600
"""What a killed process left is removed when nobody has written to it for so long."""

UNUSED_SECONDS = 90 * 24 * 3600
"""Folders that nobody has opened for so long are removed when others come; they can be made again."""


def used(folder: Path) -> None:
    """Note that a folder is of use now; a cache that may only be read stays as old as it is."""
    with suppress(OSError):
        os.utime(folder)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A new folder to write in, with an `INDEX`; then it becomes `folder`, which so is whole or absent."""
    temporary = folder.with_name(f".{uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if not (folder / INDEX).is_file():  # else another process was faster
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what killed processes left, and what has been of no use for long."""
    for folder in root.iterdir():
        unfinished = folder.name.startswith(".")
        if not unfinished and not (folder / INDEX).is_file():
            continue  # not ours
        with suppress(OSError):  # another process removes it
            newest = max(file.stat().st_mtime for file in [folder, *folder.glob("*")])
            if time.time() - newest > (STALE_SECONDS if unfinished else UNUSED_SECONDS):
                shutil.rmtree(folder)
