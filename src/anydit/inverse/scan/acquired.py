"""From k-space to measurements with their physics, on the model's scale and along its axes."""

from dataclasses import dataclass
from math import prod

import deepinv
import torch
from jaxtyping import Complex
from torch import Tensor

from anydit.inference.pipeline import Pipeline
from anydit.inverse.operators import MRI, Operator, check_complex
from anydit.inverse.reconstruct import data_shape
from anydit.inverse.scan import kspace as ks
from anydit.inverse.scan.grid import Grid
from anydit.inverse.scan.kspace import KSpace
from anydit.inverse.scan.place import Fit
from anydit.inverse.scan.task import Job, Task

BESIDE = 10.0
"""How many times as bright or as dark as the data the images are that k-space shows by a scale that is given."""

LEAST_NOISE = 1e-4
"""The deviation that noise found in k-space has at least, of 1 between black and white."""


def of_kspace(
    pipeline: Pipeline,
    k: KSpace,
    operator: Operator,
    sigma: float | None,
    scale: float | None,
    maps: Complex[Tensor, "n coils *space"] | None = None,
    *,
    measured: bool = False,
) -> Task:
    """k-space of any scale; what is whole is undersampled as the operator says, and the whole is the truth.

    `measured`: all of it is used, as a measurement whose truth is not known.

    It comes to the spacing and the axes of the model's data, where those are known. `maps`: of coils; None takes those
    that the middle of k-space shows.

    Raises:
        ValueError: the operator is not MRI, the model's samples are neither real nor complex, of another plane or
            larger than what k-space shows, maps are of another shape, not finite or all 0, or the scale makes it far
            brighter or darker than the data.
    """
    if not isinstance(operator, MRI):
        raise ValueError(f"physics: got {type(operator).__name__} and complex k-space, expected mri")
    shape = data_shape(pipeline)
    check_complex(shape)
    fit = Fit.of(Grid.of(pipeline.config.view, shape[1:]), k.place, tuple(k.mask.shape))
    own, level = (shape[0], *fit.turn.own(shape[1:])), None if sigma is not None else ks.noise_of(k)
    level = level and level * (prod(fit.size) / k.mask.numel()) ** 0.5
    _check_maps(maps, k)
    k, maps = ks.respaced(k, fit.size), None if maps is None else ks.maps_respaced(maps, fit.size)
    place = k.place and k.place.narrowed(k.mask.shape, own[1:])
    k, truth, note = _used(ks.narrowed(k, own[1:]), operator, own[1:], measured)
    alone = maps is None and shape[0] == 2 and k.y.shape[1] == 1
    maps = None if alone else _coils(k, maps, real=shape[0] == 1)
    scaling = _scaling(pipeline, shape, k, scale, sigma, level)
    noise, jobs = deepinv.physics.GaussianNoise(scaling.sigma), list[Job]()
    for i in range(len(k.y)):
        coils = None if maps is None else maps[min(i, len(maps) - 1)]
        physics = ks.physics_of(k, coils, own, noise, fit.turn).to(pipeline.device)
        y = ks.parts(scaling.unit * k.y[i : i + 1], alone)
        if scaling.zero:
            y = y + physics.A(torch.full((1, *shape), scaling.zero, device=pipeline.device)).cpu()
        known = None if truth is None or shape[0] != 1 else fit.turn.forth(truth[i : i + 1])
        jobs.append(Job(y, physics, None if known is None else scaling.black + scaling.scale * known))
    notes = (note, *fit.notes, *scaling.notes)
    return Task(jobs, scaling.sigma, scaling.scale, scaling.black, place, fit.turn, len(shape) == 3, notes)


@dataclass(frozen=True)
class Scaling:
    """How images of k-space come to the model's scale, and the noise's deviation, of 1 from the bounds' low to high.

    `unit`: what k-space is multiplied by for the physics' scale, on which `zero` is where there is no signal.
    """

    scale: float
    black: float
    unit: float
    zero: float
    sigma: float
    notes: tuple[str, ...]


def _scaling(
    pipeline: Pipeline, shape: tuple[int, ...], k: KSpace, scale: float | None, sigma: float | None,
    level: float | None,
) -> Scaling:  # fmt: skip
    """What is given, or where it is not what k-space tells; `level`: of its noise, found or measured."""
    low, high = pipeline.config.view.bounds or (0.0, 1.0)
    black, notes = low if shape[0] == 1 else 0.0, list[str]()
    white = _white(pipeline, shape, black)
    if scale is None:
        scale = white / ks.brightness(k)
        notes.append(f"scale {scale:.4g}, by which the brightest of what k-space shows is the model's white")
    elif white > 0 and not white / BESIDE <= (bright := scale * ks.brightness(k)) <= BESIDE * white:
        raise ValueError(
            f"scale: got {scale:g}, by which the brightest of what k-space shows is {bright:.4g}, expected about "
            f"{white:.4g}, as in training: none, which is then found from k-space, or "
            f"about {scale * white / max(bright, 1e-30):.4g}"
        )
    unit = scale / (high - low)
    if sigma is None:
        sigma = max((level or 0.0) * unit, LEAST_NOISE * white / (high - low))
        whence = "as it was measured" if k.noise is not None else "at most, from the outermost frequencies"
        notes.append(f"noise of deviation {sigma:.3g}, {whence}")
    return Scaling(scale, black, unit, (black - low) / (high - low), sigma, tuple(notes))


def _used(k: KSpace, operator: MRI, size: tuple[int, ...], measured: bool) -> tuple[KSpace, Tensor | None, str]:
    """What of k-space is used, the truth of that size if it is known, and a sentence on it."""
    truth = k.truth if k.truth is not None and k.truth.shape[2:] == size else None
    if k.whole and operator.acceleration > 1 and not measured:
        truth = ks.middle(ks.together(k.y), size)
        k = ks.undersampled(k, operator)
        return k, truth, f"k-space is whole: a share of {_measured(k):.3g} of it is used, the whole is the truth"
    if not k.whole:
        return k, truth, f"a share of {_measured(k):.3g} of k-space was measured; the acceleration has no part in it"
    return k, truth, "k-space is whole, and all of it is used"


def _coils(
    k: KSpace, maps: Complex[Tensor, "m coils *larger"] | None, *, real: bool
) -> Complex[Tensor, "n coils *space"]:
    """What coils see: maps of a person, normalised, with the image's phase where samples are real, or the middle's."""
    if maps is None:
        return ks.maps_of(k)
    maps = ks.normalised(ks.middle(maps, tuple(k.mask.shape)))
    return ks.phased(maps, k) if real else maps


def _check_maps(maps: Tensor | None, k: KSpace) -> None:
    """Refuse maps that are not of the coils and of the size of k-space as it came, and such as show nothing."""
    if maps is None:
        return
    if maps.shape[1:] != k.y.shape[1:] or len(maps) not in (1, len(k.y)):
        expected = f"[{len(k.y)}, {', '.join(map(str, k.y.shape[1:]))}], or 1 for all slices, as k-space is"
        raise ValueError(f"coil-maps: got shape {tuple(maps.shape)}, expected {expected}")
    if not bool(torch.view_as_real(maps.resolve_conj()).isfinite().all()):
        raise ValueError("coil-maps: got NaN or infinity, expected finite values, and 0 where coils see nothing")
    if not bool((maps != 0).any()):
        raise ValueError("coil-maps: got zeros alone, expected that coils see something")


def _measured(k: KSpace) -> float:
    return float(k.mask.float().mean())


def _white(pipeline: Pipeline, shape: tuple[int, ...], black: float) -> float:
    """How far from black to white the model's data are; without bounds twice their deviation above their mean."""
    if (bounds := pipeline.config.view.bounds) is not None:
        return bounds[1] - black
    if (typical := pipeline.codec.typical(shape)) is not None:
        return typical[0][0] + 2 * typical[1][0]
    raise ValueError("scale: got none, and the run says nothing of its data's range; expected --scale NUMBER")
