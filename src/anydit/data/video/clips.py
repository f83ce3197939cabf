"""What all videos have in common: clips by seconds and rate, what is told of a clip, single frames, and motion."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anydit.config import config
from anydit.data.base import Data, Facts, Part, Samples
from anydit.data.buckets import by_bucket, by_size, shares
from anydit.data.known import KNOWN, told
from anydit.tensors import Batch, Stream

FILL_FROM = 256
"""Clips, evenly spread, whose known frames have the mean that stands where nothing is known."""

STILLS = 4
"""Single frames that are taken of each clip."""


@config
class First:
    """Tell the first `frames` of each clip; the others are to be found."""

    frames: int = 4

    def known(self, x: Float[Tensor, "b c t h w"]) -> Bool[Tensor, "b c t h w"]:
        """Which values are told."""
        if not 0 < self.frames < x.shape[2]:
            raise ValueError(
                f"data.task.frames: got {self.frames}, expected at least 1 and fewer than the {x.shape[2]} of a clip"
            )
        return (torch.arange(x.shape[2]) < self.frames)[:, None, None].expand_as(x)


@dataclass(frozen=True)
class Given:
    """What is told of clips; `fill` stands where nothing is known, for each channel."""

    task: First
    fill: tuple[float, ...]

    @classmethod
    def of(cls, task: First | None, train: Samples) -> "Given | None":
        """With the mean of the known frames of clips to train on in place of those that are not known."""
        if task is None:
            return None
        for part in by_size(train):
            task.known(torch.empty(1, 1, *part.facts.size))
        count = min(len(train), FILL_FROM)
        some = by_bucket(train, torch.arange(count) * len(train) // count, FILL_FROM)
        known = [x[:, :, : task.frames].transpose(0, 1).flatten(1) for x in (train.read(ids).x for ids in some)]
        return cls(task, tuple(torch.cat(known, 1).mean(1).tolist()))

    def beside(self, x: Float[Tensor, "b c t h w"]) -> dict[str, Tensor]:
        """The condition."""
        return {KNOWN: told(x, self.task.known(x), self.fill)}


@runtime_checkable
class Filmed(Samples, Protocol):
    """Videos of one thing each, as their label says, that every single frame shows."""

    @property
    def stills(self) -> Data:
        """Single frames of real videos, with the videos' label: what a judge of frames learns from."""
        ...


@runtime_checkable
class Moving(Samples, Protocol):
    """Videos of one bright thing before black, which moves at a constant speed and bounces off walls."""

    @property
    def walls(self) -> tuple[tuple[float, float], ...]:
        """Along each axis, down and right, the first and the last pixel where the middle of the thing may be."""
        ...

    def velocity(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b 2"]:
        """Down and to the right, in pixels per second, before anything bounces."""
        ...


@config
class Stills(Data):
    """Single frames of other data's videos, with their labels. `size`: of those of this one (None: of the fullest)."""

    videos: Data
    size: tuple[int, ...] | None = None

    def open(self, part: Part) -> Samples:
        found = self.videos.open(part)
        of = [videos for videos in by_size(found) if self.size in (None, videos.facts.size)]
        if not of:
            raise ValueError(f"data.size: got {self.size}, expected that of some videos: {shares(found)}")
        return StillSamples(of[0])


@dataclass(frozen=True)
class StillSamples:
    """Frames of each clip, drawn by their ids."""

    videos: Samples

    @property
    def facts(self) -> Facts:
        facts = self.videos.facts
        return Facts(facts.channels, facts.size[1:], facts.classes)

    def __len__(self) -> int:
        return STILLS * len(self.videos)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        batch = self.videos.read(ids // STILLS)
        frames = Stream(0, "stills").integers(0, ids, batch.x.shape[2])
        cond = {name: batch.cond[name] for name in self.facts.classes}
        return Batch(batch.x[torch.arange(len(ids)), :, frames], cond, ids)


def frames_in(field: str, seconds: float, rate: float) -> int:
    """How many frames a time has.

    Raises:
        ValueError: no whole number of them, or none.
    """
    frames = round(seconds * rate)
    if frames < 1 or abs(frames - seconds * rate) > 0.01:
        near = max(1, frames) / rate
        raise ValueError(
            f"{field}: got {seconds:g} s at {rate:g} frames per second, expected a whole number of frames, as {near:g}"
        )
    return frames
