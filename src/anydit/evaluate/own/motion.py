"""The motion of one bright thing, found in its videos: where it is, how fast, which way, and where it turns."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

DARK = 0.05
"""What is not brighter, from 0 black to 1 white, does not count as the thing."""

LEAST_SPEED = 1.0
"""Along an axis, in pixels per second: what is slower may turn by an error of the places alone."""

NEAR_WALL = 2.0
"""Pixels from where a thing touches a wall within which it counts as having turned there.

Of its turn, which is between two frames, the nearer one is seen; and its brightest part is not in its middle."""


class Motion(NamedTuple):
    """Of each video: the velocity at first, down and right, in pixels per second; its unsteadiness, in the same unit.

    `turns`: after which steps, along which axis, it goes the other way; `places`: the farthest that it was then, down
    and right in pixels; `ways`: which way it went until then, 1 or -1.
    """

    velocity: Float[Tensor, "n 2"]
    unsteady: Float[Tensor, " n"]
    turns: Bool[Tensor, "n steps 2"]
    places: Float[Tensor, "n steps 2"]
    ways: Float[Tensor, "n steps 2"]

    @property
    def speed(self) -> Float[Tensor, " n"]:
        """Pixels per second."""
        return self.velocity.norm(dim=1)

    @property
    def direction(self) -> Int[Tensor, " n"]:
        """Which of eight directions it takes at first, from the right on clockwise."""
        angle = torch.atan2(self.velocity[:, 0], self.velocity[:, 1])
        return (angle / (torch.pi / 4)).round().long() % 8


def tracks(unit: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n t 2"]:
    """The centre of brightness in each frame, down and right in pixels, of values from 0 black to 1 white.

    A frame that is dark has its centre in the middle.
    """
    bright = unit.double().mean(1)
    bright = torch.where(bright > DARK, bright, 1e-9)
    down, right = (torch.arange(side, dtype=torch.float64) for side in bright.shape[2:])
    total = bright.sum((2, 3))
    centre = [(bright.sum(3) * down).sum(2) / total, (bright.sum(2) * right).sum(2) / total]
    return torch.stack(centre, dim=2).float()


def motion(places: Float[Tensor, "n t 2"], rate: float) -> Motion:
    """What moves at a constant speed, and turns along an axis at once, as `tracks` of at least three frames show it."""
    steps = places.diff(dim=1) * rate
    pace = steps.abs().median(dim=1).values
    clear = (steps.abs() > pace[:, None] / 2) & (pace[:, None] > LEAST_SPEED)
    way = steps.sign() * clear
    # A turn within the first step makes it short.
    first = torch.where(clear[:, 0], way[:, 0], -way[:, 1])
    ways = [torch.where(first != 0, first, way.gather(1, clear.float().argmax(1, keepdim=True))[:, 0])]
    for step in range(steps.shape[1]):
        ways.append(torch.where(clear[:, step], way[:, step], ways[-1]))
    before, after = torch.stack(ways[:-1], dim=1), torch.stack(ways[1:], dim=1)
    # A turn within a step makes that step short: the place before it may be the farthest, or the one before that.
    earlier = torch.cat([places[:, :1], places[:, :-2]], dim=1)
    farthest = torch.maximum(before * places[:, :-1], before * earlier) * before
    still = steps[:, 0].sign() * (before[:, 0] == 0)
    off = (steps.abs() - pace[:, None]).abs().norm(dim=2).median(dim=1).values
    return Motion((before[:, 0] + still) * pace, off, before != after, farthest, before)


def at_walls(found: Motion, walls: tuple[tuple[float, float], ...]) -> Bool[Tensor, " turns"]:
    """For each turn, whether it is at a wall. `walls`: by axis, the first and the last pixel for a thing's middle."""
    low, high = torch.tensor(walls).T
    wall = torch.where(found.ways > 0, high, low)
    return ((found.places - wall).abs() < NEAR_WALL)[found.turns]
