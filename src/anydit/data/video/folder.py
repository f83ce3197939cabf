"""A folder of videos as clips of so many seconds: files or folders of pictures, with classes, captions or neither."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import check_fraction, check_positive, config
from anydit.data.base import Data, Facts, Part, Samples, cache_folder, check_share
from anydit.data.buckets import shares, together
from anydit.data.images.aspects import Buckets
from anydit.data.images.decode import ROUNDING, Crop, Fit, Target, told_off
from anydit.data.known import KNOWN
from anydit.data.outside import Skipped, Unreadable, check_skipped, rows_of, told
from anydit.data.sources import Found
from anydit.data.video.clips import First, Given, Stills, frames_in
from anydit.data.video.decode import ALIKE, Decoding
from anydit.data.video.files import Prepared, mapped, prepare
from anydit.data.video.listing import found_in
from anydit.data.video.view import Videos
from anydit.tensors import Batch


@config
class VideoFolder(Data):
    """Clips of the videos in `path`: MP4, WebM, MKV, MOV, AVI, GIF, and folders of numbered pictures; values 0 to 1.

    One subfolder for each class (at any depth in it), or all in `path` and unconditional; or tar files, in which a
    video, its class and its caption are NAME.mp4, NAME.cls and NAME.txt. `seconds`: of a clip, `rate`: frames a second
    that it has (None: the files' own), `stride`: seconds from clip to clip (None: a clip's). `size` (height, width),
    `channels`, `fit`, `buckets`, `bad_limit`, `cache`: as of images. `shorter`: seconds of clips of videos that are too
    short for `seconds`; a video's clips are of the longest that it lasts. `pictures_rate`: of folders of pictures.
    `captions`: each video has a text beside it, NAME.txt, the condition "text". `held_out`: the share of videos kept
    from training, by name. `task`: what is told of a clip, as the condition "known".
    """

    path: Path = Path("videos")
    seconds: float = 2.0
    rate: float | None = 8.0
    stride: float | None = None
    size: tuple[int, int] = (64, 64)
    channels: Literal[1, 3] = 3
    fit: Fit = Crop()
    buckets: Buckets | None = None
    shorter: tuple[float, ...] = ()
    pictures_rate: float | None = None
    captions: bool = False
    task: First | None = None
    held_out: float = 0.1
    bad_limit: float = 0.01
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "rate", "stride", "pictures_rate"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if min(self.size) < 1:
            raise ValueError(f"size: got {self.size}, expected a height and a width of at least 1")
        if self.buckets is not None:
            self.buckets.of(self.size)
        if not all(0 < each < before for before, each in pairwise((self.seconds, *self.shorter))):
            raise ValueError(
                f"shorter: got {self.shorter}, expected each below the one before, seconds {self.seconds:g}"
            )
        check_share(self.held_out)
        check_fraction("bad_limit", self.bad_limit)
        if self.rate is not None:
            self._lengths(self.rate)
            frames_in("stride", self.stride or self.seconds, self.rate)

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        of = [self.size] if self.buckets is None else self.buckets.of(self.size)
        return [] if self.rate is None else [(n, *size) for n in self._lengths(self.rate) for size in of]

    def open(self, part: Part) -> Samples:
        found = found_in(self.path.expanduser())
        target = Target.of(self.size, self.buckets, self.channels, self.fit)
        how = Decoding(target, self.rate, self.pictures_rate)
        cache = (self.cache.expanduser() if self.cache else cache_folder()) / "videos"
        decoded, skipped = prepare(found, how, cache)
        rate = self.rate or _common_rate(decoded)
        lengths = self._lengths(rate, "data.")
        videos, known, unusable = self._usable(found, decoded, lengths[-1], rate)
        skipped = [*skipped, *unusable]
        check_skipped(skipped, len(found.names), self.bad_limit, "videos")
        if part == "train":
            for sentence in (*found.said, *([told(skipped, len(found.names), "videos")] if skipped else [])):
                print(sentence, file=sys.stderr)
        labels = [found.classes.index(of) for of, _ in known] if found.classes else []
        texts = [text for _, text in known]
        if missing := set(range(len(found.classes))) - set(labels):
            raise ValueError(
                f"data: got no usable video of the class {found.classes[min(missing)]}, expected at least one"
            )
        classes = {"label": tuple(found.classes)} if found.classes else {}
        words = ("text",) if self.captions else ()
        facts = Facts(self.channels, (lengths[0], *self.size), classes, texts=words, view=Videos(rate=rate))

        def samples(part: Part, facts: Facts, given: Given | None = None) -> Samples:
            clips = self._clips(videos, part, lengths, rate)
            return together([VideoSamples(of, replace(facts, size=size), self, labels, texts, given)
                             for size, of in clips.items()])  # fmt: skip

        if self.task is not None:
            given = Given.of(self.task, samples("train", facts))
            found = samples(part, replace(facts, fields={KNOWN: 2 * self.channels}), given)
        else:
            found = samples(part, facts)
        if part == "train":
            self._tell_use(found, videos, lengths, rate)
        return found

    def _lengths(self, rate: float, at: str = "") -> list[int]:
        """Frames that clips can have, the longest first."""
        return [frames_in(f"{at}shorter" if i else f"{at}seconds", seconds, rate)
                for i, seconds in enumerate((self.seconds, *self.shorter))]  # fmt: skip

    def _clips(
        self, videos: Sequence[Prepared], part: Part, lengths: Sequence[int], rate: float
    ) -> "dict[tuple[int, ...], list[Clip]]":
        """The clips of one part, by their size."""
        rows: list[int] = rows_of([one.name for one in videos], self.held_out, part).tolist()
        if not rows:
            raise ValueError(
                f"data.held_out: got {self.held_out}, which leaves none of {len(videos)} videos in the part {part}; "
                "expected at least one"
            )
        found = dict[tuple[int, ...], list[Clip]]()
        for i in rows:
            length, starts = self._starts(videos[i], lengths, rate)
            found.setdefault((length, *videos[i].size), []).extend(Clip(i, start, videos[i].file) for start in starts)
        return found

    def _starts(self, video: Prepared, lengths: Sequence[int], rate: float) -> tuple[int, range]:
        """How many frames a video's clips have, and which frames they begin with."""
        length = next(n for n in lengths if n <= video.frames)
        stride = frames_in("data.stride", self.stride, rate) if self.stride else length
        return length, range(0, video.frames - length + 1, stride)

    def _tell_use(self, samples: Samples, videos: Sequence[Prepared], lengths: Sequence[int], rate: float) -> None:
        """Say which sizes clips have, and what of the videos is cut, left out or repeated."""
        off, said = max(one.off for one in videos), list[str]()
        if self.buckets or self.shorter:
            cut = f"; {self.fit.told(off)}" if self.buckets else ""
            said.append(f"{len(samples)} clips of frames x height x width: {shares(samples)}{cut}.")
        if self.buckets is None and off > ROUNDING:
            which = f"{sum(one.off > ROUNDING for one in videos)} of {len(videos)} videos"
            said.append(told_off(self.fit, off, self.size, which))
        if other := [one for one in videos if max(one.left_out, one.repeated) > max(1, ROUNDING * one.frames)]:
            left_out, repeated = sum(one.left_out for one in other), sum(one.repeated for one in other)
            which = f"{len(other)} of {len(videos)} videos have another rate than {rate:.4g} frames per second"
            said.append(f"{which} (--data.rate): of their frames {left_out} are left out, {repeated} repeated.")
        if ends := [end for one in videos if (end := self._end(one, lengths, rate)) > 1]:
            which = f"{sum(ends) / rate:.1f} s at the ends of {len(ends)} of {len(videos)} videos"
            said.append(f"{which} fill no clip; a shorter --data.stride leaves less.")
        for sentence in said:
            print(sentence, file=sys.stderr)

    def _end(self, video: Prepared, lengths: Sequence[int], rate: float) -> int:
        """How many frames of a video come after its clips, and after what `stride` skips between them."""
        length, starts = self._starts(video, lengths, rate)
        return video.frames - starts[-1] - max(length, starts.step)

    def _usable(
        self, found: Found, videos: Sequence[Prepared], shortest: int, rate: float
    ) -> tuple[list[Prepared], list[tuple[str, str]], Skipped]:
        """The videos that have a clip, a class and a caption where those are asked for; these two; the other videos."""
        field, least = ("shorter", self.shorter[-1]) if self.shorter else ("seconds", self.seconds)
        kept, known, skipped = list[Prepared](), list[tuple[str, str]](), list[tuple[str, str]]()
        for one in videos:
            try:
                if one.frames < shortest:
                    raise Unreadable(f"too short: {one.frames / rate:.3g} s, expected at least data.{field} {least:g}")
                of = found.class_of(one.name) if found.classes else ""
                known.append((of, found.text(one.name) if self.captions else ""))
                kept.append(one)
            except Unreadable as error:
                skipped.append((one.name, str(error)))
        return kept, known, skipped


class Clip(NamedTuple):
    """A clip of a video: which one of them, by number, and the frame that it begins with."""

    video: int
    start: int
    file: Path


@dataclass(frozen=True)
class VideoSamples:
    """Clips of one size `[c t h w]`, values 0 to 1; `labels` and `texts` of each video, where there are any."""

    clips: Sequence[Clip]
    facts: Facts
    data: VideoFolder
    labels: Sequence[int]
    texts: Sequence[str]
    given: Given | None = None

    @property
    def stills(self) -> Data:
        return Stills(replace(self.data, task=None), self.facts.size)

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        places: list[int] = ids.tolist()
        clips = [self.clips[i] for i in places]
        frames = np.stack([mapped(clip.file)[clip.start : clip.start + self.facts.size[0]] for clip in clips])
        x = torch.from_numpy(frames.swapaxes(1, 2).astype(np.float32, order="C")).mul_(1 / 255)
        cond = {"label": torch.tensor([self.labels[clip.video] for clip in clips])} if self.labels else {}
        cond |= self.given.beside(x) if self.given else {}
        said = [self.texts[clip.video] for clip in clips]
        return Batch(x, cond, ids, dict.fromkeys(self.facts.texts, said))


def _common_rate(videos: Sequence[Prepared]) -> float:
    """The rate that all files have."""
    for one in videos:
        if abs(one.rate - videos[0].rate) > ALIKE * one.rate:
            raise ValueError(
                f"data.rate: got None for videos of different rates, {videos[0].rate:.4g} frames per second in "
                f"{videos[0].name}, {one.rate:.4g} in {one.name}; expected a rate to bring all to"
            )
    return videos[0].rate if videos else 1.0
