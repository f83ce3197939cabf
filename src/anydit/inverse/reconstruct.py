"""From a measurement to samples that agree with it, how sure they are, and how well they fit."""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf, prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anydit.diffusion.samplers import Renoise
from anydit.inference.conditions import Given
from anydit.inference.config import Sampling
from anydit.inference.pipeline import GRADIENT_COST, TOKENS_AT_ONCE, Pipeline
from anydit.inverse.corrections import AnyCorrection, Conditional, Corrected, Setting, stretch
from anydit.inverse.measured import MEASURED, usual
from anydit.inverse.measurement import AnyPhysics, Measurement, Physics, checked, refuse_changes
from anydit.model.tokens import grid_of
from anydit.tensors import Denoiser, Tokens, changed


@dataclass(frozen=True)
class Reconstruction:
    """Samples given what was measured, `Float[k n c *space]` on the data's own scale: k for each measurement.

    `residual`, `Float[k n]`: how far each is from what was measured, in deviations of the noise; 1 is what the noise
    explains.
    """

    samples: Tensor
    residual: Tensor
    calls: int

    @property
    def mean(self) -> Float[Tensor, "n c *space"]:
        """What is right on average: of all guesses that with the least squared error."""
        return self.samples.mean(0)

    @property
    def deviation(self) -> Float[Tensor, "n c *space"]:
        """How far samples differ, value by value.

        Raises:
            ValueError: there is one sample only.
        """
        if len(self.samples) < 2:
            raise ValueError("samples: got 1, expected at least 2 to say how sure they are")
        return self.samples.std(0)

    def interval(
        self, share: float, widen: float = 1.0
    ) -> tuple[Float[Tensor, "n c *space"], Float[Tensor, "n c *space"]]:
        """Between which values the truth lies with that probability, value by value, by the samples' order alone.

        `widen`: how many times as far from the samples' median each end is, such as what `widening` found.

        Raises:
            ValueError: a share that is not between 0 and 1, or that so few samples cannot tell: the truth is as likely
                to lie below all of them, or above, as in one of the gaps between; a `widen` below 0 or not finite.
        """
        if not 0 < share < 1:
            raise ValueError(f"share: got {share}, expected between 0 and 1")
        if not 0 <= widen < inf:
            raise ValueError(f"widen: got {widen}, expected a finite number of at least 0")
        count = len(self.samples)
        if count < fewest(share):
            raise ValueError(f"samples: got {count}, expected at least {fewest(share)} for {share:g}")
        below = (count + 1) * (1 - share) / 2 - 1
        ordered, first = self._ordered, int(max(0.0, below) + 1e-6)
        low, high = (
            torch.lerp(some[first], some[first + 1], max(0.0, below - first)) for some in (ordered, ordered.flip(0))
        )
        if widen != 1:
            low, high = (torch.lerp(self._median, end, widen) for end in (low, high))
        return low, high

    def coverage(
        self, truth: Float[Tensor, "n c *space"], share: float, widen: float = 1.0
    ) -> Float[Tensor, "n c *space"]:
        """Where the truth lies in that interval, 1, and where not, 0; the mean is `share` if the samples are right."""
        low, high = self.interval(share, widen)
        return ((truth >= low) & (truth <= high)).float()

    def widening(
        self, truth: Float[Tensor, "n c *space"], share: float, where: Bool[Tensor, "..."] | None = None
    ) -> float:
        """How many times as wide that interval has to be to hold the truth that often, where the truth is known.

        Above 1 the samples are surer than they should be. This is split conformal prediction, scaled value by value
        (Lei et al. 2018, "Distribution-free predictive inference for regression"): of other images of the same kind,
        measured alike, the interval that is so much wider holds the truth as often, on average over images. Values of
        one image are much alike, so take many. `where`: the values of the truth that count, such as those of a
        body; where the truth is NaN there is none.

        Raises:
            ValueError: as `interval`; a shape that is not the samples'; too few values for that share; or a truth that
                so many intervals of no width miss.
        """
        low, high = self.interval(share)
        for name, given in (("truth", truth), ("where", where)):
            if given is not None and given.shape != low.shape:
                raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected the samples' {tuple(low.shape)}")
        counts = ~truth.isnan() if where is None else where & ~truth.isnan()
        off, wide = (truth - self._median).abs(), torch.where(truth > self._median, high, low) - self._median
        times = torch.where(off == 0, 0, off / wide.abs())[counts]
        rank = ceil((len(times) + 1) * share - 1e-6)
        if rank > len(times):
            least = ceil(share / (1 - share) - 1e-6)
            raise ValueError(f"where: got {len(times)} values, expected at least {least} for {share:g}")
        found = float(times.kthvalue(rank).values)
        if found == inf:
            raise ValueError("truth: got values other than what all samples agree on, expected fewer: no width helps")
        return found

    @cached_property
    def _ordered(self) -> Float[Tensor, "k n c *space"]:
        return self.samples.sort(0).values

    @cached_property
    def _median(self) -> Float[Tensor, "n c *space"]:
        count = len(self.samples)
        return (self._ordered[(count - 1) // 2] + self._ordered[count // 2]) / 2


def reconstruct(
    pipeline: Pipeline,
    y: Tensor,
    physics: AnyPhysics,
    cond: Mapping[str, Given] | None = None,
    *,
    how: AnyCorrection | None = None,
    samples: int = 8,
    sigma: float | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Reconstruction:
    """Draw samples that agree with each of the measurements `y` of deepinv's `physics`.

    The physics measures images on the scale where the data's bounds, as black and white are, are 0 and 1; data without
    bounds as they are. `sigma`: the noise's deviation (None: that of the physics' noise model). `samples`: of each
    measurement. `cond`: one value for all, or one for each measurement; a model that was trained on measurements is
    told of `y` as in training. `how`: None takes `usual`. The rest is as in `Pipeline.sample`.
    A sample further from what was measured than its noise explains is moved as little as makes it fit (`how.fits`).

    Raises:
        ValueError: a measurement that the physics cannot have made of the model's samples, or an argument that the
            model cannot serve.
    """
    if samples < 1:
        raise ValueError(f"samples: got {samples}, expected at least 1")
    config, device, bounds = pipeline.config, pipeline.device, pipeline.config.view.bounds
    how = _possible(how or usual(config.model.conditions), config.model.conditions)
    refuse_changes(config.change_of)
    width = stretch(pipeline.codec, bounds, _latents(pipeline), device)
    measured, n = checked(y.to(device), physics, sigma, data_shape(pipeline), bounds, how.linear), len(y)
    batch = gradients_at_once(pipeline) if batch is None else batch
    sampling = sampling or config.sampling
    sampling = replace(sampling, sampler=Renoise()) if how.decoupled else sampling

    def correct(denoiser: Denoiser, rows: slice) -> Denoiser:
        which = torch.arange(rows.start, rows.stop, device=device)
        setting = Setting(config.path, pipeline.codec, measured.rows(which % n), width, which, seed)
        return Corrected(denoiser, how, setting)

    corrected = copy.copy(pipeline)
    corrected.correct = correct
    shown = _shown(measured, config.model.conditions, cond or {})
    told = {name: _each(value, n, samples) for name, value in shown.items()}
    x = _finite(corrected.sample(samples * n, told, sampling=sampling, seed=seed, batch=batch))
    all_of_them = measured.rows(torch.arange(len(x), device=device) % n)
    x = all_of_them.fitted(x.to(device)) if how.fits and isinstance(physics, Physics) else x.to(device)
    x, residual = (each.unflatten(0, (samples, n)).cpu() for each in (x, all_of_them.residual(x)))
    return Reconstruction(x, residual, sampling.sampler.calls(sampling.steps))


def fewest(share: float) -> int:
    """How many samples it takes at least to tell the interval of a share."""
    return ceil(2 / (1 - share) - 1 - 1e-6)


def data_shape(pipeline: Pipeline) -> tuple[int, ...]:
    """That of one of the model's samples, `(c, *space)`, as the physics measures them."""
    with torch.no_grad():
        return tuple(pipeline.codec.decode(torch.zeros(1, *_latents(pipeline), device=pipeline.device)).shape[1:])


def gradients_at_once(pipeline: Pipeline) -> int:
    """Of how many samples a gradient through the network is asked in one call, unless something else is said."""
    config = pipeline.config.model
    return max(1, TOKENS_AT_ONCE // GRADIENT_COST // prod(grid_of(config.size or (), config.patch)))


def _finite(x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
    """What the model drew, which must be numbers."""
    if not bool(x.isfinite().all()):
        raise ValueError("samples: got NaN or infinity from the model, expected finite ones; is cond as in training?")
    return x


def _possible(how: AnyCorrection, conditions: Collection[str]) -> AnyCorrection:
    """`how`, which a model with such conditions must be able to do."""
    if isinstance(how, Conditional) and MEASURED not in conditions:
        raise ValueError(f"how: got Conditional, expected a correction: the model has no condition {MEASURED!r}")
    return how


def _shown(measured: Measurement, conditions: Collection[str], cond: Mapping[str, Given]) -> dict[str, Given]:
    """`cond`, and what a model that was trained on measurements is told of these."""
    if MEASURED not in conditions or MEASURED in cond:
        return dict(cond)
    from anydit.inverse.classical import plainly  # imports deepinv, which a physics of one's own need not be of

    if not isinstance(measured.physics, Physics):
        got = type(measured.physics).__name__
        raise ValueError(f"physics: got {got}, expected a linear operator, as the model was trained on")
    with torch.no_grad():
        return {**cond, MEASURED: plainly(measured).cpu()}


def _latents(pipeline: Pipeline) -> tuple[int, ...]:
    config = pipeline.config.model
    return config.in_channels, *(config.size or ())


def _each(value: Given, n: int, samples: int) -> Given:
    """A condition of each measurement, for each of its samples."""
    if isinstance(value, Tensor) and value.ndim and len(value) == n:
        return value.repeat(samples, *(1,) * (value.ndim - 1))
    if isinstance(value, Tokens) and len(value.values) == n:
        return changed(value, lambda v: v.repeat(samples, *(1,) * (v.ndim - 1)))
    if isinstance(value, list | tuple) and not isinstance(value, Tokens) and len(value) == n:
        return [*value] * samples
    return value
