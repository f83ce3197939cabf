"""Tables, and those that are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from anydit.data import Series
from anydit.data.series.tables import Head, read_tables

TIMES = pd.date_range("2024-03-30", periods=8, freq="6h")


def refused(path: Path, time: str | None = None) -> str:
    with pytest.raises(ValueError) as error:
        read_tables(path, (), time)
    return str(error.value)


def csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "times",
    [TIMES, TIMES.tz_localize("UTC"), np.arange(8) * 21600, np.arange(8) * 21600.0 + 0.5],
    ids=["timestamps", "with a zone", "whole seconds", "seconds"],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_steps_are_in_seconds(tmp_path: Path, times: Any, suffix: str):
    frame, path = pd.DataFrame({"t": times, "x": np.arange(8) / 2}), tmp_path / f"a{suffix}"
    (frame.to_parquet if suffix == ".parquet" else frame.to_csv)(path, index=False)
    (table,) = read_tables(path, (), "t")
    assert (table.step, table.columns, table.breaks, table.suffix) == (21600, ("x",), (), suffix)
    assert np.array_equal(table.values[:, 0], np.arange(8) / 2)


def test_a_column_of_seconds_may_be_a_channel_too(tmp_path: Path):
    (table,) = read_tables(csv(tmp_path / "a.csv", "t,x\n0,1\n2,3\n"), ("x", "t"), "t")
    assert (table.step, table.values.tolist()) == (2, [[1, 0], [3, 2]])


def test_nanoseconds_are_times(tmp_path: Path):
    times = TIMES + pd.to_timedelta(np.arange(8), unit="ns")
    pd.DataFrame({"t": times, "x": np.arange(8) / 2}).to_parquet(tmp_path / "a.parquet", index=False)
    (table,) = read_tables(tmp_path / "a.parquet", (), "t")
    assert (table.step, table.breaks) == (21600, ())


def test_days_are_times(tmp_path: Path):
    path = csv(tmp_path / "a.csv", "day,x\n2024-02-27,1\n2024-02-28,2\n2024-02-29,3\n2024-03-02,4\n")
    (table,) = read_tables(path, (), "day")
    assert (table.step, table.breaks) == (86400, (3,))


def test_lines_before_the_header_are_skipped(tmp_path: Path):
    path = csv(tmp_path / "a.csv", "a station,somewhere\nx,y\n1,2\n3,\n")
    (table,) = read_tables(path, (), None, Head(1))
    assert table.columns == ("x", "y")
    assert table.missing.tolist() == [False, True]
    assert np.isnan(table.values[1, 1])


@pytest.mark.parametrize("time", ["when", None])
@pytest.mark.parametrize("columns", [("x", "y"), ()])
def test_a_line_of_units_is_told_and_passed_over(tmp_path: Path, time: str | None, columns: tuple[str, ...]):
    """As a logger writes it: lines before the header, units below it."""
    rows = "".join(f"2024-01-01T0{i}:00,{i},{2 * i}\n" for i in range(9))
    path = csv(tmp_path / "a.csv", f"a station\nwhen,x,y\n,degC,mm\n{rows}")
    hint = r"; --data\.below 1 passes over a line below the header, such as one of units$"
    with pytest.raises(ValueError, match=rf"^data\.\w+: got .*{hint}"):
        read_tables(path, columns, time, Head(1))
    (table,) = read_tables(path, columns, time, Head(1, 1))
    assert table.columns == ("x", "y") and table.values[8].tolist() == [8, 16]


def test_a_column_that_numbers_the_rows_is_no_channel(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """pandas writes it; with a gap in it, or a name, it may mean something."""
    frame = pd.DataFrame({"x": np.arange(40.0)})
    for name, written in (("a", frame), ("b", frame.drop(index=5)), ("c", frame.rename_axis("hour"))):
        written.to_csv(tmp_path / f"{name}.csv")
        facts = Series(path=tmp_path / f"{name}.csv", length=8).open("train").facts
        told = capsys.readouterr().err
        assert facts.channels == (1 if name == "a" else 2)
        assert ("Passed over a column without a name, which numbers the rows." in told) is (name == "a")


def test_what_is_no_series_is_named(tmp_path: Path):
    assert "expected a file named .csv or .parquet" in refused(tmp_path)
    assert "expected a file named .csv or .parquet" in refused(tmp_path / "none.csv")
    for suffix in (".csv", ".parquet"):
        (tmp_path / f"a{suffix}").write_bytes(b"\xff\xfe\0hello\n1,2,3\n")
        assert "cannot be read: " in refused(tmp_path / f"a{suffix}")
    assert "got no numbers in" in refused(csv(tmp_path / "b.csv", "x\none\ntwo\n"))
    assert "cannot be read" in refused(csv(tmp_path / "b.csv", "x,y\n1,2\n3\n"))
    with pytest.raises(ValueError, match=r"got '-' in column 'x' of b\.csv, expected numbers"):
        read_tables(csv(tmp_path / "b.csv", "x,y\n1,2\n-,3\n"), ("x",), None)


@pytest.mark.parametrize("text", ["t;x\n0;0,5\n1;1,5\n", "t;x\n0;5\n", "t\tx\n0\t5\n", "°C,x\n1,2\n"])
def test_csv_that_is_written_otherwise_is_named_with_what_is_expected(tmp_path: Path, text: str):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    said = refused(tmp_path / "a.csv")
    assert "a.csv" in said and said.endswith("UTF-8, with commas between cells and points in numbers")


def test_channels_are_what_holds_numbers_in_one_of_the_tables(tmp_path: Path):
    """Empty in the first file, a column is not lost in the others; hidden files are none."""
    csv(tmp_path / "a.csv", "x,y,note\n1,,\n2,,\n")
    csv(tmp_path / "b.csv", "note,y,x\n,5,3\n,6,4\n")
    (tmp_path / "._a.csv").write_bytes(b"\0\5\26\7")
    first, second = read_tables(tmp_path, (), None)
    assert first.columns == second.columns == ("x", "y")
    assert first.missing.all() and second.values.tolist() == [[3, 5], [4, 6]]
    csv(tmp_path / "a.csv", "x,y,note\n1,-,\n2,7,\n")
    assert "data.columns: got '-' in column 'y' of a.csv, expected numbers" in refused(tmp_path)
    csv(tmp_path / "a.csv", "x,y,y\n1,2,no\n")
    assert "data.columns: got 'y', expected one column of a.csv: x, y, y" in refused(tmp_path)
    csv(tmp_path / "a.csv", "x\n1\n")
    assert "data.columns: got 'y', expected one column of a.csv: x" in refused(tmp_path)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ("0 1 2 1 4", "got 2, then 1 in a.csv, expected steps of 1 s upwards"),
        ("0 1 1 2 3 4", "got 1, then 1 in a.csv"),
        ("0 1 2 4 5 7 8 10 11", "got 3 steps longer than 1 s in a.csv, expected even ones"),
        ("5", "got a single row"),
        ("one two three", "got one in column 't' of a.csv, expected ISO times or seconds"),
    ],
)
def test_times_that_are_not_even_are_named(tmp_path: Path, times: str, said: str):
    path = csv(tmp_path / "a.csv", "t,x\n" + "".join(f"{t},1\n" for t in times.split()))
    assert said in refused(path, "t")
    assert "got 1 rows without a time" in refused(csv(path, "t,x\n1,1\n,2\n3,3\n"), "t")
    assert "got NaN or infinity in column 't' of a.csv" in refused(csv(path, "t,x\n1,1\ninf,2\n3,3\n"), "t")
