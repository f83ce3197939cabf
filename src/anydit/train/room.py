"""What fits into the memory that is free: how a step is to be cut for it, and how large batch and samples may be."""

from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from math import ceil, prod

import torch

from anydit.inference.device import free_bytes, give_back
from anydit.model.flops import cost
from anydit.train.base import Note
from anydit.train.config import TrainConfig
from anydit.train.memory import Planned, needed

CLEAR = 4
"""Where a rough estimate is below the free memory by this factor, nothing is counted: it fits."""

ROUGH_COPIES = 5
"""Tensors of the size of the weights: these, their average, the gradients and the optimizer's two."""

ROUGH_BYTES = 60
"""Of activations for each token, block and unit of width; that of a step in float32 is 40 to 60."""

TRIES, NEAR, FURTHER = 5, 0.97, 16
"""How often a largest size is looked for, how near it is near enough, and how many times a size the next may be."""

MARGIN = 0.9
"""The share of the free memory that is planned with, because of what is not counted."""

KEPT = 2
"""How many times what a step needs the C library may hold on a CPU, in pieces that nothing fits into."""


def largest_batch(step: Planned, free: int, device: torch.device) -> int:
    """The most samples of which a step fits into so many bytes, as many for each process; 0 where not even one does."""
    guess = _rough_tokens(step, free) // prod(step.model.grid)
    return step.parts * _largest(lambda n: needed(step.with_(n * step.parts), device), guess, free)


def largest_grid(step: Planned, free: int, device: torch.device) -> tuple[int, ...] | None:
    """The most patches along each axis, in the config's proportions, of which one sample fits into so many bytes."""
    own = step.model.grid

    def scaled(tokens: int) -> tuple[int, ...]:
        return tuple(max(1, int(n * (tokens / prod(own)) ** (1 / len(own)))) for n in own)

    tokens = _largest(lambda n: needed(step.with_(1, scaled(n)), device), _rough_tokens(step, free), free)
    return scaled(tokens) if tokens else None


def fitting(step: Planned, device: torch.device, note: Note = print, free: int | None = None) -> TrainConfig:
    """How `step` is trained in the memory that is free: its config, with `recompute` filled in.

    `free`: bytes that a process may take; None: those that are free now. Where a step takes much of that on a CPU,
    memory is given back at once from then on: what the C library keeps would be as much again.

    Raises:
        ValueError: a step does not fit; with what it needs, and what would fit.
    """
    open_, free = step.train.recompute is None, free_bytes(device) if free is None else free
    step = step.trained(recompute=step.train.recompute or 0.0)
    if free is None or step.train.adapter is not None:
        if open_:
            note("Nothing is computed again: memory is not counted beside an adapter, or it is not known what is free.")
        return step.train
    rough = step.codec is None and step.train.attention_backend != "math"  # else an estimate says too little
    if rough and _rough(step) * CLEAR < free:
        return step.train
    need = needed(step, device)
    least = _least_again(step, int(MARGIN * free), device) if need > free else None
    if need > free and (least is None or not open_):
        raise ValueError(_too_large(step, need, free, least, device))
    if least is not None:
        note(
            f"A step needs {_gib(need)} where {_gib(free)} are free: activations of {least:.0%} of the blocks are "
            "computed again in the backward pass."
        )
        step = step.trained(recompute=least)
        need = needed(step, device)
    if device.type == "cpu" and KEPT * need > free and give_back():
        note(f"A step needs {_gib(need)} where {_gib(free)} are free: memory is given back at once, which takes time.")
    return step.train


def _least_again(step: Planned, free: int, device: torch.device) -> float | None:
    """The smallest share of blocks to compute again with which a step fits into so many bytes; None: none is enough."""
    depth = step.model.depth
    shares = [ceil(100 * n / depth) / 100 for n in range(depth)] + [1.0]
    shares = [share for share in shares if share > (step.train.recompute or 0)]
    fits = bisect_left(shares, True, key=lambda share: needed(step.trained(recompute=share), device) <= free)
    return shares[fits] if fits < len(shares) else None


def _too_large(step: Planned, need: int, free: int, least: float | None, device: torch.device) -> str:
    """That a step does not fit, and what would."""
    train, planned = step.train, int(MARGIN * free)
    most = largest_batch(step, planned, device)
    ways = list[str]()
    if most:
        ways.append(f"--train.batch {most}" + (" --train.accumulate 1" if train.accumulate > 1 else ""))
    if most and (pieces := _pieces(step, most, planned, device)):
        ways.append(f"--train.accumulate {pieces}")
    if least is not None:
        ways.append(f"--train.recompute {least:g}")
    told = " or ".join(ways) or "a smaller model, or --train.mesh.shard with more processes"
    sizes = f"{_gib(need)} where {_gib(free)} are free"
    return f"train.batch: got {train.batch}, whose step needs {sizes}; expected one that fits: {told}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _pieces(step: Planned, most: int, free: int, device: torch.device) -> int | None:
    """Into how many pieces each process can cut its part of the batch, so that a step fits; None where into none.

    `most`: samples that fit in one piece, of which fewer fit where gradients of earlier pieces are kept.
    """
    own = step.train.batch // step.parts
    for n in range(-(-step.train.batch // most), own + 1):
        if own % n == 0 and needed(step.trained(accumulate=n), device) <= free:
            return n
    return None


def _largest(need: Callable[[int], int], guess: int, free: int) -> int:
    """The largest n with need(n) <= free, nearly: by lines through what a need that grows about evenly was before."""
    need = cache(need)
    a, b = max(1, guess // 2), max(2, guess)
    of_a, of_b, best = need(a), need(b), 0
    for _ in range(TRIES):
        of_one = max(1.0, (of_b - of_a) / (b - a))
        c = max(1, int(b + (free - of_b) / of_one))
        c = min(c, FURTHER * max(a, b))  # where weights are nearly all of it, a line says nothing of what is far away
        of_c = need(c)
        if of_c <= free:
            best = max(best, c)
        if NEAR * free <= of_c <= free or c in (a, b):
            break
        a, of_a, b, of_b = b, of_b, c, of_c
    return best


def _rough(step: Planned) -> int:
    """Bytes of a step, about."""
    tokens = step.train.batch // step.train.accumulate * prod(step.model.grid)
    return _rough_weights(step) + tokens * step.model.depth * step.model.width * ROUGH_BYTES


def _rough_tokens(step: Planned, free: int) -> int:
    """About how many tokens' activations fit beside the weights, in blocks of such a depth and width."""
    return max(0, free - _rough_weights(step)) // (step.model.depth * step.model.width * ROUGH_BYTES)


def _rough_weights(step: Planned) -> int:
    """Bytes of the weights and of what is as large."""
    return ROUGH_COPIES * 4 * cost(step.model).parameters
