"""Time series: windows of long tables in CSV or Parquet, to generate, to forecast, or to fill gaps in."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anydit.config import config
from anydit.data.arrays import split
from anydit.data.base import Data, Facts, Part, Samples, check_share
from anydit.data.known import KNOWN, told
from anydit.data.series.columns import passed_over
from anydit.data.series.tables import Head, Table, read_tables
from anydit.data.series.view import SeriesView
from anydit.tensors import Batch, Stream

TMY3 = ("723170TYA.CSV", "703165TY.csv")
"""The files in pvlib's folder of data."""


@config
class Last:
    """Hold out the last `share` of each series: what comes after all that is trained on."""

    share: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.share)


@config
class Blocks:
    """Hold out blocks of so many `rows`, a `share` of them, drawn by their numbers: of every season some."""

    rows: int = 240
    share: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.rows < 1:
            raise ValueError(f"rows: got {self.rows}, expected at least 1")


@config
class Forecast:
    """Tell the first `past` rows of each window; the others are to be found."""

    past: int = 48

    def known(self, ids: Int[Tensor, " b"], channels: int, length: int) -> Bool[Tensor, "b c n"]:
        """Which values are told."""
        if not 0 < self.past < length:
            raise ValueError(f"data.task.past: got {self.past}, expected at least 1 and fewer than length {length}")
        return (torch.arange(length) < self.past).expand(len(ids), channels, length)


@config
class Gaps:
    """Tell all but gaps, `gaps` in each channel at random places, of 1 to `longest` rows each; some overlap."""

    gaps: int = 2
    longest: int = 24

    def __post_init__(self) -> None:
        if self.gaps < 1 or self.longest < 1:
            raise ValueError(f"gaps, longest: got {self.gaps}, {self.longest}, expected at least 1")

    def known(self, ids: Int[Tensor, " b"], channels: int, length: int) -> Bool[Tensor, "b c n"]:
        """Which values are told: always the same of the same id."""
        u = Stream(0, "gaps").uniform(0, ids, (2, self.gaps, channels, 1))
        rows = (u[:, 0] * min(self.longest, length)).ceil()
        starts = (u[:, 1] * (length - rows + 1)).ceil() - 1
        places = torch.arange(length)
        return ~((places >= starts) & (places < starts + rows)).any(dim=1)


Task = Forecast | Gaps


@config
class Series(Data):
    """The windows of `length` rows, one every `stride`, of the tables in `path`: a CSV or Parquet file, or a folder.

    `columns`: the channels, by their names (none: all columns of numbers but `time`). `time`: the column that says when
    a row was. `step`: seconds from row to row, where no column says so. `skip`: lines before a CSV file's header.
    `below`: lines below it that are no rows, such as units. `task`: what is told of a window, as the condition "known".
    No window crosses a row that is missing or lacks a value, or lies in both parts.
    """

    path: Path = Path("series.csv")
    length: int = 96
    stride: int = 1
    columns: tuple[str, ...] = ()
    time: str | None = None
    step: float | None = None
    skip: int = 0
    below: int = 0
    task: Task | None = None
    held_out: Last | Blocks = Last()

    def __post_init__(self) -> None:
        if self.length < 2 or self.stride < 1:
            raise ValueError(f"length, stride: got {self.length}, {self.stride}, expected at least 2 and 1")
        if self.step is not None and self.time is not None:
            raise ValueError(f"step: got {self.step} beside time {self.time!r}, which says it; expected one of them")

    def open(self, part: Part) -> Samples:
        tables = self._tables()
        step = self._step(tables)
        training = [(t, *run) for t in tables for run in self._runs(t, "train")]
        runs = training if part == "train" else [(t, *run) for t in tables for run in self._runs(t, part)]
        starts = [(t, start) for t, low, high in runs for start in range(low, high - self.length + 1, self.stride)]
        if not starts:
            rows = sum(len(t.values) for t in tables)
            raise ValueError(
                f"data.length: got {self.length}, which fits nowhere into the part {part} of {rows} rows in "
                f"{sum(len(t.breaks) + 1 for t in tables)} pieces without a gap; expected fewer"
            )
        if part == "train":
            for sentence in passed_over([other for t in tables for other in t.others], self.time):
                print(sentence, file=sys.stderr)
            self._tell_left_out(tables)
        names = tables[0].columns
        mean = np.concatenate([t.values[low:high] for t, low, high in training]).mean(0, dtype=np.float64)
        view = SeriesView(
            names=names,
            step=step,
            suffix=tables[0].suffix,
            time=self.time,
            skip=self.skip or None,
            below=self.below or None,
        )
        fields = {} if self.task is None else {KNOWN: 2 * len(names)}
        facts = Facts(len(names), (self.length,), fields=fields, view=view)
        return Windows(starts, facts, torch.from_numpy(mean).float(), self.task)

    def _tables(self) -> list[Table]:
        return read_tables(self.path.expanduser(), self.columns, self.time, Head(self.skip, self.below))

    def _step(self, tables: Sequence[Table]) -> float | None:
        steps = {t.step for t in tables if t.step is not None}
        if steps and not np.allclose([*steps], min(steps)):
            raise ValueError(f"data.time: got steps of {sorted(steps)} s in different tables, expected one of all")
        return min(steps) if steps else self.step

    def _runs(self, table: Table, part: Part) -> list[tuple[int, int]]:
        """From which row to which the table has no gap and belongs to one part only."""
        held = self._held(len(table.values))
        cuts = {0, len(held), *table.breaks, *(np.nonzero(np.diff(held))[0] + 1).tolist()}
        return [
            (low, high)
            for low, high in pairwise(sorted(cuts))
            if held[low] == (part == "held_out") and not table.missing[low]
        ]

    def _held(self, count: int) -> Bool[np.ndarray, " n"]:
        """Which of so many rows of a table are held out."""
        held = np.zeros(count, bool)
        if isinstance(self.held_out, Last):
            held[round(count * (1 - self.held_out.share)) :] = True
        else:
            rows = self.held_out.rows
            for block in split(-(-count // rows), self.held_out.share, "held_out").tolist():
                held[block * rows : (block + 1) * rows] = True
        return held

    def _tell_left_out(self, tables: Sequence[Table]) -> None:
        """Say how many windows there would be to train on if nothing were missing, how many are not, and why."""
        count, lacking = 0, Lost("hold a row that lacks a value, the first is")
        across = Lost("cross a gap in time, the first is before")
        for table in tables:
            whole = replace(table, breaks=(), missing=np.zeros_like(table.missing))
            runs = [np.arange(low, high - self.length + 1, self.stride) for low, high in self._runs(whole, "train")]
            starts = np.concatenate([np.zeros(0, int), *runs])
            count += len(starts)
            left = lacking.counted(table, table.missing, starts, starts + self.length)
            across.counted(table, table.jumps, starts[left] + 1, starts[left] + self.length)
        if lost := [one for one in (lacking, across) if one.windows]:
            why = "; ".join(f"{one.windows} {one.why} row {one.first}" for one in lost)
            left_out = sum(one.windows for one in lost)
            print(f"Left out {left_out} of {count} windows to train on: {why}.", file=sys.stderr)


@dataclass
class Lost:
    """How many windows are left out for a reason, and the first row that is one, counted from 1."""

    why: str
    windows: int = 0
    first: str = ""

    def counted(
        self, table: Table, rows: Bool[np.ndarray, " n"], starts: Int[np.ndarray, " w"], ends: Int[np.ndarray, " w"]
    ) -> Bool[np.ndarray, " w"]:
        """Which windows of a table touch none of these rows from their start to their end; the others are counted."""
        before = np.concatenate([[0], np.cumsum(rows)])
        lost = before[ends] > before[starts]
        if lost.any() and not self.windows:
            start = int(starts[lost][0])
            self.first = f"{start + int(np.argmax(rows[start:])) + 1} of {table.name}"
        self.windows += int(lost.sum())
        return ~lost


@dataclass(frozen=True)
class Windows:
    """Windows `[c, length]` that start in rows of tables; `fill` stands where a value is not told."""

    starts: Sequence[tuple[Table, int]]
    facts: Facts
    fill: Float[Tensor, " c"]
    task: Task | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        length = self.facts.size[0]
        windows = [(table.values, start) for table, start in (self.starts[i] for i in ids.tolist())]
        x = torch.from_numpy(np.stack([values[start : start + length].T for values, start in windows]))
        cond: Mapping[str, Tensor] = {}
        if self.task is not None:
            cond = {KNOWN: told(x, self.task.known(ids, x.shape[1], length), self.fill)}
        return Batch(x.contiguous(), dict(cond), ids)


@config
class Weather(Series):
    """Two years of hourly weather, in Greensboro (NC) and Sand Point (AK), which pvlib ships: TMY3 (Wilcox 2008).

    A year is made of months that were measured in different years; windows may cross from one to the next.
    """

    length: int = 72
    columns: tuple[str, ...] = ("Dry-bulb (C)", "RHum (%)", "Pressure (mbar)", "Wspd (m/s)", "GHI (W/m^2)")
    step: float | None = 3600.0
    skip: int = 1
    held_out: Last | Blocks = Blocks(rows=24 * 10)

    def _tables(self) -> list[Table]:
        found = find_spec("pvlib")
        if found is None or found.origin is None:
            raise ValueError("data: Weather needs pvlib, which is missing; pip install 'anydit[series]'")
        folder = Path(found.origin).parent / "data"
        head = Head(self.skip, self.below)
        return [table for name in TMY3 for table in read_tables(folder / name, self.columns, self.time, head)]
