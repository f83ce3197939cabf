"""Activation checkpointing: blocks whose activations are computed again in the backward pass, and not kept for it."""

from collections.abc import Callable
from functools import wraps
from itertools import count, pairwise
from math import floor
from typing import Any

from torch.utils.checkpoint import checkpoint

from anydit.model.dit import DiT


def recompute(model: DiT, share: float | None) -> None:
    """Let this share of the model's blocks (None: of none), evenly spread, keep no activations but what enters them.

    A block then costs a second forward pass, which gives the same to the last bit: nothing in it is random. With a
    share of 1 the activations of a training step are those of one block, and what enters each.
    """
    so_far = (floor(n * (share or 0) + 0.5) for n in count())  # the nearest: products are not exact, as 100 * 0.29
    for block, (before, now) in zip(model.blocks, pairwise(so_far)):  # noqa: B905, the second has no end
        if now > before:
            block.forward = _twice(block.forward)


def _twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def run(*given: Any) -> Any:  # a function of its own, which torch.compile can read
        return checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False)

    return run
