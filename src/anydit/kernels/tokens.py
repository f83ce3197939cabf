"""What a block does to its tokens between its products, each in one pass forward and one backward.

Forward and backward, `enter` moves 2 and 4 tensors of the size of the tokens, `join` 4 and 6, `leave` 3 and 3: 9 and 13
in a block. Norm with modulation, gated sum, and the sum of both gradients that come back to the tokens, each for
itself, move 10 and 18. None of this has been measured on a GPU yet: `benchmarks/kernels.py` does.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anydit.kernels.operators import gated_backward, joined, joined_backward, normed, normed_backward

Tokens = Float[Tensor, "b n width"]
Row = Float[Tensor, "b 1 width"]
Gradients = tuple[Tensor | None, ...]

WIDEST = 8192
"""Channels that a program can hold."""


def enter(norm: nn.Module, x: Tokens, shift: Row, scale: Row) -> tuple[Tokens, Tokens]:
    """The tokens as they are, and normed and modulated."""
    return _Enter.apply(x, shift, scale, *_kind(norm))


def join(norm: nn.Module, x: Tokens, gate: Row, h: Tokens, shift: Row, scale: Row) -> tuple[Tokens, Tokens]:
    """The tokens with what was found for them, and that normed and modulated."""
    return _Join.apply(x, h, gate, shift, scale, *_kind(norm))


def leave(x: Tokens, gate: Row, h: Tokens) -> Tokens:
    """The tokens with what was found for them."""
    return _Leave.apply(x, h, gate)


def _kind(norm: nn.Module) -> tuple[float, bool]:
    """Its epsilon, and whether it takes the mean away."""
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    assert not norm.elementwise_affine
    assert norm.eps is not None
    return norm.eps, isinstance(norm, nn.LayerNorm)


class _Enter(torch.autograd.Function):
    """The tokens come out again, so that the gradient of what else they go into is added in the same pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, eps: float, centered: bool) -> tuple[Tensor, Tensor]:
        y, kept = normed(x, shift, scale, eps, centered)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, kept, shift, scale)
        return x, y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        dx, dy = gradients
        x, kept, shift, scale = ctx.saved_tensors
        dx, sums = normed_backward(torch.zeros_like(x) if dy is None else dy, dx, x, kept, scale)
        dshift, dscale = sums.unbind()
        return dx, dshift.type_as(shift), dscale.type_as(scale), None, None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, gate: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
        shift, scale, eps, centered = given
        total, y, kept = joined(x, h, gate, shift, scale, eps, centered)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(total, h, kept, gate, shift, scale)
        return total, y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        dtotal, dy = gradients
        total, h, kept, gate, shift, scale = ctx.saved_tensors
        dy = torch.zeros_like(total) if dy is None else dy
        dx, dh, sums = joined_backward(dy, dtotal, total, h, kept, scale, gate)
        dshift, dscale, dgate = sums.unbind()
        return dx, dh, dgate.type_as(gate), dshift.type_as(shift), dscale.type_as(scale), None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(h, gate)
        return torch.addcmul(x, gate, h).type_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        h, gate = ctx.saved_tensors
        dh, dgate = gated_backward(gradients[0], h, gate)
        return gradients[0], dh, dgate.type_as(gate)
