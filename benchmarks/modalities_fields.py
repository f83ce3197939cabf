"""Fields: a turbulent flow, drawn at a Reynolds number, made finer, and forecast, each beside what is trivial.

    python benchmarks/modalities_fields.py [--only flow | fine | states] [--gpu] [--runs FOLDER]

Trains each recipe as it is. The forecast stands beside persistence, beside the same network trained for as many steps
to say the next state at once, without noise, and beside the solver itself, started from the same state and stirred
otherwise, which nothing can beat: in the spectrum, too, that is how far apart so few states are by chance. Figures are
of trajectories that no model saw.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from modality import Trained, page, trained
from PIL.Image import Image
from results import picture, table
from torch import Tensor

from anydit.data import FieldView, Turbulence
from anydit.diffusion.losses import Plain
from anydit.diffusion.samplers import Euler
from anydit.diffusion.times import Discrete
from anydit.evaluate.distances import crps
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.own import own
from anydit.evaluate.own.fields import axes_of, spectrum
from anydit.evaluate.own.forecast import forecast
from anydit.evaluate.sets import opened, spread
from anydit.inference.config import Sampling
from anydit.recipes.fields import flow, flow_fine, flow_forecast, flow_gpu
from anydit.train.recipe import Recipe

LEADS, STARTS, MEMBERS = 20, 160, 4
"""States ahead, forecasts that begin at different times, and members of each ensemble."""

SHOWN = (1, 5, 10, 20)
"""States ahead that are drawn, and whose energy is told by wavenumber."""

STATES, DRAWN = 512, ("spectrum", "divergence", "vorticity")
"""States that are drawn at a Reynolds number, and what is told of them."""

ABOUT = (
    f"The flow's forecast, of {STARTS} starts and {MEMBERS} members; errors are in deviations of the velocity.\n"
    "Spectrum: the largest error of the energy at a wavenumber up to half of Nyquist's, as a share; the solver's is\n"
    f"what chance makes of {STARTS} starts."
)

WAVES = "The error of the energy by wavenumber, as a share of the true states', of which there are as many:"

LOOK = "Both velocities of one start's states ahead, the first member of each ensemble:"


def deterministic(recipe: Recipe) -> Recipe:
    """The same network, trained as long to say what comes on average: from pure noise, in one step."""
    once = replace(recipe.train, times=Discrete(1), weight=Plain())
    return replace(recipe, train=once, sampling=Sampling(sampler=Euler(), steps=1))


def drawn(done: Trained) -> list[list[object]]:
    """States at a Reynolds number, beside white noise with the deviation of each velocity."""
    figures = evaluate(done.pipeline, done.recipe.data, samples=STATES).figures
    sets = opened(done.pipeline, done.recipe.data, STATES)
    x = sets.read_train(spread(len(sets.train), STATES))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * _scale(x)
    trivial = own(sets.view, noise, sets).figures
    which = "white noise of its deviation"
    return [_row(done, f.title, f.samples, f.floor, trivial[name].samples, which)
            for name, f in ((name, figures[name]) for name in DRAWN)]  # fmt: skip


def finer(done: Trained) -> list[object]:
    """The flow given its means over blocks: CRPS, beside that of the means as they are."""
    held = done.recipe.data.open("held_out")
    batch = held.read(torch.arange(STARTS) * len(held) // STARTS)
    scale = _scale(batch.x)
    coarse = batch.tensor("coarse")
    members = torch.stack([done.pipeline.sample(STARTS, {"coarse": coarse}, seed=seed) for seed in range(MEMBERS)])
    ours, still = crps(members / scale, batch.x / scale).mean(), ((coarse - batch.x) / scale).abs().mean()
    return _row(done, "CRPS, in deviations", float(ours), "-", float(still), "the means over blocks")


@dataclass(frozen=True)
class Starts:
    """Where forecasts begin, in trajectories that no model saw: what is known, what came, the Reynolds number."""

    past: Tensor
    truth: Tensor
    reynolds: Tensor
    scale: Tensor


def starts(data: Turbulence) -> Starts:
    """Some, evenly spread."""
    held = replace(data, future=LEADS, numbers=("reynolds",)).open("held_out")
    batch = held.read(torch.arange(STARTS) * len(held) // STARTS)
    truth = batch.x.unflatten(1, (LEADS, -1))
    return Starts(batch.tensor("past"), truth, batch.tensor("numbers")[:, 0], _scale(truth.flatten(0, 1)))


def solved(data: Turbulence, at: Starts) -> Tensor:
    """An ensemble of the solver itself, stirred otherwise, from the last state known: nothing can do better."""
    flow, out = data.flow(at.reynolds), []
    for member in range(MEMBERS):
        w = flow.vorticity(at.past[:, -at.truth.shape[2] :])
        states = flow.run(w, data.interval * data.stride, LEADS, seed=10**6 + member)
        out.append(torch.stack([flow.velocity(later, data.size[0]) for later in states], dim=1))
    return torch.stack(out)


def forecasts(done: Trained, other: Trained, name: str) -> tuple[list[object], str]:
    """The row; a table by state ahead, one by wavenumber, and a picture, NAME.png."""
    data, view = done.recipe.data, done.pipeline.config.view
    assert isinstance(data, Turbulence)
    assert isinstance(view, FieldView)
    at = starts(data)
    deviations = at.scale.flatten()
    told = {"numbers": at.reynolds[:, None]}
    ours = forecast(done.pipeline, at.past, at.truth, deviations, MEMBERS, cond=told)
    theirs = forecast(other.pipeline, at.past, at.truth, deviations, 1, cond=told)
    every = {"anydit": ours.members, "the solver": solved(data, at), "deterministic": theirs.members}
    best = crps(every["the solver"] / at.scale, at.truth / at.scale).transpose(0, 1).flatten(1).mean(1).tolist()
    rows, waves = list[list[object]](), list[list[object]]()
    for i in range(LEADS):
        truth = spectrum(at.truth[:, i], axes_of(view, 2), deviations)
        energies = [spectrum(some[:, :, i].flatten(0, 1), axes_of(view, 2), deviations) for some in every.values()]
        off = [(e.energy / truth.energy - 1)[: e.half] for e in energies]
        errors = [ours.crps[i], best[i], theirs.crps[i], ours.persistence[i]]
        rows.append([i + 1, *errors, ours.spread[i] / ours.error[i], *(float(each.abs().max()) for each in off)])
        if i + 1 in SHOWN:
            waves += [[i + 1, who, *each.tolist()] for who, each in zip(every, off, strict=True)]
    head = ["states ahead", "CRPS", "solver's", "deterministic", "persistence", "spread / error", "spectrum",
            "solver's spectrum", "deterministic's"]  # fmt: skip
    means = [fmean(each) for each in (ours.crps, best, ours.persistence)]
    row = _row(done, f"CRPS, mean of {LEADS} states ahead", *means, "persistence")
    by_wave = table(["states ahead", "forecast by", *map(str, range(1, len(waves[0]) - 1))], waves)
    shown = picture(name, _sheet(view, at.truth, every), "states ahead: true, and as each says")
    return row, "\n\n".join([table(head, rows), WAVES, by_wave, LOOK, shown])


def _sheet(view: FieldView, truth: Tensor, every: Mapping[str, Tensor]) -> Image:
    """The first start's states ahead: true ones, and those of one member of each ensemble."""
    lines = {"true": truth[0], **{who: members[0, 0] for who, members in every.items()}}
    states = torch.stack([line[i - 1] for line in lines.values() for i in SHOWN])
    return view.picture(states, [f"{who}, {i} ahead" for who in lines for i in SHOWN], columns=len(SHOWN))


def of_flow(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """States at a Reynolds number."""
    return drawn(trained(flow(), runs / "flow")), ""


def of_fine(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The flow made finer."""
    return [finer(trained(flow_fine(), runs / "flow-fine"))], ""


def rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The row of the table over all modalities, and the forecast by states ahead."""
    return _ahead(*_forecast(gpu), runs)


def of_states(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The same where networks draw states, not how each differs from the one before."""
    recipe, name = _forecast(gpu)
    alone = replace(recipe, change_of=None, sampling=flow().sampling)  # with fresh noise, which states need
    return _ahead(alone, f"{name}-states", runs)


def _forecast(gpu: bool) -> tuple[Recipe, str]:
    return (flow_gpu(), "flow-gpu") if gpu else (flow_forecast(), "flow-forecast")


def _ahead(recipe: Recipe, name: str, runs: Path) -> tuple[list[list[object]], str]:
    done = trained(recipe, runs / name)
    other = trained(deterministic(recipe), runs / f"{name}-deterministic")
    row, leads = forecasts(done, other, name)
    return [row], f"{ABOUT}\n\n{leads}"


def _row(done: Trained, figure: str, samples: float, held_out: object, trivial: float, which: str) -> list[object]:
    grid = "x".join(map(str, done.pipeline.config.model.size or ()))
    return done.row("field", f"turbulent flow {grid}", figure, samples, held_out, trivial, which)


def _scale(x: Tensor) -> Tensor:
    """Each channel's deviation, as it broadcasts."""
    return x.transpose(0, 1).flatten(1).std(1)[:, None, None]


if __name__ == "__main__":
    page(
        "fields",
        "A turbulent flow",
        __doc__,
        rows,
        {"flow": of_flow, "fine": of_fine, "states": of_states},
        gpu=["states"],
    )
