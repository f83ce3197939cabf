"""What the tests of samplers share: every path and sampler, and a run of one."""

import math

import pytest
import torch

from anydit.diffusion import paths
from anydit.diffusion.multistep import SDE, DPMSolverPP, UniPC
from anydit.diffusion.paths import Cosine, Linear, LinearBeta
from anydit.diffusion.samplers import DDIM, DDPM, Euler, Heun, Large

PATHS = [Linear(), Cosine(), LinearBeta(), paths.DDPM()]
DETERMINISTIC = [Euler(), DDIM(), Heun(), *(kind(n) for kind in (DPMSolverPP, UniPC) for n in (1, 2, 3)), SDE(eta=0.0)]
STOCHASTIC = [DDPM(), DDPM(variance=Large()), DDIM(eta=1.0), DDIM(eta=0.5), SDE(), SDE(eta=0.5), SDE(order=1)]
FIRST_ORDER = [Euler(), DDIM(), DPMSolverPP(1), *STOCHASTIC[:4], SDE(order=1)]


def name(value: object) -> str:
    return str(value).replace("(", "[").replace(")", "]")


def run(sampler, denoiser, path, xt, times, noise=None):
    steps = list(sampler.run(denoiser, path, xt, times, {}, noise or (lambda i: torch.full_like(xt, math.nan))))
    assert [s.index for s in steps] == list(range(len(times) - 1))
    assert all(s.steps == len(times) - 1 for s in steps)
    assert [s.t for s in steps] == pytest.approx(times[1:].tolist())
    return steps[-1].xt


def in_log_snr(path, low: float, high: float, steps: int, fine_ends: bool = False):
    """Times even in log SNR; with fine ends the first and last step are cut so that two are squared in length."""
    at = torch.linspace(low, high, steps + 1, dtype=torch.float64)
    if fine_ends:
        small = ((high - low) / steps) ** 2 / 2 * torch.tensor([1.0, 2.0])
        at = torch.cat([at[:1], low + small, at[1:-1], high - small.flip(0), at[-1:]])
    return path.time_at(at)


def start(n=64):
    return torch.randn(n, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
