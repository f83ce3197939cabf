"""Time series: weather that is drawn, forecast as an ensemble, and completed, each beside what is trivial.

python benchmarks/modalities_series.py [--gpu] [--runs FOLDER]
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from modality import Trained, page, trained
from PIL import Image
from results import picture, table
from torch import Tensor

from anydit.data import KNOWN, SeriesView
from anydit.evaluate.distances import crps
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.own import own
from anydit.evaluate.own.series import unknown_crps
from anydit.evaluate.pictures import rendered
from anydit.evaluate.sets import opened, spread
from anydit.recipes.series import weather, weather_forecast, weather_forecast_gpu, weather_gaps
from anydit.tensors import Batch

WINDOWS, MEMBERS = 128, 16
"""Held-out windows, and members of each ensemble."""

DATA = "weather, 5 x 72 hours"
DAY = 24

SHOWN, AHEAD_SHOWN = 4, 3
"""Windows drawn, and held out, that are on the picture of these; held-out windows on that of forecasts."""

INTERVAL = (0.1, 0.9)
"""Between these quantiles of an ensemble the truth is in eight of ten cases, if it is honest."""


def drawn_beside_real(x: Float[Tensor, "n c t"], real: Float[Tensor, "n c t"], names: tuple[str, ...]) -> Image.Image:
    """Windows that were drawn, and held-out ones, each in a column of its own and on the same scale."""
    figure, axes = _panels(len(names), 2, names)
    for column, (title, windows) in enumerate((("drawn", x), ("held out", real))):
        axes[0][column].set_title(title)
        for channel, row in enumerate(axes):
            for n, window in enumerate(windows[:SHOWN]):
                row[column].plot(window[channel], color=f"C{n}", linewidth=1)
            both = torch.cat([x[:SHOWN, channel], real[:SHOWN, channel]])
            row[column].set_ylim(float(both.min()), float(both.max()))
    return rendered(figure)


def forecasts(
    members: Float[Tensor, "m n c t"], truth: Float[Tensor, "n c t"], past: int, names: tuple[str, ...]
) -> Image.Image:
    """Held-out windows: what was known, and after it the truth before the ensemble's median and interval."""
    shown = torch.linspace(0, len(truth) - 1, AHEAD_SHOWN).round().long().tolist()
    figure, axes = _panels(len(names), AHEAD_SHOWN, names)
    hours = torch.arange(past, truth.shape[2])
    low, middle, high = members[..., past:].quantile(torch.tensor([INTERVAL[0], 0.5, INTERVAL[1]]), dim=0)
    for column, which in enumerate(shown):
        for channel, row in enumerate(axes):
            band = low[which, channel], high[which, channel]
            row[column].fill_between(hours, *band, color="C0", alpha=0.3, linewidth=0, label="eight of ten members")
            row[column].plot(hours, middle[which, channel], color="C0", label="their median")
            row[column].plot(truth[which, channel], color="black", linewidth=1, label="held out")
            row[column].axvline(past, color="gray", linewidth=0.5)
    axes[0][-1].legend(fontsize=7, loc="upper right")
    return rendered(figure)


def _panels(rows: int, columns: int, names: tuple[str, ...]) -> tuple[Any, Any]:
    """A panel for each channel in each column; hours run to the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * columns, 1.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    for name, row in zip(names, axes, strict=True):
        row[0].set_ylabel(name, fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("hours")
    return figure, axes


def _names(done: Trained) -> tuple[str, ...]:
    view = done.pipeline.config.view
    assert isinstance(view, SeriesView) and view.names is not None
    return view.names


def drawn(done: Trained) -> tuple[list[object], str]:
    """Windows drawn from nothing: autocorrelation, beside that of noise with each channel's mean and deviation.

    Some of them are shown.
    """
    figure = evaluate(done.pipeline, done.recipe.data, samples=1000).figures["autocorrelation"]
    sets = opened(done.pipeline, done.recipe.data, 1000)
    train = sets.read_train(spread(len(sets.train), 5000))
    noise = torch.randn(1000, *train.shape[1:], generator=torch.Generator().manual_seed(0))
    noise = noise * train.std((0, 2), keepdim=True) + train.mean((0, 2), keepdim=True)
    other = own(sets.view, noise, sets).figures["autocorrelation"].samples
    row = done.row("series", DATA, "autocorrelation, mean error", figure.samples, figure.floor, other, "noise")
    real = sets.real.x[spread(len(sets.real.x), SHOWN)]
    sheet = drawn_beside_real(done.pipeline.sample(SHOWN), real, _names(done))
    return row, picture("series-drawn", sheet, "three days of weather, drawn and held out")


def held_out(done: Trained) -> tuple[Batch, Float[Tensor, "1 c 1"]]:
    """Held-out windows, spread over both places and the year, and each channel's deviation."""
    held = done.recipe.data.open("held_out")
    batch = held.read(spread(len(held), WINDOWS))
    return batch, batch.x.std((0, 2), keepdim=True)


def ensemble(done: Trained, batch: Batch) -> Float[Tensor, "m n c t"]:
    """Several samples given what is known of each window."""
    known = batch.tensor(KNOWN)
    return torch.stack([done.pipeline.sample(len(known), {KNOWN: known}, seed=seed) for seed in range(MEMBERS)])


def filled(done: Trained) -> list[object]:
    """Gaps, beside straight lines from what is known before them to what is known after them."""
    batch, scale = held_out(done)
    known = batch.tensor(KNOWN)
    values, told = known.chunk(2, dim=1)
    ours = unknown_crps(ensemble(done, batch) / scale, batch.x / scale, known).mean()
    lines = torch.stack([torch.stack([_line(v, t) for v, t in zip(one, flags, strict=True)])
                         for one, flags in zip(values, told, strict=True)])  # fmt: skip
    trivial = unknown_crps(lines[None] / scale, batch.x / scale, known).mean()
    return done.row("series", DATA, "CRPS of gaps, in deviations", float(ours), "-", float(trivial), "straight lines")


def _line(values: Float[Tensor, " t"], told: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    import numpy as np

    rows = np.arange(len(values))
    there = told.numpy() > 0
    return torch.from_numpy(np.interp(rows, rows[there], values.numpy()[there]).astype(np.float32))


def forecast(done: Trained) -> tuple[list[object], str]:
    """The third day, beside the second day once more, and the last hour that is known; and by hours ahead."""
    batch, scale = held_out(done)
    past = batch.x.shape[2] - DAY
    truth = batch.x[:, :, past:] / scale
    members = ensemble(done, batch)
    ours = crps(members[..., past:] / scale, truth)
    others = {
        "the day before": crps(batch.x[None, :, :, past - DAY : past] / scale, truth),
        "the last hour": crps(batch.x[None, :, :, past - 1 : past].expand(1, -1, -1, DAY) / scale, truth),
        "any training windows": crps(_climate(done, len(truth))[..., past:] / scale, truth),
    }
    best = min(others, key=lambda name: float(others[name].mean()))
    row = done.row("series", DATA, f"CRPS of {DAY} hours ahead, in deviations", float(ours.mean()), "-",
                   float(others[best].mean()), best)  # fmt: skip
    by_lead = [
        [hour + 1, float(ours[..., hour].mean()), *(float(o[..., hour].mean()) for o in others.values())]
        for hour in (0, 2, 5, 11, 17, 23)
    ]
    shown = picture("series-forecast", forecasts(members, batch.x, past, _names(done)), "forecasts of held-out weather")
    about = f"The last day of held-out windows, and {MEMBERS} members given the two days before"
    leads = f"Weather by hours ahead (CRPS, in deviations):\n\n{table(['hours', 'anydit', *others], by_lead)}"
    return row, f"{leads}\n\n{about}:\n\n{shown}"


def _climate(done: Trained, count: int) -> Float[Tensor, "m n c t"]:
    """Training windows at random, for each held-out one others."""
    train = done.recipe.data.open("train")
    ids = torch.randint(len(train), (MEMBERS * count,), generator=torch.Generator().manual_seed(0))
    return train.read(ids).x.unflatten(0, (MEMBERS, count))


def rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The rows of the table over all modalities, and the forecast by hours ahead."""
    recipe, name = (weather_forecast_gpu(), "weather-forecast-gpu") if gpu else (weather_forecast(), "weather-forecast")
    row, leads = forecast(trained(recipe, runs / name))
    if gpu:
        return [row], leads
    free, sheet = drawn(trained(weather(), runs / "weather"))
    gaps = filled(trained(weather_gaps(), runs / "weather-gaps"))
    return [free, gaps, row], f"{leads}\n\nThree days, drawn from nothing and held out:\n\n{sheet}"


if __name__ == "__main__":
    page("series", "Time series: weather", __doc__, rows)
