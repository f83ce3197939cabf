"""Clips of sound in the cache folder: one mapped array of all, one after the other, and an index of what they are."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import Float, Int

from anydit.config import Json, write_json
from anydit.data.kept import INDEX, made
from anydit.data.outside import Skipped, Unreadable, check_skipped

SCHEMA = 1
"""Of the index and of how sound is decoded: another number makes every cache anew."""

VALUES = "values.npy"

Clip = Float[np.ndarray, "n c"]

Sound = tuple[Any, Iterator[Clip]]
"""What is known of a file, as JSON has it, and its clips."""


@dataclass(frozen=True)
class Clips:
    """All clips: clip i has the places from `starts[i]` to `starts[i + 1]` of `values`, and is of file `files[i]`.

    `about`: what is known of each file that was read, in order. `skipped`: the others.
    """

    values: Float[np.ndarray, "n c"]
    starts: Int[np.ndarray, " clips_1"]
    files: Int[np.ndarray, " clips"]
    about: Sequence[Any]
    skipped: Skipped

    @property
    def lengths(self) -> Int[np.ndarray, " clips"]:
        """Places of each clip."""
        return np.diff(self.starts)


def kept(
    root: Path, key: Any, names: Sequence[str], load: Callable[[str], Sound], channels: int, bad_limit: float
) -> Clips:
    """The clips of files by their names, decoded by `load` unless the cache has them under `key`, which says all.

    Raises:
        ValueError: too many are unreadable, or the cache has no room.
    """
    folder = root / sha256(json.dumps([SCHEMA, key, list(names)]).encode()).hexdigest()[:32]
    found = made(folder, _read, lambda empty: _fill(empty, names, load, channels, bad_limit))
    check_skipped(found.skipped, len(names), bad_limit, "files")
    return found


def _fill(folder: Path, names: Sequence[str], load: Callable[[str], Sound], channels: int, bad_limit: float) -> None:
    """Write the values and the index; a plain file, because a map of a full disk kills the process."""
    starts, files, about, skipped = [0], list[int](), list[Any](), list[tuple[str, str]]()
    with (folder / VALUES).open("wb") as file:
        _header(file, (2**62, channels))
        for i, name in enumerate(names):
            begin = file.tell(), len(starts)
            try:
                known, clips = load(name)
                for clip in clips:
                    file.write(np.ascontiguousarray(clip, np.float32).tobytes())
                    starts.append(starts[-1] + len(clip))
                    files.append(len(about))
                about.append(known)
            except Unreadable as error:
                # What was whole of a damaged file is left out, too: nobody knows what it lacks.
                file.truncate(file.seek(begin[0]))
                del starts[begin[1] :], files[begin[1] - 1 :]
                skipped.append((name, str(error)))
                check_skipped(skipped, len(names), bad_limit, "files", i + 1)
        file.seek(0)
        _header(file, (starts[-1], channels))  # as long as the first: it reserves room for any count
        file.flush()
        os.fsync(file.fileno())
    index: Json = {"schema": SCHEMA, "starts": starts, "files": files, "about": about, "skipped": skipped}
    write_json(folder / INDEX, index)


def _read(folder: Path) -> Clips | None:
    """What is in the cache; None where it is absent or not whole."""
    try:
        index = cast("Json", json.loads((folder / INDEX).read_text(encoding="utf-8")))
        values = np.load(folder / VALUES, mmap_mode="r", allow_pickle=False)
        starts, files = np.array(index["starts"], np.int64), np.array(index["files"], np.int64)
        skipped = [(str(name), str(why)) for name, why in index["skipped"]]
        found = Clips(values, starts, files, index["about"], skipped)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if index["schema"] == SCHEMA and len(values) == starts[-1] else None


def _header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
