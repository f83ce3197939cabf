"""What a pipeline is asked to make, checked and complete."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from anydit.diffusion.samplers import Step
from anydit.inference.config import Sampling
from anydit.tensors import Cond, Denoiser

OnStep = Callable[[Step], None]

Correct = Callable[[Denoiser, slice], Denoiser]
"""What makes, of the denoiser of latents, that of some rows of a job: one that knows what was measured of them."""


@dataclass(frozen=True)
class Job:
    """Samples to make: how, of which latents' shape, under which conditions, and what they start from."""

    n: int
    how: Sampling
    space: tuple[int, ...]
    cond: Cond
    negative: Cond
    seed: int
    on_step: OnStep | None = None
    weak: Denoiser | None = None
    exists: Tensor | None = None
    start: Tensor | None = None
    strength: float = 1.0
    keep: Tensor | None = None
