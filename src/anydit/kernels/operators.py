"""PyTorch operators that run the kernels of `rows`, so that a compiled block remains one graph with them in it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from anydit.kernels.launch import launch
from anydit.kernels.rows import gate_backward, norm_backward, norm_forward

VALUES, PER_WARP = 2048, 512
"""Of a tensor, what a program holds at a time, and a warp of it; of narrow tokens these are several."""

PROGRAMS, LONGEST = 512, 64
"""How many programs there should be where tokens are summed over, and how many tokens each goes through at most."""

AT_ONCE = 8
"""Tokens that a program goes through where nothing is summed."""


class Tile(NamedTuple):
    """What a program holds at a time: so many tokens, of so many lanes, in so many warps."""

    rows: int
    lanes: int
    warps: int

    @classmethod
    def of(cls, n: int, width: int) -> "Tile":
        """By shape alone, and not by trial, so that sums are added up in the same order in every run."""
        lanes = max(16, triton.next_power_of_2(width))
        rows = min(max(1, VALUES // lanes), triton.next_power_of_2(n))
        return cls(rows, lanes, min(16, max(1, rows * lanes // PER_WARP)))

    def summed(self, b: int, n: int) -> int:
        """How many tokens of a sample a program sums over."""
        return max(self.rows, min(LONGEST, triton.next_power_of_2(triton.cdiv(b * n, PROGRAMS))))


@torch.library.custom_op("anydit::normed", mutates_args=())
def normed(x: Tensor, shift: Tensor, scale: Tensor, eps: float, centered: bool) -> tuple[Tensor, Tensor]:
    """`x` normed and modulated; and of each token 1 / deviation and, if `centered`, the mean, which the norm takes."""
    _, y, kept = _forward((x.contiguous(), None), [shift, scale], eps, centered)
    return y, kept


@torch.library.custom_op("anydit::joined", mutates_args=())
def joined(
    x: Tensor, h: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, eps: float, centered: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`x + gate h`, and then as `normed` of it."""
    total, y, kept = _forward((x.contiguous(), h.contiguous()), [shift, scale, gate], eps, centered)
    assert total is not None
    return total, y, kept


@torch.library.custom_op("anydit::normed_backward", mutates_args=())
def normed_backward(dy: Tensor, dx: Tensor | None, x: Tensor, kept: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `x`, with `dx` added, and of shift and scale, in float32."""
    dx, _, sums = _backward(dy, dx, (x, None, kept), [scale])
    return dx, sums


@torch.library.custom_op("anydit::joined_backward", mutates_args=())
def joined_backward(
    dy: Tensor, dtotal: Tensor | None, total: Tensor, h: Tensor, kept: Tensor, scale: Tensor, gate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `x` and `h`, and of shift, scale and gate, in float32."""
    dx, dh, sums = _backward(dy, dtotal, (total, h, kept), [scale, gate])
    assert dh is not None
    return dx, dh, sums


@torch.library.custom_op("anydit::gated_backward", mutates_args=())
def gated_backward(dy: Tensor, h: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `h` and of gate, in float32, in `x + gate h`."""
    b, n, width = h.shape
    tile, (rows, step) = Tile.of(n, width), _rows([gate])
    chunk = tile.summed(b, n)
    dh, sums = h.new_empty(h.shape), _partial(h, 1, chunk)
    given, made = (dy.contiguous(), h.contiguous(), *rows), (dh, sums)
    grid = (b, sums.shape[2])
    launch(gate_backward, grid, h, given, made, n, step, chunk, width, *tile[:2], warps=tile.warps)
    return dh, sums[0].sum(1, keepdim=True)


@normed.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor, eps: float, centered: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), _kept(x, centered)


@joined.register_fake
def _(
    x: Tensor, h: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, eps: float, centered: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape), _kept(x, centered)


@normed_backward.register_fake
def _(dy: Tensor, dx: Tensor | None, x: Tensor, kept: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), scale.new_empty((2, *scale.shape), dtype=torch.float32)


@joined_backward.register_fake
def _(
    dy: Tensor, dtotal: Tensor | None, total: Tensor, h: Tensor, kept: Tensor, scale: Tensor, gate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    sums = gate.new_empty((3, *gate.shape), dtype=torch.float32)
    return total.new_empty(total.shape), h.new_empty(h.shape), sums


@gated_backward.register_fake
def _(dy: Tensor, h: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    return h.new_empty(h.shape), gate.new_empty(gate.shape, dtype=torch.float32)


def _forward(
    tokens: tuple[Tensor, Tensor | None], modulation: Sequence[Tensor], eps: float, centered: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Run it; `modulation`: shift, scale, and gate where there is an h."""
    x, h = tokens
    b, n, width = x.shape
    tile, (rows, step) = Tile.of(n, width), _rows(modulation)
    chunk = max(tile.rows, AT_ONCE)
    total, y, kept = None if h is None else torch.empty_like(x), torch.empty_like(x), _kept(x, centered)
    given, made = (*rows, None)[:3], (total, y, *_each(kept))
    grid = (b, triton.cdiv(n, chunk))
    launch(norm_forward, grid, x, tokens, given, made, n, step, eps, chunk, width, *tile[:2], warps=tile.warps)
    return total, y, kept


def _backward(
    dy: Tensor, dtotal: Tensor | None, saved: tuple[Tensor, Tensor | None, Tensor], modulation: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Run it; `modulation`: scale, and gate where there is an h."""
    x, h, kept = saved
    b, n, width = x.shape
    tile, (rows, step) = Tile.of(n, width), _rows(modulation)
    chunk = tile.summed(b, n)
    dx, dh, sums = x.new_empty(x.shape), None if h is None else h.new_empty(h.shape), _partial(x, 1 + len(rows), chunk)
    given = (dy.contiguous(), None if dtotal is None else dtotal.contiguous())
    read = (x.contiguous(), None if h is None else h.contiguous(), *_each(kept))
    made = (dx, dh, *(*sums, None)[:3])
    grid, by = (b, sums.shape[2]), (*rows, None)[:2]
    launch(norm_backward, grid, x, given, read, by, made, n, step, chunk, width, *tile[:2], warps=tile.warps)
    return dx, dh, sums.sum(2, keepdim=True)


def _rows(rows: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """Rows of modulation, which may be parts of one tensor, and how far apart those of two samples are."""
    steps = {row.stride(0) for row in rows}
    if len(steps) > 1 or any(row.stride(2) != 1 for row in rows):
        rows = [row.contiguous() for row in rows]
        steps = {rows[0].shape[2]}
    return list(rows), steps.pop()


def _kept(x: Tensor, centered: bool) -> Tensor:
    return x.new_empty((1 + centered, *x.shape[:2]), dtype=torch.float32)


def _each(kept: Tensor) -> tuple[Tensor, Tensor | None]:
    return kept[0], kept[1] if len(kept) > 1 else None


def _partial(x: Tensor, count: int, chunk: int) -> Tensor:
    """Room for sums over so many tokens each."""
    b, n, width = x.shape
    return x.new_empty((count, b, triton.cdiv(n, chunk), width), dtype=torch.float32)
