"""The videos in a folder, each decoded once into a mapped file, and what is known of them by name."""

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from anydit.config import Json, to_json
from anydit.data.folders import refuse_parts
from anydit.data.images.aspects import Size
from anydit.data.images.cache import progress_bar, write_header
from anydit.data.kept import INDEX, filling, sweep, used
from anydit.data.outside import OPEN, SHOWN, Skipped, Unreadable
from anydit.data.video.decode import ANIMATION, DEMUXERS, Decoding, is_picture, is_video

FRAMES = "frames.npy"

SCHEMA = 4
"""Of the mapped files and of how videos are decoded: another number makes all of them anew."""

CAPTION = ".txt"
"""What the caption of a video is named, beside it."""

MOST_CAPTION = 10_000
"""Bytes of a caption, at most."""

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


class Listing(NamedTuple):
    """What is in a folder, by names relative to it; no `classes` where it is flat.

    Passed over are so many `others`, files, and `empty` folders in it, in which there is no video.
    """

    videos: Sequence[str]
    classes: Sequence[str]
    others: int
    empty: Sequence[str]


def listing(root: Path) -> Listing:
    """Find the videos: files, and folders that hold pictures; in a subfolder for each class, or all in `root`.

    Raises:
        ValueError: there is no folder, no video in it, videos beside classes, or parts of a data set for classes.
    """
    if not root.is_dir():
        raise ValueError(f"data.path: got {root}, which is not a folder; expected one with videos")
    videos, others, top = list[str](), 0, list[str]()
    for at, folders, files in os.walk(root):
        here = Path(at).relative_to(root)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        top = top if here != Path() else [*folders]
        files = sorted(name for name in files if not name.startswith("."))
        films, pictures = list(filter(is_video, files)), set(filter(is_picture, files))
        if pictures and not films and not folders and here != Path():
            videos.append(here.as_posix())
            files = [name for name in files if name not in pictures]
        videos += [(here / name).as_posix() for name in films]
        others += sum(name not in films and not name.endswith(CAPTION) for name in files)
    if not videos:
        expected = f"files named {', '.join([*DEMUXERS, ANIMATION])}, or folders of pictures"
        raise ValueError(f"data.path: got {root} without videos, expected {expected}")
    classes = sorted({name.partition("/")[0] for name in videos if "/" in name})
    flat = [name for name in videos if "/" not in name]
    if flat and classes:
        raise ValueError(
            f"data.path: got {root} with {len(flat)} videos of its own, as {flat[0]}, beside folders of them, "
            f"{', '.join(classes[:SHOWN])}; expected either one folder for each class, or videos only"
        )
    refuse_parts(root, classes)
    filled = {name.partition("/")[0] for name in videos}
    return Listing(sorted(videos), classes, others, [name for name in top if name not in filled])


def prepare(root: Path, names: Sequence[str], how: Decoding, folder: Path) -> tuple[list[Prepared], Skipped]:
    """Every video as a mapped file in `folder`, decoded anew if it changed; and which cannot be used, and why.

    When videos are decoded, those that have been of no use for long are removed.

    Raises:
        ValueError: the folder cannot be written.
    """
    files, skipped = dict[str, Path](), list[tuple[str, str]]()
    for name in names:
        try:
            files[name] = folder / _key(root / name, how) / FRAMES
        except OSError as error:
            skipped.append((name, error.strerror or "cannot be read"))
    for file in files.values():
        used(file.parent)
    missing = [name for name, file in files.items() if not _about(file).is_file()]
    if missing:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "videos") as pool, progress_bar() as bar:
            task = bar.add_task("Decoding", total=len(missing))
            for _ in pool.map(lambda name: _decode(root / name, how, files[name]), missing):
                bar.advance(task)
        sweep(folder)
    kept = list[Prepared]()
    for name, file in files.items():
        said: Json = json.loads(_about(file).read_text(encoding="utf-8"))
        if "unreadable" in said:
            skipped.append((name, said["unreadable"]))
        else:
            high, wide = said["size"]
            kept.append(Prepared(name, file, said["frames"], said["rate"], (high, wide), said["off"],
                                 said["left_out"], said["repeated"]))  # fmt: skip
    return kept, skipped


def caption(root: Path, name: str) -> str:
    """The text beside a video, on one line.

    Raises:
        Unreadable: there is none, or it is no text.
    """
    file = root / (name if (root / name).is_dir() else Path(name).with_suffix("").as_posix())
    file = file.with_name(file.name + CAPTION)
    try:
        with file.open("rb") as opened:
            text = " ".join(opened.read(MOST_CAPTION + 1).decode().split())
    except OSError:
        raise Unreadable(f"no {file.name} beside it") from None
    except UnicodeDecodeError:
        raise Unreadable(f"{file.name} is no text in UTF-8") from None
    if not text or len(text) > MOST_CAPTION:
        raise Unreadable(f"{file.name} is {'too long' if text else 'empty'}")
    return text


@lru_cache(maxsize=OPEN)
def mapped(file: Path) -> UInt8[np.ndarray, "t c h w"]:
    """The frames in a file, read where they are looked at."""
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _key(path: Path, how: Decoding) -> str:
    """Of a video as it is now, decoded so."""
    parts = sorted(part for part in path.iterdir() if is_picture(part.name)) if path.is_dir() else [path]
    states = [(str(p.resolve()), (stat := p.stat()).st_size, stat.st_mtime_ns, os.access(p, os.R_OK)) for p in parts]
    sizes, channels, fit, at_most = how.target
    about = [SCHEMA, sizes, at_most, channels, to_json(fit), how.rate, how.pictures, states]
    return sha256(json.dumps(about).encode()).hexdigest()[:32]


def _about(file: Path) -> Path:
    """What is said of a mapped file: written last, it says that the frames are whole, or why there are none."""
    return file.with_name(INDEX)


def _decode(path: Path, how: Decoding, file: Path) -> None:
    """Decode a video into `file`, which is whole or absent."""
    try:
        with filling(file.parent) as temporary:
            try:
                said = _decoded(path, how, temporary / FRAMES)
            except Unreadable as error:
                (temporary / FRAMES).unlink(missing_ok=True)
                said = {"unreadable": str(error)}
            (temporary / INDEX).write_text(json.dumps(said), encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"data.cache: got {file.parent.parent}, which cannot be written ({error.strerror or error}); "
            "expected a folder with room, by --data.cache or ANYDIT_CACHE"
        ) from None


def _decoded(path: Path, how: Decoding, file: Path) -> Json:
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
