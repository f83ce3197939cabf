"""What is kept in the cache folder, and for how long."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

INDEX = "index.json"
"""What is in a folder of the cache; written last, it says that the folder is whole."""

STALE_SECONDS = 24 * 3600
"""What a killed process left is removed when nobody has written to it for so long."""

UNUSED_SECONDS = 90 * 24 * 3600
"""Folders that nobody has opened for so long are removed when others come; they can be made again."""


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
