"""One video, a file or a folder of pictures, to 8-bit frames at a rate: what is shown at each moment."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageSequence

from anydit.data.images.decode import FORMATS, MOST_PIXELS, SUFFIXES, Fitted, Target, decode, fitted
from anydit.data.outside import Unreadable
from anydit.data.shards import Member, readable

DEMUXERS = {
    ".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska", ".avi": "avi",
}  # fmt: skip
"""How FFmpeg reads a file, by the suffix of its name: formats that play other files (lists, HLS) are not among them."""

ANIMATION = ".gif"
"""What Pillow reads: FFmpeg does not clear what a GIF says is to be cleared."""

NO_TIME_MS = 100
"""How long a GIF's frame is shown that does not say how long, as browsers have it."""

MOST_BYTES = 2**32
"""No video is kept that has more than so many bytes as it is kept."""

ALIKE = 1e-3
"""The part by which rates may differ that count as the same."""

MISSING = 0.1
"""The part of its length by which a file may end early; players do not look at it closer."""

REORDERED = 16
"""Frames by which the data of one may come after those of others that are shown later: H.264 has no more."""


class Shown(NamedTuple):
    """A frame: from when on it is shown, in seconds, and what makes pixels of it."""

    seconds: float
    load: Callable[[], Fitted]


class Film(NamedTuple):
    """Frames in order of time. `rate`: how many a second are kept; `tick`: how exact times are, in seconds."""

    rate: float
    tick: float
    frames: Iterator[Shown]

    def picked(self) -> Iterator[Fitted]:
        """What is shown at 0, 1 / rate, 2 / rate ... seconds from the first frame on, all of one size.

        Raises:
            Unreadable: the video is damaged, longer than it may be, or of an aspect that changes.
        """
        # Times are rounded to ticks: a frame that begins at 0.067 is the one of 2/30 s.
        slack, kept, total = min(self.tick, 0.25 / self.rate), 0, 0
        before, which = cast("Shown | None", None), cast("int | None", None)
        for shown in self.frames:
            frame = None
            while before is not None and kept / self.rate < shown.seconds - slack:
                frame = before.load() if frame is None else frame
                kept, total = kept + 1, total + frame.pixels.nbytes
                if total > MOST_BYTES:
                    raise Unreadable(f"longer than {MOST_BYTES >> 30} GiB at this size and rate; cut it into parts")
                if which not in (None, frame.which):
                    raise Unreadable("frames of different aspects, whose nearest sizes are not the same")
                which = frame.which
                yield frame
            before = shown


@dataclass(frozen=True)
class Decoding:
    """How videos become frames of the `target`, each video of one of its sizes.

    `rate`: frames that are kept a second; None keeps the file's own. `pictures`: how many pictures of a folder are
    shown a second.
    """

    target: Target
    rate: float | None
    pictures: float | None

    @contextmanager
    def opened(self, path: Path | Member) -> Iterator[Film]:
        """A video while it is read; the last of its frames is only where the video ends.

        Raises:
            Unreadable: it is none, damaged, or too large.
            ValueError: PyAV is missing.
        """
        if isinstance(path, Path) and path.is_dir():
            yield self._folder(path)
            return
        if path.suffix.lower() == ANIMATION:
            yield self._animation(path)
            return
        av = import_av()
        try:
            with readable(path) as file, av.open(file, format=DEMUXERS[path.suffix.lower()]) as container:
                if not container.streams.video:
                    raise Unreadable("no video in it")
                yield self._film(container)
        except Unreadable:
            raise
        except av.FFmpegError as error:
            raise Unreadable(f"damaged, or not what its name says ({error.strerror})") from error

    def _film(self, container: Any) -> Film:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        _check_size(stream.codec_context.width, stream.codec_context.height)
        own = stream.average_rate or stream.guessed_rate
        if not own:
            raise Unreadable("no frame rate in it")
        return Film(self.rate or float(own), float(stream.time_base), self._frames(container, stream, 1 / float(own)))

    def _frames(self, container: Any, stream: Any, usual: float) -> Iterator[Shown]:
        """The frames of a file. `usual`: seconds that one is shown, where the last does not say."""
        first, end, last = None, 0.0, -1.0
        for frame in _timed(container.decode(stream), REORDERED if container.format.name == "avi" else 0):
            first = float(frame.time) if first is None else first
            seconds = float(frame.time) - first
            if frame.is_corrupt:
                raise Unreadable(f"a damaged frame at {seconds:.3g} s")
            if seconds <= last:
                raise Unreadable(f"frames whose times go back, from {last:.3g} to {seconds:.3g} s")
            _check_size(frame.width, frame.height)
            yield Shown(seconds, lambda frame=frame: self._pixels(frame, stream.sample_aspect_ratio))
            last, end = seconds, seconds + (float(frame.duration * frame.time_base) if frame.duration else usual)
        if first is None:
            raise Unreadable("no frame in it")
        stated = _stated(container, stream)
        if stated is not None and end < stated * (1 - MISSING) - 2 * usual:
            raise Unreadable(f"cut short: it ends after {end:.3g} of {stated:.3g} s")
        yield Shown(end, _nothing)

    def _pixels(self, frame: Any, aspect: Any) -> Fitted:
        """A frame upright, its pixels square."""
        clear = any(component.is_alpha for component in frame.format.components)
        image = Image.fromarray(frame.to_ndarray(format="rgba" if clear else "rgb24"))
        if aspect not in (None, 0, 1):
            image = image.resize((max(1, round(image.width * float(aspect))), image.height))
        if frame.rotation:
            image = image.rotate(frame.rotation, expand=True)
        return fitted(image, self.target)

    def _animation(self, path: Path | Member) -> Film:
        times_ms = [time for time, _ in _gif(path)]
        ends = np.cumsum(times_ms) / 1000

        def frames() -> Iterator[Shown]:
            for start, (_, image) in zip([0.0, *ends.tolist()], _gif(path), strict=False):
                yield Shown(start, lambda image=image: fitted(image, self.target))
            yield Shown(float(ends[-1]), _nothing)

        return Film(self.rate or len(ends) / float(ends[-1]), 0.01, frames())

    def _folder(self, path: Path) -> Film:
        rate = self.pictures or self.rate
        if rate is None:
            raise ValueError(
                f"data.rate: got None for a folder of pictures, {path.name}, expected frames per second: "
                "--data.rate, or --data.pictures-rate where only some of them are to be kept"
            )
        files = in_order([file for file in path.iterdir() if is_picture(file.name)])
        if not files:
            raise Unreadable("no picture in it")
        _check_alike(files)

        def frames() -> Iterator[Shown]:
            for i, file in enumerate(files):
                yield Shown(i / rate, lambda file=file: self._picture(file))
            yield Shown(len(files) / rate, _nothing)

        return Film(self.rate or rate, ALIKE / rate, frames())

    def _picture(self, file: Path) -> Fitted:
        try:
            return decode(file, self.target)
        except Unreadable as error:
            raise Unreadable(f"{file.name}: {error}") from None


def _timed(frames: Iterator[Any], ahead: int) -> Iterator[Any]:
    """Frames as they are shown. In an AVI they say when their data come, of which each is within `ahead`."""
    times, waiting = list[int](), deque[Any]()
    for frame in frames:
        if frame.pts is None:
            raise Unreadable("a frame that does not say when it is shown")
        heappush(times, frame.pts)
        waiting.append(frame)
        if len(waiting) > ahead:
            waiting[0].pts = heappop(times)
            yield waiting.popleft()
    for frame, time in zip(waiting, sorted(times), strict=True):
        frame.pts = time
        yield frame


def is_video(name: str) -> bool:
    """Whether a file is named like a video."""
    return Path(name).suffix.lower() in {*DEMUXERS, ANIMATION} and not name.startswith(".")


def is_picture(name: str) -> bool:
    """Whether a file is named like a picture, and not like a video, as a GIF is."""
    return name.lower().endswith(SUFFIXES) and not is_video(name) and not name.startswith(".")


def in_order(files: list[Path]) -> list[Path]:
    """Pictures in the order of the numbers at the end of their names.

    Raises:
        Unreadable: a name without a number, the same number twice, or one missing among numbers with a regular step.
    """
    found = {file: re.findall(r"\d+", file.stem) for file in files}
    if unnumbered := [file.name for file, numbers in found.items() if not numbers]:
        raise Unreadable(f"a picture without a number in its name, {min(unnumbered)}")
    numbered = sorted((int(numbers[-1]), file.name, file) for file, numbers in found.items())
    steps = [b[0] - a[0] for a, b in pairwise(numbered)]
    for step, (number, name, _) in zip(steps, numbered, strict=False):
        if step == 0:
            raise Unreadable(f"two pictures of the number {number}, one of them {name}")
        if step != min(steps):
            raise Unreadable(f"a picture missing after {name}")
    return [file for _, _, file in numbered]


def _gif(path: Path | Member) -> Iterator[tuple[float, Image.Image]]:
    """Each frame of a GIF, and for how many milliseconds it is shown."""
    try:
        with readable(path) as file, Image.open(file, formats=("GIF",)) as image:
            _check_size(*image.size)
            for frame in ImageSequence.Iterator(image):
                yield frame.info.get("duration") or NO_TIME_MS, frame.copy()
    except Unreadable:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        why = getattr(error, "strerror", None) or "damaged, or not what its name says"
        raise Unreadable(why) from error


def _check_alike(files: list[Path]) -> None:
    """Refuse pictures of different sizes, by their headers."""
    first = None
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as image:
                size = image.size
        except Exception:
            raise Unreadable(f"{file.name}: not an image in {', '.join(FORMATS)}") from None
        if size != (first := first or size):
            got, expected = ("x".join(map(str, each)) for each in (size, first))
            raise Unreadable(f"{file.name} has {got} pixels, {files[0].name} {expected}")


def _check_size(width: int, height: int) -> None:
    if min(width, height) < 2:
        raise Unreadable(f"{width}x{height} pixels, expected at least 2x2")
    if width * height > MOST_PIXELS:
        raise Unreadable(f"{width}x{height} pixels, expected at most {MOST_PIXELS // 10**6} million")


def _stated(container: Any, stream: Any) -> float | None:
    """How long a file says that its video is, in seconds, where it does not mean other streams."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska and WebM say of each stream when it ends, in a tag whose name may end in a language.
    tags = (value for name, value in stream.metadata.items() if name.upper().partition("-")[0] == "DURATION")
    if told := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", next(tags, "")):
        hours, minutes, seconds = map(float, told.groups())
        return 3600 * hours + 60 * minutes + seconds - float((stream.start_time or 0) * stream.time_base)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def _nothing() -> Fitted:
    raise AssertionError("the end of a video is not shown")


def import_av() -> Any:
    """PyAV.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise ValueError("data: videos need PyAV, which is missing; pip install 'anydit[video]'") from None
    return av
