"""What runs on the GPU for the weights: clipping, AdamW and the moving average, in one pass over tensors of all sizes.

In Triton. A program has one block of one tensor. `rows` is a table of seven numbers for each tensor: the addresses of
weights, gradient, both moments, average and step, and how many weights it has. `places` says of each program its tensor
and its block; `told`, by what gradients are divided, whether anything is to move, and how far averages go. These are on
the device, so that nothing waits for them. `rates`: of the group of tensors, as numbers.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _floats(address, aligned: tl.constexpr):
    """What lies at an address that a table holds; aligned, 16 bytes of it are read at a time."""
    pointer = tl.load(address).to(tl.pointer_type(tl.float32))
    if aligned:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
@no_type_check
def update(rows, places, told, rates, aligned: tl.constexpr, lanes: tl.constexpr):
    """Move one block of one tensor's weights, and its average; where a gradient's address is 0, the average alone."""
    lr, stays, eps, beta1, beta2, new1, new2, log1, log2 = rates
    row = rows + 7 * tl.load(places + 2 * tl.program_id(0))
    at = tl.load(places + 2 * tl.program_id(0) + 1).to(tl.int64) * lanes + tl.arange(0, lanes)
    p, g, m = _floats(row, aligned), _floats(row + 1, aligned), _floats(row + 2, aligned)
    v, e, size = _floats(row + 3, aligned), _floats(row + 4, aligned), tl.load(row + 6)
    if aligned:
        size = tl.multiple_of(size, 4)
    inside = (at < size) & (tl.load(told + 1).to(tl.int32) > 0)
    moved = inside & (tl.load(row + 1) != 0)
    before, average = tl.load(p + at, mask=inside, other=0.0), tl.load(e + at, mask=inside, other=0.0)
    gradient = tl.load(g + at, mask=moved, other=0.0) / tl.load(told)
    first = beta1 * tl.load(m + at, mask=moved, other=0.0) + new1 * gradient
    second = beta2 * tl.load(v + at, mask=moved, other=0.0) + new2 * gradient * gradient
    steps = tl.load(_floats(row + 5, False)).to(tl.float64)  # the powers are near 1, and are taken away from it
    rate = (lr / (1 - tl.exp2(steps * log1))).to(tl.float32)
    root = tl.sqrt((1 - tl.exp2(steps * log2)).to(tl.float32))
    after = stays * before - rate * first / (tl.sqrt(second) / root + eps)
    after = tl.where(moved, after, before)
    tl.store(p + at, after, mask=moved)
    tl.store(m + at, first, mask=moved)
    tl.store(v + at, second, mask=moved)
    tl.store(e + at, average + tl.load(told + 2) * (after - average), mask=inside)
