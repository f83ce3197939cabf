"""From what a file holds to measurements with their physics, on the model's scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import deepinv
import torch
from jaxtyping import Float
from torch import Tensor

from anydit.inference.pipeline import Pipeline
from anydit.inverse.measurement import Measurement, Physics, checked
from anydit.inverse.operators import Inpainting, Operator, Sensors
from anydit.inverse.reconstruct import data_shape
from anydit.inverse.scan.place import Place, Turn

SIGMA = 0.02
"""The noise's deviation where nothing is said: of 1 between the data's bounds, or of their own deviation."""

LEAST, BEYOND, FAR = 0.1, 0.05, 10.0
"""The part of the model's range that values fill at least; by which they may leave it; deviations from the mean."""

DARK = 0.5
"""The part of the contrast of training samples that the one of given samples with most of it has at least."""


@dataclass(frozen=True)
class Job:
    """Measurements `y[n ...]` by one physics, of what on the data's own scale, if that is known, and told what of each.

    `cond`: conditions by name, with a value for each of the n.
    """

    y: Tensor
    physics: Physics
    truth: Float[Tensor, "n c *space"] | None = None
    cond: Mapping[str, Tensor | list[str]] = field(default_factory=dict[str, Tensor | list[str]])


@dataclass(frozen=True)
class Task:
    """Jobs, the noise's deviation on their scale, and how a file's values come to the model's: `black + scale` times.

    `place`, `turn`: where samples lie along the axes of what was measured, and how they come to these. `slices`: they
    are slices of volumes, which follow each other. `notes`: sentences on what was measured, found or assumed.
    """

    jobs: Sequence[Job]
    sigma: float
    scale: float = 1.0
    black: float = 0.0
    place: Place | None = None
    turn: Turn = field(default_factory=Turn)
    slices: bool = False
    notes: tuple[str, ...] = ()

    def measured(self, job: Job, pipeline: Pipeline, rows: slice) -> Measurement:
        """Some measurements of a job, checked."""
        y = job.y[rows].to(pipeline.device)
        return checked(y, job.physics, self.sigma, data_shape(pipeline), pipeline.config.view.bounds)


def of_samples(
    pipeline: Pipeline, x: Float[Tensor, "n c *space"], operator: Operator, sigma: float | None, scale: float | None
) -> Task:
    """Samples on a scale of their own, measured synthetically; `scale`: what they are multiplied by, None for 1.

    Raises:
        ValueError: another shape than the model's, values that are not normalised as its data, or noise that is not
            said where the run does not tell its data's range.
    """
    shape = data_shape(pipeline)
    x = check_shape(x, shape) * (scale or 1.0)
    check_values(pipeline, shape, x, scale is not None)
    _check_contrast(pipeline, x, scale is not None)
    sigma = _sigma(pipeline, shape, sigma)
    physics = operator.build(shape, sigma, pipeline.device)
    low, high = pipeline.config.view.bounds or (0.0, 1.0)
    assert isinstance(physics, deepinv.physics.LinearPhysics)
    with torch.no_grad():
        y = torch.cat([physics((one.to(pipeline.device) - low) / (high - low)) for one in x.split(1)])
    note = f"measured synthetically, with noise of deviation {sigma:.3g}"
    return Task([Job(y, physics, x)], sigma, scale or 1.0, notes=(note,))


def of_measurements(
    pipeline: Pipeline, y: Float[Tensor, "..."], operator: Operator, sigma: float | None, scale: float | None
) -> Task:
    """What was measured, in the units of the data's own scale, of several samples or of one.

    Of inpainting and sensors it is NaN where nothing was.

    Raises:
        ValueError: the operator makes measurements of another shape, the noise is not known, or nothing is unknown.
    """
    if sigma is None:
        raise ValueError("sigma: got none, expected --sigma, the deviation of the noise in what was measured")
    shape, device, y = data_shape(pipeline), pipeline.device, y * (scale or 1.0)
    low, high = pipeline.config.view.bounds or (0.0, 1.0)
    physics = operator.build(shape, sigma, device)
    with torch.no_grad():
        black = physics.A(torch.ones(1, *shape, device=device)).cpu()
    given, y = tuple(y.shape), _as_many(y, tuple(black.shape[1:]))
    if tuple(y.shape[1:]) != tuple(black.shape[1:]):
        raise ValueError(
            f"scan: got measurements of shape {given}, expected [n, {', '.join(map(str, black.shape[1:]))}], "
            f"which {type(operator).__name__} makes of samples of {shape}"
        )
    places = isinstance(operator, Inpainting | Sensors)
    means = y if places else torch.where(black > black.max() / 2, y / black, torch.nan)
    check_values(pipeline, shape, means, scale is not None, noise=2 * sigma * (high - low))
    if not places:
        return Task([Job((y - low * black) / (high - low), physics)], sigma, scale or 1.0)
    jobs = list[Job]()
    for one in y.split(1):
        known = ~one.isnan()
        if bool(known.all()) or not bool(known.any()):
            raise ValueError("scan: got an array that is known everywhere or nowhere, expected NaN at what is unknown")
        noise: Any = deepinv.physics.GaussianNoise(sigma)
        here = deepinv.physics.Inpainting(
            cast("Any", shape), known.float().to(device), noise_model=noise, device=device
        )
        jobs.append(Job(torch.where(known, (one - low) / (high - low), 0), here))
    return Task(jobs, sigma, scale or 1.0)


def _as_many(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Tensors of `shape`, `(c, ...)`, one behind the other: of one, or of such without `c` where that is 1."""
    given, axes = tuple(x.shape), len(shape)
    if shape[0] == 1 and given[-axes + 1 :] == shape[1:] and given != shape and len(given) <= axes:
        return x.reshape(-1, *shape)
    return x[None] if x.ndim == axes else x


def check_shape(x: Tensor, shape: tuple[int, ...]) -> Float[Tensor, "n c *space"]:
    """Samples `[n c *space]`, from such without `c`, where it is 1, or without `n`.

    Raises:
        ValueError: they are of another shape, or hold NaN or infinity.
    """
    given, axes = tuple(x.shape), len(shape)
    if not x.numel():
        raise ValueError(f"scan: got shape {given}, in which there is nothing, expected samples of {shape}")
    x = _as_many(x, shape)
    if x.ndim != axes + 1 or tuple(x.shape[2:]) != shape[1:]:
        raise ValueError(f"scan: got shape {given}, expected [n, {', '.join(map(str, shape))}], as the model's samples")
    if x.shape[1] != shape[0]:
        raise ValueError(f"scan: got {x.shape[1]} channels, expected the model's {shape[0]}")
    if not bool(x.isfinite().all()):
        raise ValueError(
            "scan: got NaN or infinity, expected finite values; inpainting and sensors take NaN as unknown"
        )
    return x.float()


def check_values(
    pipeline: Pipeline, shape: tuple[int, ...], x: Float[Tensor, "n c *space"], said: bool, noise: float = 0.0
) -> None:
    """Refuse values that are not normalised as the data that the model was trained on, as the run's statistics tell.

    `shape`: of the model's samples. `said`: the scale was given, and values that are all alike are meant so. `noise`:
    its deviation in them. NaN is passed over.

    Raises:
        ValueError: they leave the data's range or fill hardly any of it.
    """
    known = x[~x.isnan()]
    if not known.numel():
        return
    least, most = float(known.min()), float(known.max())
    more = "as the data that the model was trained on; --scale NUMBER multiplies what is given"
    if (bounds := pipeline.config.view.bounds) is not None:
        low, high = bounds
        first, last = _extent(pipeline, shape, low, high)
        beyond = BEYOND * (high - low) + 4 * noise
        if least < first - beyond or most > last + beyond or (most - least < LEAST * (high - low) and not said):
            got = f"scan: got values from {least:.4g} to {most:.4g}"
            within = "" if (first, last) == bounds else f" and lie within {first:g} to {last:g}"
            raise ValueError(f"{got}, expected ones that fill {low:g} to {high:g}{within}, {more}")
    elif (typical := pipeline.codec.typical(shape)) is not None:
        shift, scale = (x.new_tensor(each).reshape(-1, *(1,) * (x.ndim - 2)) for each in typical)
        z = (x - shift) / scale
        z = z[~z.isnan()]
        mean, deviation = float(z.mean()), float(z.std())
        if abs(mean) > FAR or deviation > FAR or (deviation < 1 / FAR and not said):
            got = f"scan: got values of mean {float(known.mean()):.4g} and deviation {float(known.std()):.4g}"
            about, wide = (" ".join(f"{v:.4g}" for v in each) for each in typical)
            raise ValueError(f"{got}, expected about {about} and {wide} (of each channel), {more}")


def _check_contrast(pipeline: Pipeline, x: Float[Tensor, "n c *space"], said: bool) -> None:
    """Refuse samples none of which has half of the contrast that nearly all training samples have."""
    usual, each = pipeline.config.contrast, x.flatten(1)
    most = float((each.amax(1) - each.amin(1)).max())
    if usual is not None and most < DARK * usual and not said:
        raise ValueError(
            f"scan: got samples whose values are {most:.4g} apart at most, expected about {usual:.4g} or more, as in "
            "what the model was trained on; --scale NUMBER multiplies what is given, and --scale 1 takes it as it is"
        )


def _extent(pipeline: Pipeline, shape: tuple[int, ...], low: float, high: float) -> tuple[float, float]:
    """Between what the data lie: the bounds, or beyond them, where these are a window in which data are only looked at.

    What lies between bounds varies by `(high - mean) * (mean - low)` at most (Bhatia and Davis 2000).
    """
    means, deviations = pipeline.codec.typical(shape) or ((), ())
    each = [*zip(means, deviations, strict=True)]
    if all(deviation**2 <= 1.01 * (high - mean) * (mean - low) for mean, deviation in each):
        return low, high
    return min(low, *(mean - FAR * d for mean, d in each)), max(high, *(mean + FAR * d for mean, d in each))


def _sigma(pipeline: Pipeline, shape: tuple[int, ...], sigma: float | None) -> float:
    """The deviation that is given, else a part of the range or of the deviation of the data."""
    if sigma is not None or pipeline.config.view.bounds is not None:
        return SIGMA if sigma is None else sigma
    if (typical := pipeline.codec.typical(shape)) is None:
        raise ValueError("sigma: got none, and the run says nothing of its data's range; expected --sigma NUMBER")
    return SIGMA * sum(typical[1]) / len(typical[1])
