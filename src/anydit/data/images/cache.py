"""Images decoded once, in parallel, into mapped files in the cache folder, one of each size, with an index of all."""

import json
import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import Shaped
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anydit.config import Json, to_json, write_json
from anydit.data.base import cache_folder
from anydit.data.images.decode import Fitted, Target, decode
from anydit.data.kept import INDEX, made
from anydit.data.outside import Skipped, Unreadable, check_skipped, told

SCHEMA = 2
"""Of the index and of how images are decoded: another number makes every cache anew."""

PIXELS = "pixels.npy"


@dataclass(frozen=True)
class Sources:
    """Images to decode: `names` tells them apart, `labels` are class indices, `load(i)` gets one's file or bytes.

    `content`: says what is in them, so that a cache is used again only while it is the same.
    """

    names: Sequence[str]
    labels: Sequence[int] | None
    load: Callable[[int], Path | bytes]
    content: Any


@dataclass(frozen=True)
class Decoded:
    """Images in the cache: of each size the pixels, `UInt8[n c h w]`; the names and labels of all, in order.

    `which`: for each image its size, by number. `off`: the most that an image's aspect is from its size's, as a share
    of its area. `skipped`: those that are not here, and why.
    """

    pixels: Sequence[Shaped[np.ndarray, "_ c _ _"]]
    names: Sequence[str]
    labels: Sequence[int] | None
    which: Sequence[int]
    off: float
    skipped: Skipped
    index: Path

    def told(self) -> str:
        """One sentence on what was skipped."""
        count = len(self.names) + len(self.skipped)
        return f"{told(self.skipped, count, 'images')} All of them: {self.index}."

    def told_sizes(self) -> str:
        """How many images are of which size, height by width."""
        counts = {f"{some.shape[2]}x{some.shape[3]}": len(some) for some in self.pixels if len(some)}
        of = "" if len(counts) == len(self.pixels) else f" of {len(self.pixels)}"
        each = ", ".join(f"{count} of {size}" for size, count in counts.items())
        return f"{len(self.names)} images in {len(counts)}{of} sizes: {each}"


@dataclass(frozen=True)
class Cache:
    """A folder of decoded image sets, and what images are decoded to.

    `bad_limit`: the share of images that may be unreadable.
    """

    folder: Path | None
    target: Target
    bad_limit: float

    def get(self, sources: Sources) -> Decoded:
        """The decoded images, from the cache where they are there.

        Raises:
            ValueError: too many are unreadable, or the cache has no room.
        """
        root = (self.folder.expanduser() if self.folder else cache_folder()) / "images"
        sizes, channels, fit, at_most = self.target
        about = [SCHEMA, sizes, at_most, channels, to_json(fit), sources.names, sources.labels]
        folder = root / sha256(json.dumps([*about, sources.content]).encode()).hexdigest()[:32]
        # The limit is no part of the key: images that a looser limit let pass must not be decoded anew to be refused.
        found = made(folder, partial(_read, sizes=len(sizes)), lambda empty: self._fill(empty, sources))
        check_skipped(found.skipped, len(sources.names), self.bad_limit, "images")
        return found

    def _fill(self, folder: Path, sources: Sources) -> None:
        """Write the pixels and the index; plain files, because a map of a full disk kills the process."""
        self._check_room(folder.parent, len(sources.names))
        kept, which, off, skipped = list[int](), list[int](), 0.0, list[tuple[str, str]]()
        count, shapes = len(sources.names), [(self.target.channels, *size) for size in self.target.sizes]
        with ExitStack() as stack, closing(self._decoded(sources)) as images:
            files = [stack.enter_context((folder / _pixels(k)).open("wb")) for k in range(len(shapes))]
            for file, shape in zip(files, shapes, strict=True):
                write_header(file, (count, *shape))
            for i, one in enumerate(images):
                if isinstance(one, str):
                    skipped.append((sources.names[i], one))
                    check_skipped(skipped, count, self.bad_limit, "images", i + 1)
                else:
                    kept.append(i)
                    which.append(one.which)
                    off = max(off, one.off)
                    files[one.which].write(one.pixels.tobytes())
            for k, (file, shape) in enumerate(zip(files, shapes, strict=True)):
                file.seek(0)
                write_header(file, (which.count(k), *shape))  # as long as the first: it reserves room for any count
                file.flush()
                os.fsync(file.fileno())
        labels = None if sources.labels is None else [sources.labels[i] for i in kept]
        index: Json = {"schema": SCHEMA, "names": [sources.names[i] for i in kept], "labels": labels}
        write_json(folder / INDEX, index | {"which": which, "off": off, "skipped": skipped})

    def _decoded(self, sources: Sources) -> Generator[Fitted | str, None, None]:
        """Each image in order, or why it is unreadable. Pillow lets other threads run while it decodes."""

        def one(i: int) -> Fitted | str:
            try:
                return decode(sources.load(i), self.target)
            except Unreadable as error:
                return str(error)

        threads = min(16, os.cpu_count() or 1)
        waiting = deque[Future[Any]]()
        count, ahead = len(sources.names), 4 * threads
        with warnings.catch_warnings(), ThreadPoolExecutor(threads, "decode") as pool, progress_bar() as bar:
            warnings.simplefilter("ignore")  # of odd metadata in files that decode all the same
            task = bar.add_task("Decoding", total=count)
            for i in range(count + ahead):
                if i < count:
                    waiting.append(pool.submit(one, i))
                if i >= ahead:
                    yield waiting.popleft().result()
                    bar.advance(task)

    def _check_room(self, folder: Path, count: int) -> None:
        most = self.target.channels * max(high * wide for high, wide in self.target.sizes)
        need, free = count * most, shutil.disk_usage(folder).free
        if need > free:
            raise ValueError(
                f"data.cache: got {folder} with {free / 1e9:.1f} GB free, expected {need / 1e9:.1f} GB for {count} "
                "images; choose another folder by --data.cache or ANYDIT_CACHE"
            )


def _read(folder: Path, sizes: int) -> Decoded | None:
    """What is in the cache; None where it is absent or not whole."""
    try:
        index = cast("Json", json.loads((folder / INDEX).read_text(encoding="utf-8")))
        skipped = [(str(name), str(why)) for name, why in index["skipped"]]
        names, which, off = index["names"], index["which"], float(index["off"])
        pixels = [np.load(folder / _pixels(k), mmap_mode="r", allow_pickle=False) for k in range(sizes)]
        counts = [which.count(k) for k in range(sizes)]
        found = Decoded(pixels, names, index["labels"], which, off, skipped, folder / INDEX)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = len(names) == len(which) and [len(some) for some in pixels] == counts
    return found if index["schema"] == SCHEMA and whole else None


def _pixels(k: int) -> str:
    """The file of the images of size k."""
    return PIXELS if k == 0 else f"{k}-{PIXELS}"


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Begin a .npy file of bytes; the header is as long for every count of rows."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def progress_bar() -> Progress:
    """On the error output, while it is used."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
