"""From what a file holds to measurements with their physics, on the model's scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import deepinv
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from anydit.inference.pipeline import Pipeline
from anydit.inverse.measurement import Measurement, Physics, checked
from anydit.inverse.operators import MRI, Inpainting, Operator, Sensors, check_complex
from anydit.inverse.reconstruct import data_shape
from anydit.inverse.scan import kspace as ks
from anydit.inverse.scan.kspace import KSpace

SIGMA = 0.02
"""The noise's deviation where nothing is said: of 1 between the data's bounds, or of their own deviation."""

LEAST_NOISE = 1e-4
"""The deviation that noise found in k-space has at least, of 1 between black and white."""

LEAST, BEYOND, FAR = 0.1, 0.05, 10.0
"""The part of the model's range that values fill at least; by which they may leave it; deviations from the mean."""


@dataclass(frozen=True)
class Job:
    """Measurements `y[n ...]` by one physics, and of what on the data's own scale, if that is known."""

    y: Tensor
    physics: Physics
    truth: Float[Tensor, "n c *space"] | None = None


@dataclass(frozen=True)
class Task:
    """Jobs, the noise's deviation on their scale, and how a file's values come to the model's: `black + scale` times.

    `notes`: sentences on what was measured, found or assumed on the way.
    """

    jobs: Sequence[Job]
    sigma: float
    scale: float = 1.0
    black: float = 0.0
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
    sigma = _sigma(pipeline, shape, sigma)
    physics = operator.build(shape, sigma, pipeline.device)
    low, high = pipeline.config.view.bounds or (0.0, 1.0)
    assert isinstance(physics, deepinv.physics.LinearPhysics)
    with torch.no_grad():
        y = torch.cat([physics((one.to(pipeline.device) - low) / (high - low)) for one in x.split(1)])
    note = f"measured synthetically, with noise of deviation {sigma:.3g}"
    return Task([Job(y, physics, x)], sigma, scale or 1.0, notes=(note,))


def of_measurements(
    pipeline: Pipeline, y: Float[Tensor, "n ..."], operator: Operator, sigma: float | None, scale: float | None
) -> Task:
    """What was measured, in the units of the data's own scale; of inpainting and sensors NaN where nothing was.

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
    if tuple(y.shape[1:]) != tuple(black.shape[1:]):
        raise ValueError(
            f"scan: got measurements of shape {tuple(y.shape)}, expected [n, {', '.join(map(str, black.shape[1:]))}], "
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


def of_kspace(
    pipeline: Pipeline,
    k: KSpace,
    operator: Operator,
    sigma: float | None,
    scale: float | None,
    maps: Complex[Tensor, "n coils *space"] | None = None,
) -> Task:
    """k-space of any scale; what is whole is undersampled as the operator says, and the whole is the truth.

    `maps`: of coils; None takes those that the middle of k-space shows.

    Raises:
        ValueError: the operator is not MRI, the model's samples are neither real nor complex or larger than what
            k-space shows, or maps are of another shape.
    """
    if not isinstance(operator, MRI):
        raise ValueError(f"physics: got {type(operator).__name__} and complex k-space, expected mri")
    shape = data_shape(pipeline)
    check_complex(shape)
    _check_maps(maps, k)
    k, truth, note = _used(ks.narrowed(k, shape[1:]), operator, shape[1:])
    notes = [note]
    alone = maps is None and shape[0] == 2 and k.y.shape[1] == 1
    maps = None if alone else _coils(k, maps, real=shape[0] == 1)
    low, high = pipeline.config.view.bounds or (0.0, 1.0)
    black = low if shape[0] == 1 else 0.0
    white = _white(pipeline, shape, black)
    if scale is None:
        scale = white / ks.brightness(k)
        notes.append(f"scale {scale:.4g}, by which the brightest of what k-space shows is the model's white")
    unit = scale / (high - low)
    if sigma is None:
        sigma = max(ks.noise_of(k) * unit, LEAST_NOISE * white / (high - low))
        whence = "as it was measured" if k.noise is not None else "from the outermost frequencies"
        notes.append(f"noise of deviation {sigma:.3g}, {whence}")
    noise, jobs = deepinv.physics.GaussianNoise(sigma), list[Job]()
    for i in range(len(k.y)):
        own = None if maps is None else maps[min(i, len(maps) - 1)]
        physics = ks.physics_of(k, own, shape, noise).to(pipeline.device)
        y = ks.parts(unit * k.y[i : i + 1], alone)
        if black != low:
            y = y + physics.A(torch.full((1, *shape), (black - low) / (high - low), device=pipeline.device)).cpu()
        jobs.append(Job(y, physics, None if truth is None or shape[0] != 1 else black + scale * truth[i : i + 1]))
    return Task(jobs, sigma, scale, black, tuple(notes))


def _used(k: KSpace, operator: MRI, size: tuple[int, ...]) -> tuple[KSpace, Tensor | None, str]:
    """What of k-space is used, the truth of that size if it is known, and a sentence on it."""
    truth = k.truth if k.truth is not None and k.truth.shape[2:] == size else None
    if k.whole and operator.acceleration > 1:
        truth = ks.middle(ks.together(k.y), size)
        k = ks.undersampled(k, operator)
        return k, truth, f"k-space is whole: a share of {_measured(k):.3g} of it is used, the whole is the truth"
    if not k.whole:
        return k, truth, f"a share of {_measured(k):.3g} of k-space was measured; the acceleration has no part in it"
    return k, truth, "k-space is whole, and all of it is used"


def _coils(
    k: KSpace, maps: Complex[Tensor, "m coils *larger"] | None, *, real: bool
) -> Complex[Tensor, "n coils *space"]:
    """What coils see: maps of a person, with the image's phase where samples are real, or those of the middle."""
    if maps is None:
        return ks.maps_of(k)
    maps = ks.middle(maps, tuple(k.mask.shape))
    return ks.phased(maps, k) if real else maps


def _check_maps(maps: Tensor | None, k: KSpace) -> None:
    """Refuse maps that are not of the coils and of the size of k-space as it came."""
    if maps is not None and (maps.shape[1:] != k.y.shape[1:] or len(maps) not in (1, len(k.y))):
        expected = f"[{len(k.y)}, {', '.join(map(str, k.y.shape[1:]))}], or 1 for all slices, as k-space is"
        raise ValueError(f"coil-maps: got shape {tuple(maps.shape)}, expected {expected}")


def _measured(k: KSpace) -> float:
    return float(k.mask.float().mean())


def check_shape(x: Tensor, shape: tuple[int, ...]) -> Float[Tensor, "n c *space"]:
    """Samples `[n c *space]`, from such without `c`, where it is 1, or without `n`.

    Raises:
        ValueError: they are of another shape, or hold NaN or infinity.
    """
    given, axes = tuple(x.shape), len(shape)
    if x.ndim in (axes - 1, axes) and shape[0] == 1 and x.shape[-axes + 1 :] == shape[1:] and x.shape != shape:
        x = x.reshape(-1, *shape)
    x = x[None] if x.ndim == axes else x
    if x.ndim != axes + 1 or tuple(x.shape[2:]) != shape[1:]:
        raise ValueError(f"scan: got shape {given}, expected [n, {', '.join(map(str, shape))}], as the model's samples")
    if x.shape[1] != shape[0]:
        raise ValueError(f"scan: got {x.shape[1]} channels, expected the model's {shape[0]}")
    if not bool(x.isfinite().all()):
        raise ValueError("scan: got NaN or infinity, expected finite values; --measured takes NaN as unknown")
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
        beyond = BEYOND * (high - low) + 4 * noise
        if least < low - beyond or most > high + beyond or (most - least < LEAST * (high - low) and not said):
            got = f"scan: got values from {least:.4g} to {most:.4g}"
            raise ValueError(f"{got}, expected ones that fill {low:g} to {high:g}, {more}")
    elif (typical := pipeline.codec.typical(shape)) is not None:
        shift, scale = (x.new_tensor(each).reshape(-1, *(1,) * (x.ndim - 2)) for each in typical)
        z = (x - shift) / scale
        z = z[~z.isnan()]
        mean, deviation = float(z.mean()), float(z.std())
        if abs(mean) > FAR or deviation > FAR or (deviation < 1 / FAR and not said):
            got = f"scan: got values of mean {float(known.mean()):.4g} and deviation {float(known.std()):.4g}"
            about, wide = (" ".join(f"{v:.4g}" for v in each) for each in typical)
            raise ValueError(f"{got}, expected about {about} and {wide} (of each channel), {more}")


def _sigma(pipeline: Pipeline, shape: tuple[int, ...], sigma: float | None) -> float:
    """The deviation that is given, else a part of the range or of the deviation of the data."""
    if sigma is not None or pipeline.config.view.bounds is not None:
        return SIGMA if sigma is None else sigma
    if (typical := pipeline.codec.typical(shape)) is None:
        raise ValueError("sigma: got none, and the run says nothing of its data's range; expected --sigma NUMBER")
    return SIGMA * sum(typical[1]) / len(typical[1])


def _white(pipeline: Pipeline, shape: tuple[int, ...], black: float) -> float:
    """How far from black to white the model's data are; without bounds twice their deviation above their mean."""
    if (bounds := pipeline.config.view.bounds) is not None:
        return bounds[1] - black
    if (typical := pipeline.codec.typical(shape)) is not None:
        return typical[0][0] + 2 * typical[1][0]
    raise ValueError("scale: got none, and the run says nothing of its data's range; expected --scale NUMBER")
