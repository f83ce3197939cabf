"""Samples to patch tokens and back, in any number of dimensions, and where each token stands."""

from math import inf, log, prod

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from anydit.config import config
from anydit.model.points import Points

Grid = tuple[int, ...]


def check_period(max_period: float) -> None:
    """Refuse a longest period, in units of 2 pi, that is not above the shortest, which is 1."""
    if not 1 < max_period < inf:
        raise ValueError(f"max_period: got {max_period}, expected a finite number above 1")


def _check_extent(extent: Grid | None, interpolate: bool) -> None:
    if extent is not None and not (interpolate and extent and min(extent) > 0):
        raise ValueError(f"extent: got {extent}, expected patches along each axis, and interpolate set to True")


@config
class SinCos:
    """Fixed sine and cosine of each coordinate, added to the tokens once (Vaswani 2017; axial as in ViT and DiT).

    `interpolate`: on another grid than trained on, squeeze or stretch the coordinates to the trained extent. `extent`:
    the grid to squeeze or stretch to, where it is not the one that is trained on but one trained on before.
    """

    max_period: float = 10_000.0
    interpolate: bool = False
    extent: Grid | None = None

    def __post_init__(self) -> None:
        check_period(self.max_period)
        _check_extent(self.extent, self.interpolate)


@config
class Rope:
    """Rotary embedding of queries and keys, each axis on its own share of the head (Su 2021, arXiv 2104.09864).

    `interpolate`, `extent`: as in `SinCos`.
    """

    max_period: float = 10_000.0
    interpolate: bool = False
    extent: Grid | None = None

    def __post_init__(self) -> None:
        check_period(self.max_period)
        _check_extent(self.extent, self.interpolate)


@config
class SinCosRope:
    """Both: the table is added once, and queries and keys are turned in every block (LightningDiT, Yao 2025)."""

    table: SinCos = SinCos()
    rope: Rope = Rope()


@config
class Learned:
    """A learned vector for each place on a canvas of patches, added to the tokens once (ViT, Dosovitskiy 2020).

    A grid that is smaller than `canvas` lies in its middle (SD3); a larger one is refused.
    """

    canvas: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.canvas or min(self.canvas) < 1:
            raise ValueError(f"canvas: got {self.canvas}, expected a positive number of patches for each axis")

    def fits(self, grid: Grid) -> None:
        """Refuse a grid that has other axes than the canvas, or is larger."""
        if len(grid) != len(self.canvas) or any(g > c for g, c in zip(grid, self.canvas, strict=True)):
            raise ValueError(f"size: got {grid} patches, expected at most position.canvas {self.canvas}")

    def middle(self, table: Float[Tensor, "places width"], grid: Grid) -> Float[Tensor, "n width"]:
        """The vectors of the places of a grid that fits."""
        self.fits(grid)
        starts = [(c - g) // 2 for g, c in zip(grid, self.canvas, strict=True)]
        part = tuple(slice(s, s + g) for s, g in zip(starts, grid, strict=True))
        return table.reshape(*self.canvas, -1)[part].flatten(0, -2)


Position = SinCos | Rope | SinCosRope | Learned | Points


def parts(position: Position | None) -> tuple[SinCos | Learned | None, Rope | None]:
    """Of a position, what is added to the tokens and what turns queries and keys."""
    if isinstance(position, SinCosRope):
        return position.table, position.rope
    if isinstance(position, Points):
        return None, None
    return (None, position) if isinstance(position, Rope) else (position, None)


def grid_of(space: Grid, patch: Grid) -> Grid:
    """How many patches lie along each axis of `space`.

    Raises:
        ValueError: the numbers of axes differ, or a patch does not divide its axis.
    """
    if len(space) != len(patch):
        raise ValueError(f"size: got {space} ({len(space)} axes), expected {len(patch)} axes for patch {patch}")
    if any(s % p or s < p for s, p in zip(space, patch, strict=True)):
        raise ValueError(f"size: got {space}, expected multiples of patch {patch} along each axis")
    return tuple(s // p for s, p in zip(space, patch, strict=True))


def patchify(x: Shaped[Tensor, "b c *space"], patch: Grid) -> Shaped[Tensor, "b n patch_values"]:
    """Cut samples into patches, one token each; a token's values are ordered channel first, then the axes."""
    grid = grid_of(tuple(x.shape[2:]), patch)
    x = x.reshape(*x.shape[:2], *(s for pair in zip(grid, patch, strict=True) for s in pair))
    axes = range(len(patch))
    x = x.permute(0, *(2 + 2 * a for a in axes), 1, *(3 + 2 * a for a in axes))
    return x.flatten(1 + len(grid)).flatten(1, len(grid))


def unpatchify(tokens: Float[Tensor, "b n patch_values"], grid: Grid, patch: Grid) -> Float[Tensor, "b c *space"]:
    """Put patches together again; a token's values are ordered axes first, channel last (as in the published DiT)."""
    axes = range(len(patch))
    x = tokens.reshape(len(tokens), *grid, *patch, tokens.shape[2] // prod(patch))
    x = x.permute(0, -1, *(i for a in axes for i in (1 + a, 1 + len(grid) + a)))
    return x.reshape(*x.shape[:2], *(g * p for g, p in zip(grid, patch, strict=True)))


def token_mask(mask: Bool[Tensor, " b *space"], patch: Grid) -> Bool[Tensor, "b n"]:
    """Which tokens exist: those of which any position does."""
    return patchify(mask[:, None], patch).any(dim=-1)


def coordinates(grid: Grid, trained: Grid | None = None) -> Float[Tensor, "n axes"]:
    """Each token's place in patches from the origin, in token order; with `trained`, scaled to that grid's extent."""
    scale = (1.0,) * len(grid) if trained is None else (t / g for t, g in zip(trained, grid, strict=True))
    # Doubles, because at large coordinates a float32 angle would lose the digits that published tables hold.
    lines = (torch.arange(g, dtype=torch.float64, device="cpu") * s for g, s in zip(grid, scale, strict=True))
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).flatten(0, -2)


def frequencies(count: int, max_period: float, dtype: torch.dtype = torch.float64) -> Float[Tensor, " count"]:
    """Angular frequencies from 1 down to nearly 1 / max_period, evenly spaced in their logarithm."""
    return torch.exp(-log(max_period) * torch.arange(count, dtype=dtype, device="cpu") / max(count, 1))


def sincos_table(places: Float[Tensor, "n axes"], width: int, max_period: float) -> Float[Tensor, "n width"]:
    """Sines, then cosines, of each axis, the last axis first; what the axes cannot share evenly stays zero."""
    axes = places.shape[1]
    omega = frequencies(width // (2 * axes), max_period)
    angles = places.flip(1)[:, :, None] * omega
    table = rearrange([angles.sin(), angles.cos()], "two n axes k -> n (axes two k)")
    return F.pad(table, (0, width - table.shape[1])).float()


def rotation_table(places: Float[Tensor, "n axes"], head_width: int, max_period: float) -> Float[Tensor, "2 n k"]:
    """Cosines and signed sines that turn a head's values; pairs that no axis gets are not turned."""
    axes = places.shape[1]
    omega = frequencies(head_width // (2 * axes), max_period)
    angles = rearrange(places[:, :, None] * omega, "n axes k -> n (axes k)")
    angles = F.pad(angles, (0, head_width // 2 - angles.shape[1]))
    both = repeat([angles.cos(), angles.sin()], "two n k -> two n pair k", pair=2).clone()
    both[1, :, 0] *= -1
    return both.flatten(2).float()


def rotate(x: Float[Tensor, "b heads n k"], rotation: Float[Tensor, "2 *each n k"]) -> Float[Tensor, "b heads n k"]:
    """Turn each pair of values, one from each half of the head, by its token's angle; in float32 at least."""
    cos, sin = rotation
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
