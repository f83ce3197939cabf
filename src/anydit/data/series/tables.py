"""Tables of evenly spaced times in CSV and Parquet files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from csv import Error as CSVError
from csv import reader
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

from anydit.data.absent import check_here
from anydit.data.outside import Unreadable
from anydit.data.series.clock import SECONDS, Clock
from anydit.data.series.columns import BELOW, NUMBER, Other, counts_rows, is_number, is_time, numbers

SUFFIXES = (".csv", ".parquet")
"""Names of tables, in lower case."""

WRITTEN = "UTF-8, with commas between cells and points in numbers"
"""How a CSV file has to be written."""

EVEN = 1e-3
"""The part of a step by which times may lie beside their places."""

FIRST = 3
"""Lines below the header in which a cell without a time may be no row."""

MOST_GAPS = 0.2
"""The share of steps that may be longer than usual, before times count as uneven."""


@dataclass(frozen=True, eq=False)
class Table:
    """A series: `values` by row; a piece without a gap begins at 0 and at each of `breaks`, up to the next of them.

    `missing`: rows that lack a value, pieces of their own. `step`: seconds from row to row, where a column says so.
    `name`: of its file. `others`: the columns in it that are not among these, where all are asked for, or hold times.
    """

    values: Float32[np.ndarray, "n c"]
    columns: tuple[str, ...]
    breaks: tuple[int, ...]
    missing: Bool[np.ndarray, " n"]
    step: float | None
    suffix: str
    name: str
    others: tuple[Other, ...] = ()

    @property
    def jumps(self) -> Bool[np.ndarray, " n"]:
        """The rows before which others are missing: pieces begin at them, and both sides have all values."""
        found = np.zeros(len(self.missing), bool)
        found[[at for at in self.breaks if self.missing[at] == self.missing[at - 1]]] = True
        return found


@dataclass(frozen=True, eq=False)
class Sheet:
    """What a file holds: the columns of numbers by name, the others, and all names, which may be there twice.

    `step`: seconds from row to row, where a column says so. `jumps`: rows before which others are missing.
    """

    file: Path
    names: Sequence[str]
    numbers: Mapping[str, Float32[np.ndarray, " n"]]
    others: Mapping[str, Other]
    step: float | None
    jumps: Int[np.ndarray, " k"]
    rows: int


class Head(NamedTuple):
    """Lines of CSV that are no rows: before the header, and below it, such as units."""

    skip: int = 0
    below: int = 0


HEAD = Head()
"""A header in the first line, and rows from the next one on."""


def read_tables(path: Path, columns: Sequence[str], time: str | None, head: Head = HEAD) -> list[Table]:
    """The table in a file, or those in a folder, all of the same columns: those that hold numbers in one of them.

    Raises:
        ValueError: there is none, it cannot be read, or it lacks a column, numbers, or times that are even.
    """
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    check_here(files)
    if not files or not path.exists():
        raise ValueError(f"data.path: got {path}, expected a file named {' or '.join(SUFFIXES)}, or a folder of some")
    sheets = [_sheet(file, columns, time, head) for file in files]
    wanted = tuple(columns) or tuple(dict.fromkeys(name for sheet in sheets for name in sheet.numbers))
    if not wanted:
        names, hint = ", ".join(sheets[0].names), f"; CSV has to be {WRITTEN}" if _is_csv(files[0]) else ""
        hint = next(filter(None, (other.hint for other in sheets[0].others.values())), hint)
        raise ValueError(f"data.columns: got no numbers in {files[0]} ({names}), expected at least one column{hint}")
    return [_table(sheet, wanted) for sheet in sheets]


def read_part(
    file: Path, columns: Sequence[str], step: float | None, time: str | None = None, head: Head = HEAD
) -> tuple[Float32[np.ndarray, "n c"], Clock | None]:
    """Values by row, NaN where a cell is empty; and when that is, where a column says so.

    That is `time` where there is one, else "seconds", or the first column of times. `head`: of CSV, but where the
    first line has all the columns and numbers are below it, as in what anydit writes.

    Raises:
        Unreadable: a column is not there, or holds no numbers, or rows are not `step` seconds apart.
    """
    read = _read(file, HEAD if _begins_with(file, columns) else head)
    import pyarrow as pa
    from pyarrow import types

    names: list[str] = list(read.column_names)
    kinds = {name: read.schema.field(i).type for i, name in enumerate(names)}
    if time not in names or time in columns:
        time = next((name for name in names if name not in columns and _may_say(name, kinds[name])), None)
    wanted = list(columns) or [name for name in names if name != time and is_number(kinds[name])]
    if missing := [name for name in (*wanted, *([] if time is None else [time])) if names.count(name) != 1]:
        raise Unreadable(f"got {file}, expected one column named {missing[0]!r}; it has {', '.join(names)}")
    values = np.stack([numbers(file, name, read.column(name)) for name in wanted], axis=1)
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


def _begins_with(file: Path, columns: Sequence[str]) -> bool:
    """Whether a file's first line names columns, and the second is a row: a number, or none, is in each of them.

    Where none has a number, another column has one, as that of times, or a word for none as nan, as no line of units.
    """
    try:
        from pyarrow.csv import ConvertOptions

        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = reader(opened)
            names, first = next(lines, []), next(lines, [])
    except (ImportError, OSError, UnicodeDecodeError, CSVError):  # which reading all of it tells
        return False
    empty = {*ConvertOptions().null_values, "inf", "-inf"} - {""}
    cells = dict(zip(names, map(str.strip, first), strict=False))
    row = all(re.match(NUMBER, cell) or cell in empty for cell in (cells.get(name, "none") for name in columns))
    return row and any(cell in empty or re.match(r"[-+.]*\d", cell) for cell in cells.values())


def _may_say(name: str, kind: Any) -> bool:
    """Whether a column may be the one that says when rows are."""
    return is_time(kind) or name.replace("time ", "") == SECONDS


def _sheet(file: Path, columns: Sequence[str], time: str | None, head: Head) -> Sheet:
    with _said_of("path"):
        read = _read(file, head)
    names: list[str] = read.column_names
    for name in [*columns, *([] if time is None else [time])]:
        _check_one("time" if name == time else "columns", name, names, file)
    found = dict[str, Any]()
    for name, column in zip(names, read.columns, strict=True):
        if (name != time or name in columns) and (name not in found or is_number(column.type)):
            found[name] = column
    counts = "" not in columns and counts_rows("", found[""]) if "" in found else False
    chosen = [name for name in found if name in columns or (not columns and is_number(found[name].type))]
    chosen = [name for name in chosen if name or not counts]
    told = [name for name in found if not columns or (time is None and is_time(found[name].type))]
    with _said_of("columns"):
        values = {name: numbers(file, name, found[name]) for name in chosen}
    others = {name: Other.of(file, name, found[name]) for name in told if name not in chosen}
    others |= {"": Other("", file.name, "0", counts=True)} if counts and not columns else {}
    with _said_of("time"):
        step, jumps = (None, np.zeros(0, int)) if time is None else _even(file, time, read.column(time))
    return Sheet(file, names, values, others, step, jumps, read.num_rows)


def _table(sheet: Sheet, columns: tuple[str, ...]) -> Table:
    file, empty = sheet.file, np.full(sheet.rows, np.nan, np.float32)
    for name in columns:
        _check_one("columns", name, sheet.names, file)
        if name not in sheet.numbers and sheet.others[name].cell:
            raise ValueError(f"data.columns: {sheet.others[name].refused()}")
    values = np.stack([sheet.numbers.get(name, empty) for name in columns], axis=1)
    missing = np.logical_not(np.isfinite(values).all(axis=1, keepdims=True))[:, 0]
    breaks = {*(np.nonzero(np.diff(missing))[0] + 1).tolist(), *sheet.jumps.tolist()}
    others = tuple(other for name, other in sheet.others.items() if name not in columns)
    return Table(values, columns, tuple(sorted(breaks)), missing, sheet.step, file.suffix.lower(), file.name, others)


def _check_one(field: str, name: str, names: Sequence[str], file: Path) -> None:
    if names.count(name) != 1:
        raise ValueError(f"data.{field}: got {name!r}, expected one column of {file.name}: {', '.join(names)}")


@contextmanager
def _said_of(field: str) -> Iterator[None]:
    """What is wrong with a table of the data is said with the field that asks for it."""
    try:
        yield
    except Unreadable as error:
        raise ValueError(f"data.{field}: {error}") from None


def _is_csv(file: Path) -> bool:
    return file.suffix.lower() != ".parquet"


def _read(file: Path, head: Head) -> Any:
    try:
        from pyarrow import ArrowException, csv, parquet
    except ImportError:
        raise ValueError("data: tables need pyarrow, which is missing; pip install 'anydit[series]'") from None
    try:
        if _is_csv(file):
            blank = csv.ConvertOptions(strings_can_be_null=True)
            lines = csv.ReadOptions(skip_rows=head.skip, skip_rows_after_names=head.below)
            read = csv.read_csv(file, read_options=lines, convert_options=blank)
        else:
            read = parquet.read_table(file)
        return read.rename_columns(read.column_names)  # names that are no UTF-8 fail here, not where they are used
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        expected = f"; expected {WRITTEN}" if _is_csv(file) else ""
        raise Unreadable(f"got {file}, which cannot be read: {str(error).splitlines()[0]}{expected}") from None


def _even(file: Path, name: str, column: Any) -> tuple[float, Int[np.ndarray, " k"]]:
    """Seconds from row to row, and the rows before which others are missing."""
    import pyarrow as pa

    if column.null_count:
        hint = BELOW if column[:FIRST].null_count == column.null_count else ""
        raise Unreadable(f"got {column.null_count} rows without a time in {file.name}, expected one in each{hint}")
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        # Not safe: nanoseconds, which pandas writes, lose digits that no step needs.
        seconds = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_numpy() / 1e6
    elif is_number(column.type):
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
