"""What is kept in the cache folder, how it comes there, and for how long."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

T = TypeVar("T")

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


def index_of(folder: Path) -> Path | None:
    """Where a folder of the cache says what is in it; None where it does not."""
    index = folder / INDEX
    return index if index.is_file() else None


@contextmanager
def filling(
    folder: Path, read: Callable[[Path], object | None] = index_of, field: str | None = "data.cache"
) -> Iterator[Path]:
    """A new folder to write in, with an `INDEX`; then it becomes `folder`, which so is whole or absent.

    `read`: None of a folder that is neither; of several processes the first to make one that is not so wins. `field`:
    what says where the cache is; None where the environment alone does.

    Raises:
        ValueError: it cannot be written.
    """
    temporary = folder.with_name(f".{uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if read(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            temporary.rename(folder)
    except OSError as error:
        if read(folder) is None:
            by = f"--{field} or ANYDIT_CACHE" if field else "ANYDIT_CACHE"
            raise ValueError(
                f"{field or 'cache'}: got {folder.parent}, which cannot be written ({error.strerror or error}); "
                f"expected a folder with room, by {by}"
            ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def made(
    folder: Path, read: Callable[[Path], T | None], fill: Callable[[Path], object], field: str = "data.cache"
) -> T:
    """What `read` finds in a folder of the cache; where that is None, `fill` writes it there before, and others go.

    Raises:
        ValueError: as `filling`.
    """
    found = read(folder)
    if found is None:
        with filling(folder, read, field) as temporary:
            sweep(folder.parent)
            fill(temporary)
        found = read(folder)
        assert found is not None, "it was written just now"
    used(folder)
    return found


def sweep(root: Path) -> None:
    """Remove what killed processes left, and what has been of no use for long."""
    for folder in root.iterdir():
        unfinished = folder.name.startswith(".")
        if not unfinished and not (folder / INDEX).is_file():
            continue  # not ours
        with suppress(OSError):  # another process removes it
            newest = max(file.stat().st_mtime for file in [folder, *folder.glob("*")])
            if time.time() - newest > (STALE_SECONDS if unfinished else UNUSED_SECONDS):
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
