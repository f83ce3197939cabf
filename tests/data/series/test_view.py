"""Tables to go on from: the columns of the data among others, gaps, and when rows are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from anydit.data import Series, SeriesView
from anydit.data.series.tables import Head, read_part

VIEW = SeriesView(names=("b", "a"), step=900.0, suffix=".csv")


def written(path: Path, rows: int = 10, when: Any = "2024-02-28T22:00", **columns: Any) -> pd.DataFrame:
    """A table with two channels, a text, and the times of its rows unless they are named otherwise."""
    frame = pd.DataFrame({"a": np.arange(float(rows)), "b": 10.0 - np.arange(rows), "station": "x"})
    if when is not None:
        frame.insert(0, "when", pd.date_range(when, periods=rows, freq="15min"))
    frame = frame.assign(**columns)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return frame


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_empty_cells_are_gaps_and_columns_may_be_in_any_order(tmp_path: Path, name: str):
    frame = written(tmp_path / name, a=[0.0, 1.0, None, None, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    x, _ = VIEW.read(tmp_path / name, (2, 99))
    assert x.shape == (2, 10)
    assert np.array_equal(x.numpy(), frame[["b", "a"]].to_numpy(np.float32).T, equal_nan=True)


@pytest.mark.parametrize("zone", ["", "Z"])
def test_what_follows_is_at_the_times_that_follow(tmp_path: Path, zone: str):
    written(tmp_path / "x.csv", when=f"2024-02-28T22:00{zone}")
    x, view = VIEW.read(tmp_path / "x.csv", (2, 10))
    out = pd.read_csv(view.after(x[:, :8]).save(x[:, 8:], tmp_path / "y"), parse_dates=["when"])
    assert list(out.columns) == ["when", "b", "a"]
    assert out["when"].tolist() == pd.date_range(f"2024-02-29T00:00{zone}", periods=2, freq="15min").tolist()


def test_seconds_go_on(tmp_path: Path):
    written(tmp_path / "x.csv", when=None, seconds=5.5 + 900.0 * np.arange(10))
    x, view = VIEW.read(tmp_path / "x.csv", (2, 10))
    out = pd.read_csv(view.after(x).save(x, tmp_path / "y"))
    assert np.allclose(out["seconds"], 5.5 + 900 * np.arange(10, 20))


def test_a_table_without_times_or_of_a_single_row(tmp_path: Path):
    written(tmp_path / "x.csv", when=None)
    x, view = VIEW.read(tmp_path / "x.csv", (2, 10))
    assert pd.read_csv(view.save(x, tmp_path / "y"))["seconds"][9] == 8100
    written(tmp_path / "x.csv", rows=1)
    x, view = VIEW.read(tmp_path / "x.csv", (2, 10))
    assert x.shape == (2, 1) and "2024-02-28 22:15:00" in view.after(x).save(x, tmp_path / "z").read_text()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"when": None, "seconds": 60.0 * np.arange(10)}, "with 60 s from row to row by 'seconds', expected 900"),
        ({"when": None, "seconds": 900.0 * np.array([0, 1, 2, 3, 4, 5, 6, 8, 9, 10])}, "no row before row 8"),
        ({"a": "no"}, "^got 'no' in column 'a'"),
        ({"when": None, "seconds": 900.0 * np.array([0, 1, 2, 3, 3, 4, 5, 6, 7, 8])}, "^got 2700"),
        ({"a": np.inf}, "infinity"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, how: dict[str, Any], said: str):
    written(tmp_path / "x.csv", **how)
    with pytest.raises(ValueError, match=said):
        VIEW.read(tmp_path / "x.csv", (2, 10))


def test_numbers_are_times_in_the_column_that_the_data_have_them_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    written(tmp_path / "x.csv", when=None, t=1e6 + 900.0 * np.arange(10))
    view = Series(path=tmp_path / "x.csv", length=3, columns=("b", "a"), time="t").open("train").facts.view
    assert isinstance(view, SeriesView) and repr(view) == repr(VIEW)
    x, later = view.read(tmp_path / "x.csv", (2, 10))
    assert not capsys.readouterr().err
    assert pd.read_csv(later.after(x).save(x, tmp_path / "y"))["t"].tolist() == (1e6 + 900 * np.arange(10, 20)).tolist()
    written(tmp_path / "x.csv", when=None, t=1e6 + 60.0 * np.arange(10))
    with pytest.raises(ValueError, match=r"^got .*x\.csv with 60 s from row to row by 't', expected 900"):
        view.read(tmp_path / "x.csv", (2, 10))
    VIEW.read(tmp_path / "x.csv", (2, 10))
    said = capsys.readouterr().err
    assert "x.csv has no column that is known to say when rows are: they are taken to be 900 s apart" in said


def test_missing_columns_are_named(tmp_path: Path):
    written(tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"x\.csv, expected one column named 'c'; it has when, a, b, station"):
        SeriesView(names=("a", "c")).read(tmp_path / "x.csv", (2, 10))


@pytest.mark.parametrize("before", ['723170,GREENSBORO,NC\n"of, two\nlines"\n', "# one, two\n# three\n"])
def test_lines_before_the_header_are_as_many_as_the_datas_or_none(tmp_path: Path, before: str):
    """What anydit writes has none."""
    frame = written(tmp_path / "plain.csv")
    text = before + (tmp_path / "plain.csv").read_text()
    (tmp_path / "x.csv").write_text(text)
    data = Series(path=tmp_path / "x.csv", length=3, time="when", skip=before.count("\n"))
    view = data.open("train").facts.view
    assert isinstance(view, SeriesView) and view.names == ("a", "b")
    for path in (tmp_path / "x.csv", tmp_path / "plain.csv"):
        x, later = view.read(path, (2, 10))
        assert np.array_equal(x.numpy(), frame[["a", "b"]].to_numpy(np.float32).T)
        again, _ = view.read(later.save(x, tmp_path / "y"), (2, 10))
        assert torch.equal(again, x)
    (tmp_path / "u.csv").write_text(text.replace("station\n", "station\n,m,s,\n"))
    below = replace(data, path=tmp_path / "u.csv", below=1).open("train").facts.view
    assert isinstance(below, SeriesView)
    for path in (tmp_path / "u.csv", tmp_path / "plain.csv"):
        assert np.array_equal(below.read(path, (2, 10)).x.numpy(), frame[["a", "b"]].to_numpy(np.float32).T)
    (tmp_path / "z.csv").write_text("more\n" + text)
    with pytest.raises(ValueError, match=r"z\.csv"):
        view.read(tmp_path / "z.csv", (2, 10))


@pytest.mark.parametrize("first", ["nan,1", "NA,NULL", ",1", "-2,"])
def test_a_first_row_with_gaps_is_a_row(tmp_path: Path, first: str):
    """And no line of units, of which the data have one; that may be blank."""
    (tmp_path / "x.csv").write_text(f"seconds,a,b\n0,{first}\n1,2,3\n2,3,4\n")
    (tmp_path / "units.csv").write_text("seconds,a,b\n,,\n1,2,3\n2,3,4\n")
    for name, rows in (("x", 3), ("units", 2)):
        values, clock = read_part(tmp_path / f"{name}.csv", ("a", "b"), 1.0, None, Head(0, 1))
        assert len(values) == rows and values[-2:].tolist() == [[2, 3], [3, 4]]
        assert clock is not None and clock.first == str(3 - rows)
    (tmp_path / "none.csv").write_text(f"a,b\n{first}\n2,3\n")
    assert len(read_part(tmp_path / "none.csv", ("a", "b"), None, None, Head(1, 0))[0]) == 2


def test_no_clock_tells_data_apart():
    assert repr(VIEW) == repr(VIEW.after(torch.zeros(2, 5)))
