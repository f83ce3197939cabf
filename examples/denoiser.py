"""A denoiser without a network: two clusters of known place and width, whose every denoised value is an equation.

python examples/denoiser.py    seconds on a CPU

Whatever says how to denoise can be sampled, guided and inpainted. Here what samplers should reach is known, so one sees
how near each comes with so many calls.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from anydit.diffusion.multistep import DPMSolverPP, UniPC
from anydit.diffusion.paths import Linear, Path
from anydit.diffusion.samplers import Euler, Heun, Sampler
from anydit.diffusion.times import Even
from anydit.tensors import Cond, Denoised, per_sample

CENTRES, WIDTH = (-1.0, 1.0), 0.1
SHARES = (0.25, 0.75)


@dataclass
class TwoClusters:
    """One value in each sample, near one of `CENTRES`, as often as `SHARES` say."""

    path: Path

    def denoise(self, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        """The mean of x0 given xt: of each cluster by Bayes' rule for Gaussians, weighed by its probability."""
        alpha, sigma = per_sample(self.path.alpha(t), xt), per_sample(self.path.sigma(t), xt)
        variance = alpha**2 * WIDTH**2 + sigma**2
        means, logits = [], []
        for centre, share in zip(CENTRES, SHARES, strict=True):
            error = xt - alpha * centre
            means.append(centre + alpha * WIDTH**2 / variance * error)
            logits.append(torch.tensor(share).log() - error**2 / (2 * variance))
        weights = torch.softmax(torch.stack(logits), 0)
        return Denoised((weights * torch.stack(means)).sum(0))


def sampled(sampler: Sampler, steps: int, n: int = 20_000) -> Tensor:
    """Samples of the two clusters, from the same noise for every sampler."""
    path = Linear()
    xt = torch.randn(n, 1, 1, generator=torch.Generator().manual_seed(0))
    times = Even().times(path, steps)
    *_, last = sampler.run(TwoClusters(path), path, xt, times, {}, lambda step: torch.zeros_like(xt))
    return last.xt


def main() -> None:
    """A table of errors, against the same noise followed in small steps."""
    exact = sampled(Heun(), 1000)
    print(f"share of the right cluster: {float((exact > 0).float().mean()):.3f}, exactly {SHARES[1]}")
    samplers = (Euler(), Heun(), DPMSolverPP(), UniPC())
    print("calls   " + "".join(f"{type(sampler).__name__:>14}" for sampler in samplers))
    for calls in (9, 19, 39, 79):
        row = []
        for sampler in samplers:
            steps = (calls + 1) // 2 if isinstance(sampler, Heun) else calls
            row.append(float((sampled(sampler, steps) - exact).abs().mean()))
        print(f"{calls:5}   " + "".join(f"{error:14.5f}" for error in row))
    assert abs(float((exact > 0).float().mean()) - SHARES[1]) < 0.02, (
        "as many samples in each cluster as there should be"
    )
    assert row[1] < row[0], "with enough calls a method of second order beats one of first"


if __name__ == "__main__":
    main()
