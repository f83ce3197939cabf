"""Fields: energy by wavenumber, divergence, vorticity, values; and of ensembles CRPS and spread."""

from collections.abc import Sequence
from math import floor, prod
from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure as Plot
from PIL.Image import Image
from torch import Tensor

from anydit.data import Axis, FieldView
from anydit.evaluate.compare import Figure
from anydit.evaluate.distances import crps, units, wasserstein
from anydit.evaluate.own import Own, own
from anydit.evaluate.own.forecast import spread_and_error
from anydit.evaluate.own.gradients import along, closed, gradients, of_equal_area, unfit
from anydit.evaluate.pictures import rendered
from anydit.evaluate.sets import Sets, spread

REFERENCE = 2000
"""Training samples that are looked at, at most."""

PLOT = "Energy by wavenumber, in waves along the longest axis"
"""What is written under the plot of spectra."""


class Spectrum(NamedTuple):
    """Energy by wavenumber, in waves along the longest axis, from 1 on; `half` of them lie up to half of Nyquist's."""

    energy: Float[Tensor, " k"]
    half: int


@own.register
def _(view: FieldView, x: Float[Tensor, "n c *space"], sets: Sets) -> Own:
    train = sets.read_train(spread(len(sets.train), REFERENCE))
    states = [view.states(some).flatten(0, 1) for some in (x, sets.real.x, train)]
    space = states[0].shape[2:]
    axes = closed(axes_of(view, len(space)), space)
    scale = units(_by_variable(states[2]).std(1))
    spectra = [spectrum(some, axes, scale) for some in states]
    figures, notes = _spectrum_and_values(states, spectra, scale), list[str]()
    for vector in (found := vectors(view)):
        parts, name = [some[:, list(vector)] for some in states], named(view, vector)
        if why := unfit(axes, space, [view.units[i] for i in vector] if view.units else []):
            notes.append(f"Of {name} there is no divergence and no vorticity: {why}.")
        else:
            figures |= _of_vector(parts, axes, name if len(found) > 1 else "")
    if any(name in sets.real.cond for name in sets.train.facts.fields):
        figures |= _of_ensemble(x, sets, scale.repeat(x.shape[1] // len(scale)))
    return Own(figures, {PLOT: _plot([s.energy for s in spectra])}, tuple(notes))


def axes_of(view: FieldView, count: int) -> tuple[Axis, ...]:
    """The axes of space, or where the view has none so many with points 1 apart that end somewhere."""
    return view.axes or tuple(Axis(f"axis_{i}") for i in range(count))


def vectors(view: FieldView) -> list[tuple[int, ...]]:
    """The places among the variables of those that are a vector's components: u, v (w) or NAME_x, NAME_y (NAME_z).

    They are in the order of the axes that they are along.
    """
    names, axes = list(view.variables or ()), [axis.name for axis in view.axes or ()]
    first = {name.removesuffix(f"_{axes[0]}") for name in names if name.endswith(f"_{axes[0]}")} if axes else set[str]()
    wanted = [[f"{name}_{axis}" for axis in axes] for name in sorted(first)]
    wanted += [parts for parts in _along(view.axes or ()) if set(parts) <= set(names)][:1]
    return [tuple(map(names.index, parts)) for parts in wanted if set(parts) <= set(names)]


def named(view: FieldView, vector: Sequence[int]) -> str:
    """What a vector is called: by what its components' names begin with, else by all of them."""
    names = [(view.variables or ())[i] for i in vector]
    first = {name.rpartition("_")[0] for name in names}
    return min(first) if len(first) == 1 and min(first) else ", ".join(names)


def _along(axes: Sequence[Axis]) -> list[list[str]]:
    """Which of u, v (w) are along two or three axes, the likelier first: all by name, or the first by name or order."""
    if len(axes) not in (2, 3):
        return []
    named = [along(axis) for axis in axes]
    letters = "uvw"[: len(axes)]
    kept = [name if name and name in letters and named.count(name) == 1 else "" for name in named]
    left = iter([letter for letter in letters if letter not in kept])
    in_order = [name or next(left) for name in kept]
    return [named, in_order] if len(set(named)) == len(axes) else [in_order]


def spectrum(x: Float[Tensor, "n v *space"], axes: tuple[Axis, ...], scale: Float[Tensor, " v"]) -> Spectrum:
    """Mean energy of all variables, each in units of its scale, by wavenumber; open axes are faded out."""
    space, dims = x.shape[2:], tuple(range(2, x.ndim))
    x = (x - x.mean(dims, keepdim=True)).double() / scale.double().reshape(-1, *(1,) * len(dims))
    lengths = [n * abs(axis.step) for n, axis in zip(space, axes, strict=True)]
    square = torch.zeros(())
    for i, (n, axis) in enumerate(zip(space, axes, strict=True)):
        k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) * max(lengths) / lengths[i]
        square = square[..., None] + k**2
        if not axis.periodic:
            x = x * torch.hann_window(n + 2, periodic=False)[1:-1].reshape(-1, *(1,) * (len(space) - i - 1))
    power = torch.fft.fftn(x, dim=dims).abs().square().sum(1).mean(0) / prod(space) ** 2
    nyquist = min(n / 2 * max(lengths) / length for n, length in zip(space, lengths, strict=True))
    shells = (square.sqrt() + 0.5).long().flatten()
    energy = torch.zeros(int(shells.max()) + 1, dtype=torch.float64).index_add_(0, shells, power.flatten())
    return Spectrum(energy[1 : max(1, floor(nyquist)) + 1], max(1, floor(nyquist / 2)))


def _spectrum_and_values(
    states: list[Float[Tensor, "_ v *space"]], spectra: list[Spectrum], scale: Float[Tensor, " v"]
) -> dict[str, Figure]:
    half, train = spectra[2].half, spectra[2].energy
    worst = [float((s.energy[:half] / train[:half] - 1).abs().max()) for s in spectra]
    parts = [_by_variable(some) / scale[:, None] for some in states]
    values = [sum(map(wasserstein, some, parts[2])) / len(scale) for some in parts]
    up_to = "largest relative error of the energy at a wavenumber up to half of Nyquist's; small is good"
    return {
        "spectrum": _figure("Spectrum, worst error", worst, up_to),
        "values": _figure("Values", values, "distance between distributions of values (Wasserstein's), in deviations"),
    }


def _of_vector(parts: list[Float[Tensor, "_ k *space"]], axes: tuple[Axis, ...], name: str = "") -> dict[str, Figure]:
    """Of samples, held-out and training data: divergence, and on two axes vorticity. `name`: of one of several."""
    by_axis = [of_equal_area(gradients(part, axes), axes) for part in parts]
    squares = [(g.diagonal().sum(-1).square().mean(), g.square().sum((0, 1)).mean()) for g in by_axis]
    divergence = [float((square / whole).sqrt()) for square, whole in squares]
    of, whole = f" of {name}" if name else "", "as a part of the gradient, both root mean squares"
    out = {f"divergence{of}": _figure(f"Divergence{of}", divergence, whole)}
    if len(axes) == 2:
        curl = [g[1, 0] - g[0, 1] for g in by_axis]
        unit = curl[2].std()
        apart = [wasserstein(c / unit, curl[2] / unit) for c in curl]
        flat = [float(((c - c.mean()) / c.std()).pow(4).mean()) for c in curl]
        out[f"vorticity{of}"] = _figure(
            f"Vorticity{of}", apart, "distance between distributions (Wasserstein's), in deviations"
        )
        out[f"flatness{of}"] = _figure(
            f"Vorticity{of}, flatness", flat, "fourth moment; a Gaussian has 3, strong eddies more"
        )
    return out


def _figure(title: str, values: Sequence[float], meaning: str) -> Figure:
    """Of samples, and of held-out data."""
    return Figure(title, values[0], values[1], None, meaning)


def _of_ensemble(x: Float[Tensor, "n c *space"], sets: Sets, scale: Float[Tensor, " c"]) -> dict[str, Figure]:
    """Each draw is a member: how near they are to what was, in deviations of each variable."""
    unit = scale.reshape(-1, *(1,) * (x.ndim - 2))
    count = min(sets.sizes)
    members = torch.stack([draw[:count] for draw in x.split(sets.sizes)]) / unit
    truth = sets.real.x[:count] / unit
    apart, error = spread_and_error(members, truth)
    figures = {"crps": Figure(
        f"CRPS of {len(members)}", float(crps(members, truth).mean()), None, None,
        "in deviations; 0 if all is foreseen, 0.56 for data drawn at random if they are Gaussian",
    )}  # fmt: skip
    if len(members) > 1 and error > 0:
        figures["spread"] = Figure(
            "Spread over error", apart / error, 1.0, None, "of the ensemble and of its mean; 1 is honest, less too sure"
        )
    return figures


def _by_variable(x: Float[Tensor, "n v *space"]) -> Float[Tensor, "v values"]:
    return x.transpose(0, 1).flatten(1)


def _plot(lines: Sequence[Float[Tensor, " k"]]) -> Image:
    """The spectra of samples, held-out and training data."""
    plot = Plot(figsize=(6, 4), layout="constrained")
    axes = plot.subplots()
    for energy, name, style in zip(lines, ("samples", "held-out data", "training data"), ("-", "--", ":"), strict=True):
        axes.loglog(range(1, len(energy) + 1), energy.numpy(), style, label=name)
    axes.set(xlabel="wavenumber", ylabel="energy, each variable in units of its variance")
    axes.grid(visible=True, which="both", linewidth=0.3)
    axes.legend()
    return rendered(plot)
