"""A whole turbulent flow from few sensors, or from means over blocks: rows for benchmarks/reconstruct.py.

Beside interpolation (cubic, over the periodic square) and proper orthogonal decomposition: the modes of the training
states, each weighted by its energy, which is the best estimate that is linear in what was measured.
"""

import time
from collections.abc import Callable
from math import log
from pathlib import Path

import numpy as np
import torch
from modality import trained
from scipy.interpolate import griddata
from torch import Tensor

from anydit.data import Fields, FieldView
from anydit.diffusion.multistep import SDE
from anydit.diffusion.times import LogSNR
from anydit.evaluate.own.fields import axes_of, spectrum
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inverse.corrections import MomentMatching
from anydit.inverse.measurement import Measurement, checked
from anydit.inverse.operators import Operator, Sensors, SuperResolution
from anydit.inverse.reconstruct import Reconstruction, reconstruct
from anydit.recipes.fields import flow

COUNT, SAMPLES = 4, 39
"""Held-out states, and samples of each."""

SAMPLING = Sampling(sampler=SDE(), steps=10, grid=LogSNR(low=log(1 / 20), high=log(1 / 0.05)))
"""From where something of a state shows to the noise of the measurements."""

NOISE = 0.05
"""Deviation of the noise on every measurement, in deviations of the velocity."""

HEAD = ["problem", "method", "error", "spectrum", "residual", "calls", "seconds"]
"""`error`: root mean square, in deviations of the velocity. `spectrum`: its largest relative error up to half of
Nyquist's wavenumber, beside that of the true states."""

ABOUT = f"""\
A whole turbulent flow (32x32, two velocities) from points, or means over blocks, with noise of {100 * NOISE:g} % of its
deviation: {COUNT} states of trajectories that no model saw. Errors are root mean squares in deviations of the velocity;
spectrum: the largest relative error of the energy up to half of Nyquist's wavenumber. Modes (POD) are all of the
training states, each weighted by its energy: what is best of all that is linear. Below, how often the truth lies in
intervals of so many percent."""

LEVELS = (0.5, 0.8, 0.95)
PROBLEMS: dict[str, Operator] = {"sensors, 5 %": Sensors(share=0.05), "means over 4 x 4": SuperResolution(factor=4)}


def interpolated(measured: Measurement) -> Tensor:
    """A surface through the measurements, drawn over three by three copies of the square."""
    physics, y = measured.physics, measured.y
    if y.shape[2:] == physics.A_adjoint(y).shape[2:]:
        rows, columns = (physics.mask[0, 0] > 0).nonzero(as_tuple=True)  # pyright: ignore
        values, size = y[:, :, rows, columns], y.shape[2:]
    else:
        factor = physics.factor  # pyright: ignore[reportAttributeAccessIssue]
        rows, columns = (torch.cartesian_prod(*(torch.arange(n) for n in y.shape[2:])) + 0.5).T * factor - 0.5
        values, size = y.flatten(2), tuple(factor * n for n in y.shape[2:])
    places = torch.stack([rows, columns], 1).double()
    around = [torch.tensor([i * size[0], j * size[1]]) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    tiled = torch.cat([places + shift for shift in around]).numpy()
    grid = tuple(np.mgrid[: size[0], : size[1]])
    found = [griddata(tiled, np.tile(v.numpy(), 9), grid, "cubic") for v in values.flatten(0, 1)]
    return torch.from_numpy(np.stack(found)).float().unflatten(0, values.shape[:2])


def by_modes(states: Tensor, measured: Measurement) -> Tensor:
    """The mean given the measurements, if states were normal with the training states' mean and covariance."""
    mean, shape = states.mean(0), states.shape[1:]
    _, energy, modes = torch.linalg.svd((states - mean).flatten(1), full_matrices=False)
    scaled = (modes * (energy / len(states) ** 0.5)[:, None]).reshape(-1, *shape)
    seen = measured.physics.A(scaled).flatten(1)
    off = (measured.y - measured.physics.A(mean[None])).flatten(1)
    normal = seen @ seen.T + measured.sigma**2 * torch.eye(len(seen))
    weights = torch.linalg.solve(normal, (off @ seen.T).T).T
    return mean + torch.tensordot(weights, scaled, 1)


def of_flow(runs: Path) -> list[tuple[list[str], list[list[object]]]]:
    """Head and rows of two tables on both problems: errors, and how often the truth lies in intervals of 39 samples."""
    recipe = flow()
    assert isinstance(recipe.data, Fields)
    pipeline = trained(recipe, runs / "flow").pipeline
    held_out, train = recipe.data.open("held_out"), recipe.data.open("train")
    truth = held_out.read(torch.arange(COUNT) * len(held_out) // COUNT).x
    states = train.read(torch.arange(0, len(train), 2)).x
    rows, shares = list[list[object]](), list[list[object]]()
    for name, operator in PROBLEMS.items():
        sigma = NOISE * float(states.std())
        physics = operator.build(tuple(truth.shape[1:]), sigma)
        measured = checked(physics(truth), physics, sigma, tuple(truth.shape[1:]), None)
        of_it, found = _rows(name, pipeline, measured, states, truth)
        rows += of_it
        shares.append([name, *(100 * float(found.coverage(truth, level).mean()) for level in LEVELS)])
    return [(HEAD, rows), (["problem", *(f"{100 * level:g} %" for level in LEVELS)], shares)]


def _rows(
    name: str, pipeline: Pipeline, measured: Measurement, states: Tensor, truth: Tensor
) -> tuple[list[list[object]], Reconstruction]:
    """One problem's rows, and our samples."""
    view, scale = pipeline.config.view, states.transpose(0, 1).flatten(1).std(1)
    assert isinstance(view, FieldView)
    axes, rows = axes_of(view, 2), list[list[object]]()

    def row(method: str, x: Tensor, seconds: float, calls: int, drawn: Tensor | None = None) -> None:
        got, right = (spectrum(some, axes, scale) for some in (x if drawn is None else drawn, truth))
        worst = float((got.energy / right.energy - 1)[: right.half].abs().max())
        error = float(((x - truth) / scale[:, None, None]).square().mean().sqrt())
        of_it = x if drawn is None else drawn
        residual = float(measured.rows(torch.arange(len(of_it)) % COUNT).residual(of_it).mean())
        rows.append([name, method, error, worst, residual, calls, seconds / COUNT])
        print(*(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in rows[-1]), sep=" | ", flush=True)

    for method, find in (("interpolation", interpolated), ("modes (POD)", lambda m: by_modes(states, m))):
        x, seconds = _timed(lambda find=find: find(measured))
        row(method, x, seconds, 0)
    for count in (1, SAMPLES):
        found, seconds = _timed(lambda count=count: reconstruct(
            pipeline, measured.y, measured.physics, how=MomentMatching(3), samples=count, sigma=measured.sigma,
            sampling=SAMPLING,
        ))  # fmt: skip
        title = "MomentMatching, 1 sample" if count == 1 else f"MomentMatching, mean of {count}, spectrum of each"
        row(title, found.mean, seconds, count * found.calls, found.samples.flatten(0, 1))
    return rows, found


def _timed(find: Callable[[], Tensor | Reconstruction]) -> tuple[Tensor | Reconstruction, float]:
    began = time.perf_counter()
    return find(), time.perf_counter() - began
