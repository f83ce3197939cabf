"""Time series: your own tables, and hourly weather that is drawn, forecast, or completed."""

from dataclasses import replace
from pathlib import Path

from anydit.data import Forecast, Gaps, Series, SeriesView, Weather
from anydit.data.known import KNOWN
from anydit.data.series.series import Task
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def series() -> Recipe:
    """A CSV or Parquet file of your own, or a folder: --data.path FILE --data.length ROWS, in windows.

    anydit train series --data.path sensors.csv --data.time when --data.length 128
    anydit train series --data.path sensors.csv --data.task Forecast --data.task.past 96
    """
    return Recipe(
        model=DiTConfig(width=256, depth=8, heads=8, patch=(4,), conditions={KNOWN: Field()}, position=Rope()),
        sampling=Sampling(steps=25),
        view=SeriesView(),
        data=Series(path=Path("series.csv")),
        train=TrainConfig(steps=10_000, batch=64, times=LogitNormal(), optimizer=AdamW(lr=5e-4),
                          schedule=LinearDecay(warmup=200), ema_decay=0.9995, bf16=True),
    )  # fmt: skip


def weather() -> Recipe:
    """Three days of hourly weather in five channels; 6 minutes of one CPU core.

    anydit train weather
    """
    return _weather(None)


def weather_forecast() -> Recipe:
    """The third day of weather given the two before, as an ensemble; 7 minutes of one CPU core.

    anydit train weather-forecast
    """
    return _weather(Forecast(past=48))


def weather_gaps() -> Recipe:
    """Gaps of up to a day in three days of weather, filled; 8 minutes of one CPU core.

    anydit train weather-gaps
    """
    return _weather(Gaps(gaps=2, longest=24))


def weather_forecast_gpu() -> Recipe:
    """The forecast for one GPU, a larger network for longer; not run yet.

    anydit train weather-forecast-gpu
    """
    small = weather_forecast()
    more = replace(small.train, steps=20_000, batch=256, compile=True, ema_decay=0.999, log_every=100)
    return replace(small, model=replace(small.model, width=256, depth=8, heads=8), train=more)


def _weather(task: Task | None) -> Recipe:
    return Recipe(
        model=DiTConfig(width=128, depth=6, heads=4, patch=(4,), conditions={KNOWN: Field()}, position=Rope()),
        sampling=Sampling(steps=25),
        view=SeriesView(),
        data=Weather(task=task),
        train=TrainConfig(steps=2500, batch=64, times=LogitNormal(), optimizer=AdamW(lr=1e-3, weight_decay=0.05),
                          schedule=LinearDecay(warmup=100, decay=0.5), ema_decay=0.998, bf16=True, sample_every=1000,
                          save_every=1000),
    )  # fmt: skip
