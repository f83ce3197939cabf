"""Videos, each decoded once into a mapped file."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from anydit.config import Json, to_json
from anydit.data.absent import elsewhere
from anydit.data.images.aspects import Size
from anydit.data.images.cache import progress_bar, write_header
from anydit.data.kept import INDEX, filling, sweep, used
from anydit.data.outside import OPEN, Skipped, Unreadable
from anydit.data.shards import Member
from anydit.data.sources import Found
from anydit.data.video.decode import Decoding, is_picture

FRAMES = "frames.npy"

SCHEMA = 4
"""Of the mapped files and of how videos are decoded: another number makes all of them anew."""

MOST_FRAMES = 2**31
"""Frames for which the header of a mapped file has room."""


class Prepared(NamedTuple):
    """A video's frames `[t c h w]` in a mapped file, their `size` (height, width), and how many there are a second.

    `off`: how far its aspect is from that of its size, as a share of its area. `left_out`: how many frames of its own
    are not among them; `repeated`: how many of them are the same as the one before.
    """

    name: str
    file: Path
    frames: int
    rate: float
    size: Size
    off: float
    left_out: int
    repeated: int


def prepare(found: Found, how: Decoding, folder: Path) -> tuple[list[Prepared], Skipped]:
    """Every video as a mapped file in `folder`, decoded anew if it changed; and which cannot be used, and why.

    When videos are decoded, those that have been of no use for long are removed.

    Raises:
        ValueError: the folder cannot be written.
    """
    sources, files, skipped = dict[str, Path | Member](), dict[str, Path](), list[tuple[str, str]]()
    for name in found.names:
        try:
            sources[name] = found.source(name)
            files[name] = folder / _key(sources[name], how) / FRAMES
        except OSError as error:
            skipped.append((name, _absent(sources[name]) or error.strerror or "cannot be read"))
        except Unreadable as error:
            skipped.append((name, str(error)))
    for file in files.values():
        used(file.parent)
    missing = [name for name, file in files.items() if not _about(file).is_file()]
    if missing:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "videos") as pool, progress_bar() as bar:
            task = bar.add_task("Decoding", total=len(missing))
            for _ in pool.map(lambda name: _decode(sources[name], how, files[name]), missing):
                bar.advance(task)
        sweep(folder)
    kept = list[Prepared]()
    for name, file in files.items():
        said: Json = json.loads(_about(file).read_text(encoding="utf-8"))
        if "unreadable" in said:
            skipped.append((name, _absent(sources[name]) or said["unreadable"]))
        else:
            high, wide = said["size"]
            kept.append(Prepared(name, file, said["frames"], said["rate"], (high, wide), said["off"],
                                 said["left_out"], said["repeated"]))  # fmt: skip
    return kept, skipped


@lru_cache(maxsize=OPEN)
def mapped(file: Path) -> UInt8[np.ndarray, "t c h w"]:
    """The frames in a file, read where they are looked at."""
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _key(path: Path | Member, how: Decoding) -> str:
    """Of a video as it is now, decoded so."""
    if isinstance(path, Member):
        states = [path.state]
    else:
        states = [
            (str(p.resolve()), (stat := p.stat()).st_size, stat.st_mtime_ns, os.access(p, os.R_OK))
            for p in _parts(path)
        ]
    sizes, channels, fit, at_most = how.target
    about = [SCHEMA, sizes, at_most, channels, to_json(fit), how.rate, how.pictures, states]
    return sha256(json.dumps(about).encode()).hexdigest()[:32]


def _parts(path: Path) -> list[Path]:
    """The files that make a video: itself, or the pictures in it."""
    return sorted(part for part in path.iterdir() if is_picture(part.name)) if path.is_dir() else [path]


def _absent(source: Path | Member) -> str:
    """Why the content of a video is not here; empty where it is, or where not even its folder can be read."""
    if isinstance(source, Member):
        return ""
    with suppress(OSError):
        return next(filter(None, map(elsewhere, _parts(source))), "")
    return ""


def _about(file: Path) -> Path:
    """What is said of a mapped file: written last, it says that the frames are whole, or why there are none."""
    return file.with_name(INDEX)


def _decode(path: Path | Member, how: Decoding, file: Path) -> None:
    """Decode a video into `file`, which is whole or absent."""
    with filling(file.parent) as temporary:
        try:
            said = _decoded(path, how, temporary / FRAMES)
        except Unreadable as error:
            (temporary / FRAMES).unlink(missing_ok=True)
            said = {"unreadable": str(error)}
        (temporary / INDEX).write_text(json.dumps(said), encoding="utf-8")


def _decoded(path: Path | Member, how: Decoding, file: Path) -> Json:
    """Write the frames; what there is to say of them."""
    shape, frames, off, own, before, number = (), 0, 0.0, 0, None, count()
    with how.opened(path) as film, file.open("wb") as out:
        film = film._replace(frames=(shown for shown, _ in zip(film.frames, number, strict=False)))
        for pixels, _, beside in film.picked():
            if not frames:
                shape = pixels.shape
                write_header(out, (MOST_FRAMES, *shape))
            if not frames % 256 and shutil.disk_usage(file.parent).free < 256 * pixels.nbytes:
                raise OSError(f"no room for {path.name}")
            out.write(pixels.tobytes())
            frames, off = frames + 1, max(off, beside)
            own, before = own + (pixels is not before), pixels
        if not frames:
            raise Unreadable("too short for a single frame")
        out.seek(0)
        write_header(out, (frames, *shape))
        out.flush()
        os.fsync(out.fileno())
    left_out = next(number) - 1 - own  # the last frame is only where the video ends
    said = {"frames": frames, "rate": film.rate, "size": shape[1:], "off": off}
    return said | {"left_out": left_out, "repeated": frames - own}
