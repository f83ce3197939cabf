"""Time series: values, steps, correlation over time and between channels; of forecasts and filled gaps the CRPS."""

from collections.abc import Sequence
from statistics import fmean

import torch
from jaxtyping import Float
from matplotlib.figure import Figure as Plot
from PIL.Image import Image
from torch import Tensor

from anydit.data import KNOWN, SeriesView
from anydit.evaluate import distances
from anydit.evaluate.compare import Figure
from anydit.evaluate.own import Own, own
from anydit.evaluate.pictures import rendered
from anydit.evaluate.sets import Sets, spread

REFERENCE = 5000
"""Training windows that are looked at, at most."""


@own.register
def _(view: SeriesView, x: Float[Tensor, "n c t"], sets: Sets) -> Own:
    train = sets.read_train(spread(len(sets.train), REFERENCE))
    mean, scale = train.mean((0, 2), keepdim=True), distances.units(train.std((0, 2), keepdim=True))
    parts = [(some - mean) / scale for some in (x, sets.real.x, train)]
    curves = [autocorrelation(some) for some in parts]
    between = [correlation(some) for some in parts]
    figures = {
        "values": _figure(
            "Values", [_apart(some, parts[2]) for some in parts], "distance between distributions, in deviations"
        ),
        "steps": _figure(
            "Steps in time", [_apart(some.diff(), parts[2].diff()) for some in parts], "the same, from row to row"
        ),
        "autocorrelation": _figure(
            "Autocorrelation", [float((c - curves[2]).abs().mean()) for c in curves], "mean error, of lags to the half"
        ),
        "correlation": _figure(
            "Correlation of channels", [float((b - between[2]).abs().mean()) for b in between], "mean error"
        ),
    }
    if KNOWN in sets.real.cond:
        figures["crps"] = _found(x, sets, scale)
    names = view.names or tuple(f"channel {c}" for c in range(x.shape[1]))
    return Own(figures, {"Autocorrelation, by rows apart": _plot(curves, names)})


def autocorrelation(x: Float[Tensor, "n c t"]) -> Float[Tensor, "c lags"]:
    """Of standardised values with those from 1 row later on, to half of the length."""
    length = x.shape[2]
    return torch.stack([(x[:, :, lag:] * x[:, :, : length - lag]).mean((0, 2)) for lag in range(1, length // 2 + 1)], 1)


def correlation(x: Float[Tensor, "n c t"]) -> Float[Tensor, "c c"]:
    """Of standardised channels with each other at the same time."""
    return torch.einsum("nct,ndt->cd", x, x) / (len(x) * x.shape[2])


def unknown_crps(
    members: Float[Tensor, "m n c t"], truth: Float[Tensor, "n c t"], known: Float[Tensor, "n two_c t"]
) -> Float[Tensor, " c"]:
    """The mean CRPS of each channel, over the values that are not told."""
    unknown = 1 - known[:, truth.shape[1] :]
    return (distances.crps(members, truth) * unknown).sum((0, 2)) / unknown.sum((0, 2)).clamp(min=1)


def _found(x: Float[Tensor, "n c t"], sets: Sets, scale: Float[Tensor, "1 c 1"]) -> Figure:
    """Each draw is a member of an ensemble: how near to what was, where that was not told."""
    count = min(sets.sizes)
    members = torch.stack([draw[:count] for draw in x.split(sets.sizes)])
    known = sets.real.tensor(KNOWN)[:count]
    score = unknown_crps(members / scale, sets.real.x[:count] / scale, known)
    meaning = "of values not told, in deviations; 0 if all is foreseen, 0.56 drawn at random from a Gaussian"
    return Figure(f"CRPS of {len(members)}", float(score.mean()), 0.0, None, meaning)


def _apart(some: Float[Tensor, "n c t"], train: Float[Tensor, "m c t"]) -> float:
    return fmean(map(distances.wasserstein, some.transpose(0, 1), train.transpose(0, 1)))


def _figure(title: str, values: Sequence[float], meaning: str) -> Figure:
    """Of samples, and of held-out data."""
    return Figure(title, values[0], values[1], None, meaning)


def _plot(curves: Sequence[Float[Tensor, "c lags"]], names: Sequence[str]) -> Image:
    """One panel for each channel, of samples, held-out and training data."""
    plot = Plot(figsize=(3 * len(names), 2.6), layout="constrained")
    panels = plot.subplots(1, len(names), squeeze=False)[0]
    for c, (axes, name) in enumerate(zip(panels, names, strict=True)):
        for curve, of, style in zip(
            curves, ("samples", "held-out data", "training data"), ("-", "--", ":"), strict=True
        ):
            axes.plot(range(1, curve.shape[1] + 1), curve[c].numpy(), style, label=of)
        axes.set(title=name, xlabel="rows apart", ylim=(-1, 1))
    panels[-1].legend()
    return rendered(plot)
