"""A whole turbulent flow from few sensors, or from means over blocks.

    python benchmarks/reconstruct_flow.py [--runs FOLDER] [--again METHOD ...]

Beside interpolation (cubic, over the periodic square) and proper orthogonal decomposition: the modes of the training
states, each weighted by its energy, which is the best estimate that is linear in what was measured.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import log
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from modality import THREADS, machine, trained
from results import Kept, options, publish, table
from scipy.interpolate import griddata
from torch import Tensor

from anydit.data import FieldView, Turbulence
from anydit.diffusion.multistep import SDE
from anydit.diffusion.times import LogSNR
from anydit.evaluate.own.fields import axes_of, spectrum
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inverse.corrections import AnyCorrection, Conditional, MomentMatching
from anydit.inverse.measured import MEASURED, Measured
from anydit.inverse.measurement import Measurement, checked
from anydit.inverse.operators import Operator, Sensors, SuperResolution
from anydit.inverse.reconstruct import Reconstruction, reconstruct
from anydit.model.conditioning import Field
from anydit.recipes.fields import flow
from anydit.train.recipe import Recipe

COUNT, SAMPLES = 12, 39
"""Held-out states, and samples of each."""

PRIOR, TOLD = "flow-longer", "flow-sensors"
"""The folders of the prior, and of the network that is told of the sensors."""

TRAJECTORIES, STEPS, STEPS_TOLD, BATCH = 400, 14_000, 8000, 16
"""How many flows they learn from, and how long they do."""

SAMPLING = Sampling(sampler=SDE(), steps=10, grid=LogSNR(low=log(1 / 20), high=log(1 / 0.05)))
"""From where something of a state shows to the noise of the measurements."""

NOISE = 0.05
"""Deviation of the noise on every measurement, in deviations of the velocity."""

HEAD = ["problem", "method", "error", "spectrum", "residual", "calls", "seconds"]

ABOUT = f"""\
A whole turbulent flow (32x32, two velocities) from points, or means over blocks, with noise of {100 * NOISE:g} % of its
deviation: {COUNT} states of trajectories that no model saw. Errors are root mean squares in deviations of the velocity.
Spectrum: the largest relative error of the energy up to half of Nyquist's wavenumber, beside the true states'; that of
moment matching is of single samples, since a mean loses what samples differ in. Modes (POD) are all of the training
states, each weighted by its energy: what is best of all that is linear. The prior is the recipe `flow`, trained on
{TRAJECTORIES} trajectories for {STEPS} steps of {BATCH}, which took {{prior:.0f}} minutes. The DiT that is told has its
network, and was trained for these very sensors and this noise alone, in {STEPS_TOLD} steps ({{told:.0f}} minutes)."""

BY_WAVENUMBER = """\
The energy by wavenumber, as a share of that of the true states; of these and of the prior's own samples, which know of
no measurement, as a share of that of all held-out states. What samples lack of small eddies, the prior's lack, too:"""

SURENESS = "How often the truth lies in intervals of so many percent:"

LEVELS = (0.5, 0.8, 0.95)
T = TypeVar("T")

SENSORS = Sensors(share=0.05, seed=1)
"""Where those are that `Measured` trains on."""

PROBLEMS: dict[str, Operator] = {"sensors, 5 %": SENSORS, "means over 4 x 4": SuperResolution(factor=4)}


def prior() -> Recipe:
    """The recipe, trained longer on more flows: after its own steps samples lack a third of small eddies' energy."""
    recipe = flow()
    assert isinstance(recipe.data, Turbulence)
    longer = replace(recipe.train, steps=STEPS, batch=BATCH, ema_decay=0.999, sample_every=STEPS, save_every=1000)
    return replace(recipe, data=replace(recipe.data, trajectories=TRAJECTORIES), train=longer)


def told(sigma: float) -> Recipe:
    """The same given what the sensors show, with noise of that deviation."""
    recipe = prior()
    conditions = {**recipe.model.conditions, MEASURED: Field(coded=True)}
    data = Measured(data=recipe.data, operator=SENSORS, sigma=sigma)
    shorter = replace(recipe.train, steps=STEPS_TOLD)
    return replace(recipe, data=data, model=replace(recipe.model, conditions=conditions), train=shorter)


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


@dataclass(frozen=True)
class Problem:
    """True states, what was measured of them, and what is found beside them; `scale`: deviations of the velocities."""

    name: str
    pipeline: Pipeline
    truth: Tensor
    measured: Measurement
    scale: Tensor
    how: AnyCorrection

    @cached_property
    def drawn(self) -> tuple[Reconstruction, float]:
        """Samples, and how many seconds they took."""
        return _timed(lambda: self.draw(SAMPLES))

    def draw(self, count: int) -> Reconstruction:
        """So many samples of each state."""
        y, physics, sigma = self.measured.y, self.measured.physics, self.measured.sigma
        return reconstruct(self.pipeline, y, physics, how=self.how, samples=count, sigma=sigma, sampling=SAMPLING)

    def shares(self, x: Tensor, beside: Tensor) -> list[float]:
        """Energies of states as shares of others', for each wavenumber up to half of Nyquist's."""
        view = self.pipeline.config.view
        assert isinstance(view, FieldView)
        got, right = (spectrum(some, axes_of(view, 2), self.scale) for some in (x, beside))
        return (got.energy / right.energy)[: right.half].tolist()

    def figures(self, x: Tensor, seconds: float, calls: int, each: Tensor | None = None) -> list[object]:
        """Of a method's answer; `each`: of samples, whose mean it is."""
        each = x if each is None else each
        error = float(((x - self.truth) / self.scale[:, None, None]).square().mean().sqrt())
        worst = max(abs(share - 1) for share in self.shares(each, self.truth))
        residual = float(self.measured.rows(torch.arange(len(each)) % COUNT).residual(each).mean())
        cells = [error, worst, residual, calls, seconds / COUNT]
        print(self.name, *(f"{cell:.4g}" for cell in cells), sep=" | ", flush=True)
        return cells

    def by(self, find: Callable[[Measurement], Tensor]) -> list[object]:
        """A method's figures."""
        return self.figures(*_timed(lambda: find(self.measured)), 0)

    def sampled(self, count: int) -> list[object]:
        """Those of the mean of so many samples, and of the samples."""
        found, seconds = self.drawn if count == SAMPLES else _timed(lambda: self.draw(count))
        return self.figures(found.mean, seconds, count * found.calls, found.samples.flatten(0, 1))

    def coverage(self) -> list[object]:
        """How often the truth lies in intervals of the samples."""
        return [100 * float(self.drawn[0].coverage(self.truth, level).mean()) for level in LEVELS]


def parts(runs: Path, again: Sequence[str]) -> list[str]:
    """What the page says: errors, energies by wavenumber, and how often the truth lies in intervals.

    Rows are kept in `runs`; `again`: those of methods to be found anew.
    """
    recipe = prior()
    done = trained(recipe, runs / PRIOR)
    held_out, train = recipe.data.open("held_out"), recipe.data.open("train")
    truth = held_out.read(torch.arange(COUNT) * len(held_out) // COUNT).x
    states, others = (part.read(torch.arange(0, len(part), 2)).x for part in (train, held_out))
    scale, sigma = states.transpose(0, 1).flatten(1).std(1), NOISE * float(states.std())
    informed = trained(told(sigma), runs / TOLD)
    kept = [Kept.of(runs / f"{PRIOR}{name}.json", again) for name in ("", "-energies", "-coverage")]
    rows, energies, sure = list[list[object]](), list[list[object]](), list[list[object]]()
    for name, operator in PROBLEMS.items():
        physics = operator.build(tuple(truth.shape[1:]), sigma)
        measured = checked(physics(truth), physics, sigma, tuple(truth.shape[1:]), None)
        one = Problem(name, done.pipeline, truth, measured, scale, MomentMatching())
        all_of_it = _methods(one, states)
        if operator is SENSORS:
            all_of_it |= _sampled(replace(one, pipeline=informed.pipeline, how=Conditional()), "DiT told")
        rows += [kept[0].row(name, method, find) for method, find in all_of_it.items()]
        energies += [kept[1].row(*which, find) for which, find in _energies(one, others).items()]
        sure.append(kept[2].row(name, "MomentMatching", one.coverage))
    waves = ["problem", "states", *map(str, range(1, len(energies[0]) - 1))]
    levels = ["problem", "method", *(f"{100 * level:g} %" for level in LEVELS)]
    about = ABOUT.format(prior=done.minutes, told=informed.minutes)
    tables = (about, HEAD, rows), (BY_WAVENUMBER, waves, energies), (SURENESS, levels, sure)
    return [*(f"{above}\n\n{table(head, some)}" for above, head, some in tables), machine(THREADS)]


def _methods(one: Problem, states: Tensor) -> dict[str, Callable[[], list[object]]]:
    """Figures of all that is tried; `states`: those of training."""
    return {
        "interpolation": partial(one.by, interpolated),
        "modes (POD)": partial(one.by, partial(by_modes, states)),
        **_sampled(one, "MomentMatching"),
    }


def _sampled(one: Problem, name: str) -> dict[str, Callable[[], list[object]]]:
    """Of samples, and of their mean."""
    return {f"{name}, a sample": partial(one.sampled, 1), f"{name}, mean of {SAMPLES}": partial(one.sampled, SAMPLES)}


def _energies(one: Problem, others: Tensor) -> dict[tuple[str, str], Callable[[], list[float]]]:
    """Energies by wavenumber of samples and of their mean; `others`: all held-out states."""
    alone = {
        ("none", "true"): lambda: one.shares(one.truth, others),
        ("none", "the prior's samples"): lambda: one.shares(
            one.pipeline.sample(COUNT * SAMPLES, sampling=SAMPLING), others
        ),
    }
    of_it = {
        (one.name, "samples"): lambda: one.shares(one.drawn[0].samples.flatten(0, 1), one.truth),
        (one.name, f"mean of {SAMPLES}"): lambda: one.shares(one.drawn[0].mean, one.truth),
    }
    return (alone | of_it) if one.name == next(iter(PROBLEMS)) else of_it


def _timed(find: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return find(), time.perf_counter() - began


def main() -> None:
    """The page, of rows that were found before and of those that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    given = parser.parse_args()
    publish("reconstruct_flow", "A turbulent flow from few measurements", "\n\n".join(parts(given.runs, given.again)))


if __name__ == "__main__":
    main()
