"""What runs on the GPU for a block's tokens: the gated sum with the residual, its norm, and modulation, in one pass.

In Triton. A program goes through `chunk` tokens of one sample, `tall` at a time, each being `width` channels in `lanes`
lanes. Arithmetic is in float32, whatever the tensors hold. Sums over a sample's tokens are left as those of each
program, one beside the other, for somebody else to add up: without atomics they are the same each time. Tensors come
in tuples; None stands for one that is not there. Without means the norm is over mean squares alone.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def norm_forward(
    tokens, modulation, made, n, step, eps, chunk, width: tl.constexpr, tall: tl.constexpr, lanes: tl.constexpr
):
    """x, or x + gate h where there is an h; its norm over channels, modulated; and what the backward pass needs."""
    (x, h), (shift, scale, gate), (joined, y, rstd, mean) = tokens, modulation, made
    sample, columns = tl.program_id(0).to(tl.int64), tl.arange(0, lanes)
    there, row = columns < width, sample * step + columns
    by = 1 + tl.load(scale + row, mask=there, other=0.0).to(tl.float32)[None, :]
    plus = tl.load(shift + row, mask=there, other=0.0).to(tl.float32)[None, :]
    for first in range(0, chunk, tall):
        rows = tl.program_id(1) * chunk + first + tl.arange(0, tall)
        each, exists = sample * n + rows, rows < n
        at, inside = each[:, None] * width + columns[None, :], exists[:, None] & there[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if h is not None:
            through = tl.load(gate + row, mask=there, other=0.0).to(tl.float32)[None, :]
            value += through * tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
            rounded = value.to(joined.dtype.element_ty)
            tl.store(joined + at, rounded, mask=inside)
            value = rounded.to(tl.float32)
        if mean is not None:
            center = tl.sum(value, 1) / width
            tl.store(mean + each, center, mask=exists)
            value = tl.where(inside, value - center[:, None], 0.0)
        inverse = 1 / tl.sqrt(tl.sum(value * value, 1) / width + eps)
        tl.store(rstd + each, inverse, mask=exists)
        tl.store(y + at, (value * inverse[:, None] * by + plus).to(y.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def norm_backward(
    given, kept, modulation, made, n, step, chunk, width: tl.constexpr, tall: tl.constexpr, lanes: tl.constexpr
):
    """The gradients of what `norm_forward` read, from those of what it made, of which that of the sum may be None."""
    (dy, dsum), (x, h, rstd, mean), (scale, gate) = given, kept, modulation
    dx, dh, dshift, dscale, dgate = made
    sample, columns = tl.program_id(0).to(tl.int64), tl.arange(0, lanes)
    there, row = columns < width, sample * step + columns
    by = 1 + tl.load(scale + row, mask=there, other=0.0).to(tl.float32)[None, :]
    shifts = tl.zeros((tall, lanes), tl.float32)
    scales = tl.zeros((tall, lanes), tl.float32)
    gates = tl.zeros((tall, lanes), tl.float32)
    for first in range(0, chunk, tall):
        rows = tl.program_id(1) * chunk + first + tl.arange(0, tall)
        each, exists = sample * n + rows, rows < n
        at, inside = each[:, None] * width + columns[None, :], exists[:, None] & there[None, :]
        inverse = tl.load(rstd + each, mask=exists, other=0.0)[:, None]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        if mean is not None:
            value = tl.where(inside, value - tl.load(mean + each, mask=exists, other=0.0)[:, None], 0.0)
        value *= inverse
        shifts += gradient
        scales += gradient * value
        gradient *= by
        along = tl.sum(gradient * value, 1) / width
        if mean is not None:
            value = value * along[:, None] + (tl.sum(gradient, 1) / width)[:, None]
        else:
            value *= along[:, None]
        gradient = (gradient - value) * inverse
        if dsum is not None:
            gradient += tl.load(dsum + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside)
        if h is not None:
            through = tl.load(gate + row, mask=there, other=0.0).to(tl.float32)[None, :]
            tl.store(dh + at, (gradient * through).to(dh.dtype.element_ty), mask=inside)
            gates += gradient * tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    into = (sample * tl.num_programs(1) + tl.program_id(1)) * width + columns
    tl.store(dshift + into, tl.sum(shifts, 0), mask=there)
    tl.store(dscale + into, tl.sum(scales, 0), mask=there)
    if h is not None:
        tl.store(dgate + into, tl.sum(gates, 0), mask=there)


@triton.jit
@no_type_check
def gate_backward(given, made, n, step, chunk, width: tl.constexpr, tall: tl.constexpr, lanes: tl.constexpr):
    """The gradients of h and gate in x + gate h, from that of the sum, which is also that of x."""
    (dy, h, gate), (dh, dgate) = given, made
    sample, columns = tl.program_id(0).to(tl.int64), tl.arange(0, lanes)
    there = columns < width
    by = tl.load(gate + sample * step + columns, mask=there, other=0.0).to(tl.float32)[None, :]
    gates = tl.zeros((tall, lanes), tl.float32)
    for first in range(0, chunk, tall):
        rows = tl.program_id(1) * chunk + first + tl.arange(0, tall)
        at = (sample * n + rows)[:, None] * width + columns[None, :]
        inside = (rows < n)[:, None] & there[None, :]
        gradient = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        gates += gradient * tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dh + at, (gradient * by).to(dh.dtype.element_ty), mask=inside)
    into = (sample * tl.num_programs(1) + tl.program_id(1)) * width + columns
    tl.store(dgate + into, tl.sum(gates, 0), mask=there)
