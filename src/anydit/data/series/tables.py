"""Tables of evenly spaced times in CSV and Parquet files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from anydit.config import config
from anydit.data.outside import Unreadable

SUFFIXES = (".csv", ".parquet")
"""Names of tables, in lower case."""

SECONDS = "seconds"
"""The column that says when rows are in tables that anydit writes; "time seconds" where a channel has that name."""

EVEN = 1e-3
"""The part of a step by which times may lie beside their places."""

MOST_GAPS = 0.2
"""The share of steps that may be longer than usual, before times count as uneven."""


@dataclass(frozen=True, eq=False)
class Table:
    """A series: `values` by row; a piece without a gap begins at 0 and at each of `breaks`, up to the next of them.

    `missing`: rows that lack a value, pieces of their own. `step`: seconds from row to row, where a column says so.
    `name`: of its file.
    """

    values: Float32[np.ndarray, "n c"]
    columns: tuple[str, ...]
    breaks: tuple[int, ...]
    missing: Bool[np.ndarray, " n"]
    step: float | None
    suffix: str
    name: str

    @property
    def jumps(self) -> Bool[np.ndarray, " n"]:
        """The rows before which others are missing: pieces begin at them, and both sides have all values."""
        found = np.zeros(len(self.missing), bool)
        found[[at for at in self.breaks if self.missing[at] == self.missing[at - 1]]] = True
        return found


def read_tables(path: Path, columns: Sequence[str], time: str | None, skip: int = 0) -> list[Table]:
    """The table in a file, or those in a folder, all of the same columns.

    Raises:
        ValueError: there is none, it cannot be read, or it lacks a column, numbers, or times that are even.
    """
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files or not path.exists():
        raise ValueError(f"data.path: got {path}, expected a file named {' or '.join(SUFFIXES)}, or a folder of some")
    tables = list[Table]()
    for file in files:
        tables.append(_table(file, tables[0].columns if tables else columns, time, skip))
    return tables


@config
class Clock:
    """The column that says when rows are, and when the first one is: a number of seconds, or an ISO time."""

    column: str = SECONDS
    first: str = "0"

    def later(self, seconds: float) -> "Clock":
        """The clock of rows that begin so much later."""
        first = _seconds(self.first)
        then = first + timedelta(seconds=seconds) if isinstance(first, datetime) else first + seconds
        return replace(self, first=then.isoformat() if isinstance(then, datetime) else str(then))

    def rows(self, step: float, count: int) -> Any:
        """When so many rows are, `step` seconds apart, as a column of a table."""
        first = _seconds(self.first)
        if not isinstance(first, datetime):
            return first + step * np.arange(count)
        import pyarrow as pa

        times = pa.array([first + timedelta(seconds=step * i) for i in range(count)])
        whole = first.microsecond == 0 and step == round(step)
        return times.cast(pa.timestamp("s", times.type.tz)) if whole else times


def _seconds(first: str) -> float | datetime:
    try:
        return float(first)
    except ValueError:
        return datetime.fromisoformat(first)


def read_part(
    file: Path, columns: Sequence[str], step: float | None, time: str | None = None
) -> tuple[Float32[np.ndarray, "n c"], Clock | None]:
    """Values by row, NaN where a cell is empty; and when that is, where a column says so.

    That is `time` where there is one, else "seconds", or the first column of times.

    Raises:
        Unreadable: a column is not there, or holds no numbers, or rows are not `step` seconds apart.
    """
    read = _read(file, 0)
    import pyarrow as pa
    from pyarrow import types

    names: list[str] = list(read.column_names)
    kinds = {name: read.schema.field(i).type for i, name in enumerate(names)}
    if time not in names or time in columns:
        time = next((name for name in names if name not in columns and _is_time(name, kinds[name])), None)
    wanted = list(columns) or [name for name in names if name != time and _is_number(kinds[name])]
    if missing := [name for name in (*wanted, *([] if time is None else [time])) if names.count(name) != 1]:
        raise Unreadable(f"got {file}, expected one column named {missing[0]!r}; it has {', '.join(names)}")
    values = np.stack([_numbers(file, name, read.column(name)) for name in wanted], axis=1)
    if np.isinf(values).any():
        raise Unreadable(f"got {file} with infinity in {wanted[int(np.isinf(values).any(0).argmax())]!r}")
    if time is None or not len(values):
        return values, None
    column = read.column(time)
    own, jumps = _even(file, time, column) if len(values) > 1 else (step, np.zeros(0, int))
    if len(jumps):
        raise Unreadable(f"got {file} with no row before row {jumps[0] + 1}; leave cells empty where nothing is known")
    if step is not None and own is not None and abs(own - step) > EVEN * step:
        raise Unreadable(f"got {file} with {own:g} s from row to row by {time!r}, expected {step:g}")
    if types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    first = column[0].as_py()
    return values, Clock(time, str(first) if isinstance(first, int | float) else first.isoformat())


def _is_time(name: str, kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_timestamp(kind) or types.is_date(kind) or name.replace("time ", "") == SECONDS)


def _table(file: Path, columns: Sequence[str], time: str | None, skip: int) -> Table:
    with _said_of("path"):
        read = _read(file, skip)
    names = list(read.column_names)
    wanted = list(columns) or [n for n in names if n != time and _is_number(read.schema.field(n).type)]
    if not wanted:
        raise ValueError(f"data.columns: got no numbers in {file} ({', '.join(names)}), expected at least one column")
    for name in [*wanted, *([] if time is None else [time])]:
        if names.count(name) != 1:
            field = "time" if name == time else "columns"
            raise ValueError(f"data.{field}: got {name!r}, expected one column of {file.name}: {', '.join(names)}")
    with _said_of("columns"):
        values = np.stack([_numbers(file, name, read.column(name)) for name in wanted], axis=1)
    missing = np.logical_not(np.isfinite(values).all(axis=1, keepdims=True))[:, 0]
    edges = np.nonzero(np.diff(missing))[0] + 1
    with _said_of("time"):
        step, jumps = (None, np.zeros(0, int)) if time is None else _even(file, time, read.column(time))
    return Table(values, tuple(wanted), tuple(sorted({*edges.tolist(), *jumps.tolist()})), missing, step,
                 file.suffix.lower(), file.name)  # fmt: skip


@contextmanager
def _said_of(field: str) -> Iterator[None]:
    """What is wrong with a table of the data is said with the field that asks for it."""
    try:
        yield
    except Unreadable as error:
        raise ValueError(f"data.{field}: {error}") from None


def _read(file: Path, skip: int) -> Any:
    try:
        from pyarrow import ArrowException, csv, parquet
    except ImportError:
        raise ValueError("data: tables need pyarrow, which is missing; pip install 'anydit[series]'") from None
    try:
        if file.suffix.lower() == ".parquet":
            return parquet.read_table(file)
        return csv.read_csv(file, read_options=csv.ReadOptions(skip_rows=skip))
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"got {file}, which cannot be read: {str(error).splitlines()[0]}") from None


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _numbers(file: Path, name: str, column: Any) -> Float32[np.ndarray, " n"]:
    """A column's values, NaN where there is none."""
    import pyarrow as pa

    if not _is_number(column.type) and not pa.types.is_null(column.type):
        first = next((str(value) for value in column.to_pylist() if not _is_float(value)), "")
        raise Unreadable(f"got {first!r} in column {name!r} of {file.name}, expected numbers")
    values = column.cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _is_float(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _even(file: Path, name: str, column: Any) -> tuple[float, Int[np.ndarray, " k"]]:
    """Seconds from row to row, and the rows before which others are missing."""
    import pyarrow as pa

    if column.null_count:
        raise Unreadable(f"got {column.null_count} rows without a time in {file.name}, expected one in each")
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        # Not safe: nanoseconds, which pandas writes, lose digits that no step needs.
        seconds = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_numpy() / 1e6
    elif _is_number(column.type):
        seconds = column.cast(pa.float64()).to_numpy()
    else:
        raise Unreadable(f"got {column[0]} in column {name!r} of {file.name}, expected ISO times or seconds")
    if not np.isfinite(seconds).all():
        raise Unreadable(f"got NaN or infinity in column {name!r} of {file.name}, expected a time in each")
    gaps = np.diff(seconds)
    if len(gaps) < 1:
        raise Unreadable(f"got a single row in {file.name}, expected more")
    step = float(np.median(gaps))
    if step <= 0 or (gaps < step * (1 - EVEN)).any():
        i = int(np.argmin(gaps))
        raise Unreadable(f"got {column[i]}, then {column[i + 1]} in {file.name}, expected steps of {step:g} s upwards")
    jumps = np.nonzero(gaps > step * (1 + EVEN))[0] + 1
    if len(jumps) > max(1, MOST_GAPS * len(gaps)):
        raise Unreadable(f"got {len(jumps)} steps longer than {step:g} s in {file.name}, expected even ones")
    return step, jumps
