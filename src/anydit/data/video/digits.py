"""A handwritten digit that moves at a constant speed and bounces off the walls: real digits, exact motion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import pi

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from anydit.config import check_at_least, check_positive, config
from anydit.data.base import Data, Facts, Part, Samples
from anydit.data.images.pairs import NUMBERS
from anydit.data.images.public import Digits
from anydit.data.known import KNOWN
from anydit.data.video.clips import First, Given, Stills, frames_in
from anydit.data.video.view import Videos
from anydit.tensors import Batch, Stream

DIGIT = 8
"""Pixels along a side."""

SPEEDS = (3.0, 12.0)
"""The slowest and the fastest, in pixels per second; all between are equally likely."""

DIRECTIONS = ("right", "right and down", "down", "left and down", "left", "left and up", "up", "right and up")
"""What is said of eight directions, from the right on clockwise."""

PACES = (", slowly", "", ", fast")
"""What is said of the slowest, the middle and the fastest third of speeds."""

PHRASINGS = ("a {n} moving {d}{p}", "the digit {n} goes {d}{p}", "{n} moves {d}{p}", "here a {n} flies {d}{p}")

VELOCITY = ("down, in pixels per second", "right, in pixels per second")


@config
class MovingDigits(Data):
    """One of scikit-learn's digits, values 0 to 16, on a black canvas of `size`, for `seconds` at `rate` frames each.

    It moves at a constant speed and bounces off the walls; between pixels it is interpolated, so that its centre is
    exactly where it should be. Told are its "label", its "velocity" at first, and a "text" like "a three moving left
    and up, fast". Clip i of a part is a pure function of i; of `count` to train on and `held_out_count` of digits that
    training never has. `task`: what else is told, as the condition "known".
    """

    seconds: float = 1.0
    rate: float = 8.0
    size: tuple[int, int] = (16, 16)
    task: First | None = None
    count: int = 20_000
    held_out_count: int = 1000

    def __post_init__(self) -> None:
        check_positive("seconds", self.seconds)
        check_positive("rate", self.rate)
        frames_in("seconds", self.seconds, self.rate)
        if min(self.size) <= DIGIT:
            raise ValueError(f"size: got {self.size}, expected more than the {DIGIT} pixels of a digit")
        check_at_least("count", self.count, 1)
        check_at_least("held_out_count", self.held_out_count, 1)

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        return [self.space]

    @property
    def space(self) -> tuple[int, int, int]:
        """Frames, height and width of a sample."""
        return (frames_in("seconds", self.seconds, self.rate), *self.size)

    def open(self, part: Part) -> Samples:
        train = MovingSamples(self, "train", Digits().open("train"))
        given = Given.of(self.task, train)
        samples = train if part == "train" else MovingSamples(self, part, Digits().open(part))
        return replace(samples, given=given)


@dataclass(frozen=True)
class MovingSamples:
    """One part of the moving digits; their texts and their motion can be checked."""

    data: MovingDigits
    part: Part
    digits: Samples
    given: Given | None = None

    @property
    def facts(self) -> Facts:
        return Facts(
            channels=1,
            size=self.data.space,
            classes={"label": tuple("0123456789")},
            numbers={"velocity": VELOCITY},
            fields={KNOWN: 2} if self.given else {},
            texts=("text",),
            view=Videos(rate=self.data.rate),
        )

    def __len__(self) -> int:
        return self.data.count if self.part == "train" else self.data.held_out_count

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        digit = self._digit(ids)
        label = self._real.tensor("label")[digit]
        x = moved(self._real.x[digit, 0], self.corners(ids), self.data.size)[:, None]
        cond = {"label": label, "velocity": self.velocity(ids)} | (self.given.beside(x) if self.given else {})
        return Batch(x, cond, ids, {"text": self._texts(ids, label)})

    @property
    def stills(self) -> Data:
        return Stills(replace(self.data, task=None))

    parts = stills

    def cut(self, x: Float[Tensor, "b 1 t h w"], ids: Int[Tensor, " b"]) -> Float[Tensor, "b 2 1 h w"]:
        return torch.stack([x[:, :, 0], x[:, :, -1]], dim=1)

    def shows(self, ids: Int[Tensor, " b"]) -> Int[Tensor, "b 2"]:
        return self._real.tensor("label")[self._digit(ids)][:, None].expand(-1, 2)

    @property
    def walls(self) -> tuple[tuple[float, float], ...]:
        half = (DIGIT - 1) / 2
        return tuple((half, side - 1 - half) for side in self.data.size)

    def velocity(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b 2"]:
        u = Stream(0, f"moving {self.part} velocity").uniform(0, ids, (2,))
        speed, angle = SPEEDS[0] + (SPEEDS[1] - SPEEDS[0]) * u[:, 0], 2 * pi * u[:, 1]
        return speed[:, None] * torch.stack([angle.sin(), angle.cos()], dim=1)

    def corners(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b t 2"]:
        """Where the digit's upper left pixel is in each frame, down and right."""
        room = torch.tensor(self.data.size) - float(DIGIT)
        start = Stream(0, f"moving {self.part} start").uniform(0, ids, (2,)) * room
        seconds = torch.arange(self.data.space[0]) / self.data.rate
        straight = start[:, None] + self.velocity(ids)[:, None] * seconds[:, None]
        return room - (straight % (2 * room) - room).abs()

    @cached_property
    def _real(self) -> Batch:
        return self.digits.read(torch.arange(len(self.digits)))

    def _digit(self, ids: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        return Stream(0, f"moving {self.part} digit").integers(0, ids, len(self.digits))

    def _texts(self, ids: Int[Tensor, " b"], label: Int[Tensor, " b"]) -> list[str]:
        direction, pace = said(self.velocity(ids))
        phrasing = Stream(0, f"moving {self.part} phrasing").integers(0, ids, len(PHRASINGS))
        rows = torch.stack([label, direction, pace, phrasing], dim=1).tolist()
        return [PHRASINGS[i].format(n=NUMBERS[n], d=DIRECTIONS[d], p=PACES[p]).replace("a eight", "an eight")
                for n, d, p, i in rows]  # fmt: skip


def said(velocity: Float[Tensor, "b 2"]) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """Of `DIRECTIONS` and `PACES` those that describe velocities."""
    angle = torch.atan2(velocity[:, 0], velocity[:, 1])
    direction = (angle / (2 * pi / len(DIRECTIONS))).round().long() % len(DIRECTIONS)
    slow, fast = SPEEDS
    pace = ((velocity.norm(dim=1) - slow) / (fast - slow) * len(PACES)).long().clamp(0, len(PACES) - 1)
    return direction, pace


def moved(
    digits: Float[Tensor, "b k k"], corners: Float[Tensor, "b t 2"], size: tuple[int, int]
) -> Float[Tensor, "b t h w"]:
    """Pictures on black canvases with their upper left pixel at `corners`, between pixels by linear interpolation.

    Brightness is kept, and the centre of brightness moves as the corner does, to rounding.
    """
    rows, columns = (
        (1 - (torch.arange(side)[:, None] - torch.arange(digits.shape[-1]) - corners[..., axis, None, None]).abs())
        .clamp(min=0)
        for axis, side in enumerate(size)
    )  # fmt: skip
    return einsum(rows, digits, columns, "b t h i, b i j, b t w j -> b t h w")
