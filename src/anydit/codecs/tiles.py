"""Decoding in overlapping tiles, for samples whose decoding in one piece needs more memory than there is."""

from collections.abc import Callable, Iterator
from itertools import pairwise, product
from math import ceil
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.config import check_at_least, config


@config
class Tiles:
    """Tiles of `size` latents along each axis, of which neighbours share `overlap` and are blended there.

    What lies within a quarter of `overlap` of an edge between tiles is left out, for it is wrong where a codec looks
    across that edge; over the half in the middle one tile fades into the other. So a codec whose output depends on the
    latents within a quarter of `overlap` alone gives what it gives untiled, to rounding. One that looks at all latents,
    as group norms and attention do, gives something close to it.
    """

    size: int = 64
    overlap: int = 16

    def __post_init__(self) -> None:
        check_at_least("tiles.overlap", self.overlap, 0)
        if self.size < max(1, 2 * self.overlap):
            raise ValueError(f"tiles.size: got {self.size}, expected at least twice tiles.overlap, {self.overlap}")


class Span(NamedTuple):
    """One tile along one axis: which latents it has, where its data go, and with which weights."""

    latents: slice
    data: slice
    weight: Float[Tensor, " n"]


def decode(
    code: Callable[[Tensor], Tensor],
    z: Float[Tensor, "b c_z *space_z"],
    size: tuple[int, ...],
    tiles: Tiles,
    out: Float[Tensor, "b c *space"] | None = None,
) -> Float[Tensor, "b c *space"]:
    """`code(z)`, data of `size`, tile by tile, on the CPU. An axis whose length `code` does not multiply has one tile.

    `out`: where to put them, zeros, perhaps mapped from a file because they are larger than memory.
    """
    spans = [list(_spans(n, s, tiles)) for n, s in zip(z.shape[2:], size, strict=True)]
    for place in product(*spans):
        y = code(z[(..., *(span.latents for span in place))]).float()
        for axis, span in enumerate(place):
            y = y * span.weight.to(y.device).reshape(-1, *(1,) * (len(place) - 1 - axis))
        if out is None:
            out = torch.zeros(*y.shape[:2], *size)
        out[(..., *(span.data for span in place))] += y.cpu()
    assert out is not None, "there is at least one tile"
    return out


def _spans(latents: int, places: int, tiles: Tiles) -> Iterator[Span]:
    """The fewest tiles along an axis of so many latents and places of data, evenly spread."""
    factor = places // latents
    if latents <= tiles.size or factor * latents != places:
        yield Span(slice(None), slice(None), torch.ones(places))
        return
    count = ceil((latents - tiles.overlap) / (tiles.size - tiles.overlap))
    starts = [i * (latents - tiles.size) // (count - 1) for i in range(count)]
    # One tile gives way to the next in the middle of what they share.
    cuts = [factor * (start + before + tiles.size) / 2 for before, start in pairwise(starts)]
    place, fade = torch.arange(places) + 0.5, max(factor * tiles.overlap / 2, 1e-6)
    begun = [torch.ones(places), *(((place - cut) / fade + 0.5).clamp(0, 1) for cut in cuts), torch.zeros(places)]
    for start, (here, after) in zip(starts, pairwise(begun), strict=True):
        data = slice(start * factor, (start + tiles.size) * factor)
        yield Span(slice(start, start + tiles.size), data, (here - after)[data])
