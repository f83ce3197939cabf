"""Attention among a sample's tokens, from them to a text's, and of both together; PyTorch's kernel does the work."""

from collections.abc import Sequence
from math import inf

import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from anydit.config import config
from anydit.model.backend import in_products
from anydit.model.norms import Norm
from anydit.model.tokens import Grid, rotate

Heads = Float[Tensor, "b heads n k"]


@config
class Full:
    """Every token attends to all tokens of its sample, in every block."""

    def axes(self, block: int) -> tuple[int, ...] | None:
        """The axes of the grid along which the block's tokens attend; None is all of them at once."""
        return None


@config
class Axial:
    """Block n attends along the axes `groups[n % len(groups)]` of the grid alone, at the same place along the others.

    So does axial attention (Ho 2019, arXiv 1912.12180) with a group for each axis, and factorised attention in space
    and time with ((1, 2), (0,)) (Arnab 2021, arXiv 2103.15691, model 3; Ma 2024, arXiv 2401.03048, variant 1).
    """

    groups: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.groups or not all(group and len({*group}) == len(group) for group in self.groups):
            raise ValueError(f"groups: got {self.groups}, expected groups of different axes, as ((1, 2), (0,))")

    def axes(self, block: int) -> tuple[int, ...] | None:
        """As in `Full`."""
        return self.groups[block % len(self.groups)]

    def check(self, axes: int, depth: int) -> None:
        """Refuse groups of other axes than the patches have, and more groups than blocks."""
        if any(not 0 <= axis < axes for group in self.groups for axis in group):
            raise ValueError(f"attention.groups: got {self.groups}, expected axes from 0 to {axes - 1}")
        if len(self.groups) > depth:
            raise ValueError(f"attention.groups: got {len(self.groups)} groups, expected at most depth {depth}")


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani 2017), optionally with normalised queries and keys and rotary positions.

    A rotation is that of all samples, or has axes `each` of sample and head. `more`: values that come after those of
    each head.
    """

    def __init__(self, width: int, heads: int, qk_norm: Norm | None = None, more: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = (_norm(width // heads, qk_norm) for _ in range(2))
        self.out = nn.Linear(width + heads * more, width)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        rotation: Float[Tensor, "2 *each n k"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n width"]:
        """Let every token attend to all tokens that `mask` says exist."""
        return self.out(merge(attend(*self.split(x, rotation), mask)))

    def split(
        self, x: Float[Tensor, "b n width"], rotation: Float[Tensor, "2 *each n k"] | None = None
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of each head, as one product."""
        # Plain views in place of einops, whose overhead shows in small models: qkv is [b n (three heads k)].
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q.type_as(v), k.type_as(v), v


class KeysAndValues(nn.Module):
    """What others attend to in tokens that attend to nothing themselves."""

    def __init__(self, width: int, heads: int, qk_norm: Norm | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.kv = nn.Linear(width, 2 * width)
        self.k_norm = _norm(width // heads, qk_norm)

    def forward(self, x: Float[Tensor, "b n width"]) -> tuple[Heads, Heads]:
        """Keys and values of each head, as one product."""
        k, v = self.kv(x).unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        return self.k_norm(k).type_as(v), v


class CrossAttention(nn.Module):
    """Multi-head attention of a sample's tokens to those of a context."""

    def __init__(self, width: int, heads: int, qk_norm: Norm | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.q_norm = _norm(width // heads, qk_norm)
        self.context = KeysAndValues(width, heads, qk_norm)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n width"], context: Float[Tensor, "b m width"], exists: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b n width"]:
        """Let every token of `x` attend to all tokens of the context that exist."""
        k, v = self.context(context)
        q = self.q_norm(self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2))
        return self.out(merge(attend(q.type_as(v), k, v, exists)))


def attend(
    q: Float[Tensor, "b heads n k"],
    k: Float[Tensor, "b heads m k"],
    v: Float[Tensor, "b heads m k"],
    mask: Bool[Tensor, "b m"] | None,
) -> Float[Tensor, "b heads n k"]:
    """softmax(q k^T / sqrt(width)) v, over the keys that exist, by the backend that `anydit.model.backend` chose."""
    keys = None if mask is None else mask[:, None, None, :]
    if not in_products(q, k):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    if keys is not None:
        scores = scores.masked_fill(~keys, -inf)
    return scores.softmax(-1).type_as(v) @ v


def attend_along(
    axes: Sequence[int], grid: Grid, q: Heads, k: Heads, v: Heads, mask: Bool[Tensor, "b n"] | None
) -> Heads:
    """`attend` among tokens that differ in their places along `axes` of the grid alone: a batch of such groups."""
    inner = sorted(axes)
    outer = [axis for axis in range(len(grid)) if axis not in axes]
    order = [0, *(2 + axis for axis in outer), 1, *(2 + axis for axis in inner), 2 + len(grid)]

    def grouped(x: Shaped[Tensor, "b heads n k"]) -> Shaped[Tensor, "groups heads m k"]:
        return (
            x.reshape(*x.shape[:2], *grid, x.shape[3]).permute(order).flatten(0, len(outer)).flatten(2, 1 + len(inner))
        )

    if mask is not None:
        mask = grouped(mask[:, None, :, None])[:, 0, :, 0]
        # What a group without tokens finds means nothing, but it must be finite: a weight of zero lets a NaN through.
        mask = mask | ~mask.any(dim=1, keepdim=True)
    found = attend(grouped(q), grouped(k), grouped(v), mask)
    back = [order.index(i) for i in range(len(order))]
    lines = found.reshape(-1, *(grid[axis] for axis in outer), q.shape[1], *(grid[axis] for axis in inner), v.shape[3])
    return lines.permute(back).flatten(2, 1 + len(grid))


def merge(heads: Heads) -> Float[Tensor, "b n width"]:
    """The values of all heads, one after the other."""
    return heads.transpose(1, 2).flatten(2)


def _norm(width: int, norm: Norm | None) -> nn.Module:
    return norm.build(width, affine=True) if norm else nn.Identity()
