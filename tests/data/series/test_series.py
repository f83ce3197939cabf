"""Windows of tables: what they hold, what is told of them, and which part they belong to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import KNOWN, Blocks, Data, Forecast, Gaps, Last, Part, Series, SeriesView, Weather
from anydit.data.known import told
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved


def table(rows: int = 100, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(rows) * 1.0, "b": -np.arange(rows) / 4, **columns})


def written(path: Path, frame: pd.DataFrame) -> Path:
    (frame.to_parquet if path.suffix == ".parquet" else frame.to_csv)(path, index=False)
    return path


def rows_in(data: Series, part: Part) -> list[list[int]]:
    """The rows of each window, by the column that counts them."""
    samples = data.open(part)
    return samples.read(torch.arange(len(samples))).x[:, 0].long().tolist()


def refused(data: Data) -> str:
    with pytest.raises(ValueError) as error:
        data.open("train")
    return str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_windows_are_rows_of_the_file_and_are_written_as_they_came(tmp_path: Path, suffix: str):
    frame = table(when=pd.date_range("2024-02-28", periods=100, freq="15min"))
    path = written(tmp_path / f"x{suffix}", frame)
    data = Series(path=path, length=10, stride=3, time="when", held_out=Last(0.0))
    samples = data.open("train")
    assert samples.facts.view == SeriesView(names=("a", "b"), step=900.0, suffix=suffix, time="when")
    assert len(samples) == 31
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2,))
    view = resolved(Recipe(model=model, codec=Normalize(), view=SeriesView(), data=data), samples).view
    (out,) = view.write(samples.read(torch.tensor([2])).x, tmp_path)
    assert out.suffix == suffix
    read = pd.read_parquet(out) if suffix == ".parquet" else pd.read_csv(out)
    assert list(read.columns) == ["seconds", "a", "b"]
    assert np.array_equal(read["seconds"], np.arange(10) * 900)
    assert np.array_equal(read[["a", "b"]], frame[["a", "b"]][6:16])
    assert view.picture(samples.read(torch.arange(4)).x).size[0] > 200


def test_a_channel_named_seconds_is_not_lost(tmp_path: Path):
    frame = table(when=pd.date_range("2024-02-28", periods=100, freq="15min")).rename(columns={"a": "seconds"})
    samples = Series(path=written(tmp_path / "x.csv", frame), length=10, time="when", held_out=Last(0.0)).open("train")
    view = samples.facts.view
    assert isinstance(view, SeriesView)
    (out,) = view.write(samples.read(torch.tensor([0])).x, tmp_path)
    read = pd.read_csv(out)
    assert list(read.columns) == ["time seconds", "seconds", "b"]
    assert np.array_equal(read["time seconds"], np.arange(10) * 900)
    assert np.array_equal(read[["seconds", "b"]], frame[["seconds", "b"]][:10])


def test_columns_are_chosen(tmp_path: Path):
    path = written(tmp_path / "x.csv", table(name="text"))
    samples = Series(path=path, length=4, columns=("b",), held_out=Last(0.0)).open("train")
    assert (samples.facts.channels, samples.read(torch.tensor([4])).x.tolist()) == (1, [[[-1, -1.25, -1.5, -1.75]]])
    assert Series(path=path, length=4).open("train").facts.channels == 2, "all numbers"
    assert "got 'text' in column 'name' of x.csv" in refused(Series(path=path, columns=("name",)))
    assert "data.columns: got 'c', expected one column of x.csv: a" in refused(Series(path=path, columns=("c",)))
    written(tmp_path / "y.csv", table().drop(columns="a"))
    assert "data.columns: got 'a', expected one column of y.csv: b" in refused(Series(path=tmp_path))


def test_no_window_crosses_what_is_missing(tmp_path: Path):
    """A missing value at row 20, missing rows between 49 and 53, two tables."""
    frame = table(60, when=pd.date_range("2024-01-01", periods=60, freq="h").astype(str))
    frame.loc[20, "b"] = np.nan
    written(tmp_path / "x.csv", frame.drop(index=[50, 51, 52]))
    written(tmp_path / "y.csv", replace_a(frame[:12], 1000))
    found = rows_in(Series(path=tmp_path, length=5, time="when", columns=("a", "b"), held_out=Last(0.0)), "train")
    starts = [*range(16), *range(21, 46), *range(53, 56), *range(1000, 1008)]
    assert found == [list(range(s, s + 5)) for s in starts]


def test_windows_that_are_left_out_are_told_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of 57 rows 53 windows start; 5 hold row 21, and the 4 over the gap between rows 50 and 51 do not."""
    frame = table(60, when=pd.date_range("2024-01-01", periods=60, freq="h").astype(str))
    written(tmp_path / "a.csv", frame)
    data = Series(path=tmp_path, length=5, time="when", columns=("a", "b"), held_out=Last(0.0))
    data.open("train")
    assert not capsys.readouterr().err, "nothing is missing"
    frame.loc[20, "b"] = np.nan
    written(tmp_path / "b.csv", frame.drop(index=[50, 51, 52]))
    assert len(data.open("train")) == 56 + 53 - 9
    assert capsys.readouterr().err == (
        "Left out 9 of 109 windows to train on: 5 hold a row that lacks a value, the first is row 21 of b.csv; "
        "4 cross a gap in time, the first is before row 51 of b.csv.\n"
    )
    replace(data, held_out=Last(0.2)).open("held_out")
    assert not capsys.readouterr().err
    replace(data, held_out=Last(0.2)).open("train")
    only = "Left out 5 of 86 windows to train on: 5 hold a row that lacks a value, the first is row 21 of b.csv.\n"
    assert capsys.readouterr().err == only, "the gap is held out"
    replace(data, stride=5).open("train")
    assert "Left out 1 of 23 windows to train on: 1 hold a row that lacks a value" in capsys.readouterr().err


def test_columns_that_are_passed_over_are_told_with_the_cell_that_makes_them_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """'-' and "1,234" make text of numbers; a column of times that nobody asked for hides gaps."""
    frame = table(station="Oslo", c=[*"01-", *"4" * 97], d=[f"{i:,}" for i in range(950, 1050)], empty=None)
    frame.insert(0, "my time", pd.date_range("2024-01-01", periods=100, freq="h"))
    data = Series(path=written(tmp_path / "x.csv", frame), length=4, held_out=Last(0.1))
    assert data.open("train").facts.channels == 2
    expected = "expected a number, or an empty cell"
    passed = (
        f"Passed over columns without numbers: c (numbers but for '-' in row 3 of x.csv; {expected}), "
        f"d (numbers but for '1,000' in row 51 of x.csv; {expected}), station, empty.\n"
    )
    hint = "my time holds times: with --data.time 'my time' no window crosses rows that are missing.\n"
    assert capsys.readouterr().err == hint + passed
    replace(data, time="my time").open("train")
    assert capsys.readouterr().err == passed
    replace(data, columns=("a", "b")).open("train")
    assert capsys.readouterr().err == hint, "what is not asked for is not told, but that gaps are not seen"
    data.open("held_out")
    assert not capsys.readouterr().err


def test_numbers_that_parquet_keeps_as_text_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    frame = table(c=[None, "", *map(str, range(98))], d=[*"xy" * 50])
    Series(path=written(tmp_path / "x.parquet", frame), length=4).open("train")
    assert capsys.readouterr().err == "Passed over columns without numbers: c (numbers as text in x.parquet), d.\n"
    assert "got '0' in column 'c' of x.parquet" in refused(Series(path=tmp_path / "x.parquet", columns=("c",)))


def replace_a(frame: pd.DataFrame, first: int) -> pd.DataFrame:
    return frame.assign(a=np.arange(len(frame)) + first)


@pytest.mark.parametrize("held_out", [Last(0.3), Blocks(rows=20, share=0.4)])
def test_no_window_is_in_both_parts(tmp_path: Path, held_out: Last | Blocks):
    data = Series(path=written(tmp_path / "x.csv", table(400)), length=6, held_out=held_out)
    parts = {part: rows_in(data, part) for part in ("train", "held_out")}
    seen = {part: {row for window in windows for row in window} for part, windows in parts.items()}
    assert not seen["train"] & seen["held_out"]
    assert len(seen["train"] | seen["held_out"]) > 380
    assert 0.1 < len(seen["held_out"]) / 400 < 0.6
    assert all(np.array_equal(window, np.arange(window[0], window[0] + 6)) for window in parts["held_out"])
    if isinstance(held_out, Last):
        assert min(seen["held_out"]) == 280


def test_the_past_is_told_and_nothing_of_the_future(tmp_path: Path):
    data = Series(path=written(tmp_path / "x.csv", table()), length=8, task=Forecast(past=5), held_out=Last(0.5))
    samples = data.open("train")
    assert samples.facts.fields == {KNOWN: 4}
    batch = samples.read(torch.arange(len(samples)))
    known = batch.tensor(KNOWN)
    assert torch.equal(known[:, :2, :5], batch.x[:, :, :5])
    assert (known[:, 0, 5:] == 24.5).all() and (known[:, 1, 5:] == -24.5 / 4).all(), "the mean of rows 0 to 49"
    assert torch.equal(known[:, 2:], torch.tensor([1.0] * 5 + [0] * 3).expand(len(batch.x), 2, 8))
    assert (data.open("held_out").read(torch.tensor([0])).tensor(KNOWN)[:, 0, 5:] == 24.5).all(), "of training data"
    with pytest.raises(ValueError, match=r"data\.task\.past: got 8"):
        replace(data, task=Forecast(8)).open("train").read(torch.tensor([0]))


def test_gaps_are_where_nothing_is_told(tmp_path: Path):
    task = Gaps(gaps=2, longest=3)
    data = Series(path=written(tmp_path / "x.csv", table(2000)), length=12, task=task, held_out=Last(0.0))
    samples = data.open("train")
    batch = samples.read(torch.arange(len(samples)))
    values, known = batch.tensor(KNOWN).chunk(2, dim=1)
    assert torch.equal(values[known > 0], batch.x[known > 0])
    unknown = (known == 0).sum(2)
    assert unknown.min() == 1 and unknown.max() == 6
    share = (known == 0).float().mean((0, 1))
    assert share.min() > 0.05, "anywhere"
    assert (known[:, 0] != known[:, 1]).any(), "in each channel others"
    assert torch.equal(samples.read(torch.tensor([5, 3])).tensor(KNOWN), batch.tensor(KNOWN)[[5, 3]])


def test_a_gap_of_ones_own_is_filled(tmp_path: Path):
    """From NaN to values, with what is known left as it is: the lines of the documentation."""
    data = Series(path=written(tmp_path / "x.csv", table()), length=8, task=Gaps(), held_out=Last(0.0))
    samples = data.open("train")
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2,), conditions={KNOWN: Field()})
    recipe = Recipe(model=model, codec=Normalize(), view=SeriesView(), data=data)
    pipeline = Pipeline(resolved(recipe, samples))
    x = samples.read(torch.tensor([3])).x
    x[:, :, 2:5] = torch.nan
    known = ~x.isnan()
    field = told(x, known, pipeline.config.model.conditions[KNOWN].mean[:2])
    assert field.isfinite().all()
    full = pipeline.edit(field[:, :2], {KNOWN: field}, keep=known.all(1, keepdim=True), steps=2)
    assert full.isfinite().all()
    assert torch.equal(full[known], x[known])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Series(length=1), "length, stride: got 1, 1"),
        (lambda: Series(step=1.0, time="t"), "step: got 1.0 beside time 't'"),
        (lambda: Blocks(rows=0), "rows: got 0"),
        (lambda: Gaps(gaps=0), "gaps, longest: got 0, 24"),
        (lambda: Last(1.0), "held_out: got 1.0"),
    ],
)
def test_configs_that_cannot_be_are_refused(make: Any, said: str):
    with pytest.raises(ValueError, match=said):
        make()


def test_windows_that_fit_nowhere_are_named(tmp_path: Path):
    path = written(tmp_path / "x.csv", table())
    assert "data.length: got 101, which fits nowhere into the part train of 100 rows in 1 pieces" in refused(
        Series(path=path, length=101, held_out=Last(0.0))
    )


def test_the_weather_is_what_was_measured():
    data = Weather(task=Forecast(past=48))
    train, held = data.open("train"), data.open("held_out")
    assert train.facts.size == (72,) and train.facts.channels == 5
    assert len(train) > 10_000 and len(held) > 1000
    x = held.read(torch.arange(0, len(held), 10)).x
    assert x[:, 1].amin() > 0 and x[:, 1].amax() <= 100, "relative humidity in %"
    assert x[:, 2].amin() > 900 and x[:, 2].amax() < 1100, "pressure in mbar"
    assert x[:, 4].amin() == 0 and x[:, 4].amax() > 600, "it is dark at night"
    view = train.facts.view
    assert isinstance(view, SeriesView) and view.step == 3600
