"""Denoisers that wrap a denoiser and know what was measured: their x0 is the mean given xt and the measurement.

All work in pixels and through a codec: the denoiser estimates latents, the physics measures what they decode to.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.codecs import Codec
from anydit.config import check_at_least, check_positive, config
from anydit.diffusion.paths import Path
from anydit.inverse.measurement import Measurement
from anydit.inverse.residuals import conjugate_residuals, dot
from anydit.tensors import Cond, Denoised, Denoiser, Stream, changed, per_sample

FAINT = 0.1
"""Below this alpha, xt tells so little of the data that its gradient is not asked: the prior's variance stands in."""

NOT_WHITE = 0.2
"""What a denoiser leaves unknown of images, as a share of what it would of white data; 1/7 in DiffPIR."""


@dataclass(frozen=True)
class Setting:
    """Between denoiser and physics: the path, the codec, what was measured of each sample in a batch, and its rows.

    `stretch`: the deviation, on the physics' scale, of what latents of deviation 1 decode to.
    """

    path: Path
    codec: Codec
    measured: Measurement
    stretch: float
    rows: Int[Tensor, " b"]
    seed: int = 0

    def seen(self, z: Float[Tensor, "b c_z *space_z"]) -> Float[Tensor, "b c *space"]:
        """Latents as the physics has them."""
        return self.measured.unit(self.codec.decode(z))

    def latents(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c_z *space_z"]:
        """The inverse, where a codec has one."""
        return self.codec.encode(self.measured.own(x))

    def spread(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The variance of latents given xt, if they were normal with variance 1 (Song 2023, section 3.2)."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        return sigma**2 / (alpha**2 + sigma**2)

    def variance(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The same of what latents decode to, on the physics' scale."""
        return self.stretch**2 * self.spread(t)


def stretch(codec: Codec, bounds: tuple[float, float] | None, shape: tuple[int, ...], device: torch.device) -> float:
    """The `Setting`'s, about the latents' mean; `shape` is that of one sample's latents."""
    z = torch.zeros(1, *shape, device=device)
    step = 0.1 * Stream(0, "stretch").normal(0, torch.zeros(1, dtype=torch.long, device=device), shape)
    with torch.no_grad():
        change = codec.decode(z + step) - codec.decode(z)
    low, high = bounds or (0.0, 1.0)
    return float((change.square().mean() / step.square().mean()).sqrt()) / (high - low)


class Estimate(NamedTuple):
    """A denoiser's answer, what it decodes to on the physics' scale, and how to pull a gradient of that back.

    `pull(g)`: from the physics' scale to latents, times the covariance of latents given xt, which is
    sigma^2 / alpha d x0 / d xt.
    """

    x0: Tensor
    variance: Tensor | None
    seen: Tensor
    pull: Callable[[Tensor], Tensor]


def estimated(setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Estimate:
    """Ask the denoiser once, keeping what its gradient needs."""
    alpha, sigma = setting.path.alpha(t), setting.path.sigma(t)
    with torch.inference_mode(False), torch.enable_grad():
        x = xt.clone().requires_grad_()
        answer = denoiser.denoise(x, t.clone(), {name: changed(value, torch.clone) for name, value in cond.items()})
        z = answer.x0.detach().requires_grad_()
        seen = setting.seen(z)
    faint = alpha < FAINT

    def pull(g: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            (back,) = torch.autograd.grad(seen, z, g.clone(), retain_graph=True)
            plain = per_sample(setting.spread(t), xt) * back
            if bool(faint.all()):
                return plain
            (through,) = torch.autograd.grad(answer.x0, x, back, retain_graph=True)
        exact = per_sample(sigma**2 / alpha.clamp(min=FAINT), xt) * through
        return torch.where(per_sample(faint, xt), plain, exact)

    variance = None if answer.variance is None else answer.variance.detach()
    return Estimate(answer.x0.detach(), variance, seen.detach(), pull)


class Correction(ABC):
    """How to take in what was measured."""

    @abstractmethod
    def x0(self, setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        """The latents' mean, or a draw of them, given xt and what was measured."""

    @property
    def decoupled(self) -> bool:
        """Whether its x0 is a draw, to which noise is added anew at each step."""
        return False

    @property
    def linear(self) -> bool:
        """Whether the physics has to be."""
        return True

    @property
    def fits(self) -> bool:
        """Whether a sample that does not fit what was measured is moved in the end until it does."""
        return True


@dataclass(frozen=True)
class Corrected:
    """The denoiser of what was measured."""

    denoiser: Denoiser
    how: Correction
    setting: Setting

    def denoise(self, xt: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond) -> Denoised:
        """The wrapped denoiser's estimate, corrected."""
        return self.how.x0(self.setting, self.denoiser, xt, t, cond)


@config
class Proximal(Correction):
    """Puts the estimate right by what was measured, as if the data were normal about it: no gradient, one call a step.

    The estimate of DiffPIR (Zhu 2023, arXiv 2305.08995) and DDNM. Through a codec the corrected data are encoded anew,
    as by the hard data consistency of ReSample (Song 2023, arXiv 2307.08123). `spread`: what the denoiser leaves
    unknown, as a share of what it would of white data.
    """

    spread: float = NOT_WHITE

    def __post_init__(self) -> None:
        check_positive("spread", self.spread)

    def x0(self, setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        answer = denoiser.denoise(xt, t, cond)
        right = setting.measured.closer(setting.seen(answer.x0), self.spread * setting.variance(t))
        return Denoised(setting.latents(right), answer.variance)


@config
class PiGDM(Correction):
    """Pseudo-inverse guidance (Song 2023, ICLR, equations 7 and 8), on any path; one call and one gradient a step."""

    def x0(self, setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        e = estimated(setting, denoiser, xt, t, cond)
        variance = setting.variance(t)
        g = (setting.measured.closer(e.seen, variance) - e.seen) / per_sample(variance, e.seen)
        return Denoised(e.x0 + e.pull(g), e.variance)


@config
class MomentMatching(Correction):
    """Posterior mean with the denoiser's own covariance (Rozet 2024, arXiv 2405.13712, algorithm 2).

    Exact where data given xt are normal. One call a step, and a gradient for each of `iterations`, which are of
    conjugate residuals. The paper's conjugate gradients make another norm least: where the covariance is wide and the
    noise small, their first leave more unexplained than there was, by steps that are large where nothing was measured.
    Through a codec that is not linear, what a move of latents explains is what one of at most a deviation of them
    given xt would, so much larger: far from the estimate a decoder makes anything.
    """

    iterations: int = 3

    def __post_init__(self) -> None:
        check_at_least("iterations", self.iterations, 1)

    def x0(self, setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        e, measured = estimated(setting, denoiser, xt, t, cond), setting.measured

        most = setting.spread(t).sqrt()

        def explained(v: Tensor) -> tuple[Tensor, Tensor]:
            move = e.pull(measured.linear.A_adjoint(v))
            size = (dot(move, move) / move[0].numel()).sqrt()
            share = torch.where(size > most, most / size, 1)
            change = setting.seen(e.x0 + per_sample(share, move) * move) - e.seen
            return measured.sigma**2 * v + measured.physics.A(change / per_sample(share, change)), move

        off = measured.y - measured.physics.A(e.seen)
        return Denoised(conjugate_residuals(explained, off, e.x0, self.iterations), e.variance)


@config
class DPS(Correction):
    """Diffusion posterior sampling (Chung 2022, arXiv 2209.14687), for operators that are not linear, too.

    The likelihood of what was measured is as wide as its noise and the spread of the data given xt together, and its
    gradient is taken `scale` times.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)

    @property
    def linear(self) -> bool:
        return False

    def x0(self, setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        e, measured = estimated(setting, denoiser, xt, t, cond), setting.measured
        with torch.inference_mode(False), torch.enable_grad():
            seen = e.seen.clone().requires_grad_()
            off = measured.physics.A(seen) - measured.y
            (slope,) = torch.autograd.grad(0.5 * dot(off, off).sum(), seen)
        variance = measured.sigma**2 + setting.variance(t)
        return Denoised(e.x0 - e.pull(self.scale * slope / per_sample(variance, slope)), e.variance)


@config
class DAPS(Correction):
    """Decoupled annealing (Zhang 2024, arXiv 2407.01521): draws data given xt and what was measured, then adds noise.

    Given xt, data are taken as normal about the denoiser's estimate; the draw solves for perturbed measurements, which
    is exact for linear operators and needs no Langevin steps. `spread`: as in `Proximal`.
    """

    spread: float = NOT_WHITE

    def __post_init__(self) -> None:
        check_positive("spread", self.spread)

    @property
    def decoupled(self) -> bool:
        return True

    def x0(self, setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        answer, measured = denoiser.denoise(xt, t, cond), setting.measured
        seen, variance = setting.seen(answer.x0), self.spread * setting.variance(t)
        stream, key = Stream(setting.seed, "daps"), int(2**31 * float(t[0]))
        moved = seen + per_sample(variance.sqrt(), seen) * stream.normal(key, setting.rows, tuple(seen.shape[1:]))
        shape = (*measured.y.shape[1:], 2) if measured.y.is_complex() else tuple(measured.y.shape[1:])
        noise = Stream(setting.seed, "daps y").normal(key, setting.rows, shape)
        noise = torch.view_as_complex(noise) if measured.y.is_complex() else noise
        right = measured.closer(moved, variance, measured.y + measured.sigma * noise)
        return Denoised(setting.latents(right), answer.variance)


@config
class Conditional(Correction):
    """Leaves the estimate, and the samples, as they are: of a model that is told what was measured as a condition."""

    @property
    def fits(self) -> bool:
        return False

    def x0(self, setting: Setting, denoiser: Denoiser, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        return denoiser.denoise(xt, t, cond)


AnyCorrection = MomentMatching | PiGDM | Proximal | DPS | DAPS | Conditional
