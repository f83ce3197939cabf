"""The columns of a table: numbers, times, and others, which are told of rather than passed over in silence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from jaxtyping import Float32

from anydit.data.folders import plain
from anydit.data.outside import SHOWN, Unreadable

NUMBER = r"^\s*([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*)?$"
"""A number, or nothing."""

ALIKE = r"^\s*[-+]?([\d,]+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
"""A number, or one with commas for thousands or for the decimal point, which are not read."""


BELOW = "; --data.below 1 passes over a line below the header, such as one of units"
"""What to do where the first row alone is none."""


@dataclass(frozen=True)
class Other:
    """A column that is not of numbers: its first cell that is none, and the row of that, counted from 1.

    `cell`: empty where all cells are. `row`: 0 where no cell is to blame, as of numbers that are kept as text.
    `mostly`: most of its cells are numbers, or look alike. `times`: it holds times. `counts`: it numbers the rows.
    """

    name: str
    file: str
    cell: str = ""
    row: int = 0
    mostly: bool = False
    times: bool = False
    counts: bool = False

    @classmethod
    def of(cls, file: Path, name: str, column: Any) -> "Other":
        """What a column holds in place of numbers."""
        import pyarrow as pa
        from pyarrow import compute

        if column.null_count == len(column):
            return cls(name, file.name)
        if is_time(column.type):
            return cls(name, file.name, str(column.drop_null()[0]), times=True)
        try:
            cells = column.cast(pa.string())
        except pa.ArrowException:
            cells = pa.chunked_array([[None if cell is None else _text(cell) for cell in column.to_pylist()]])
        functions: Any = compute
        exact, alike = (functions.match_substring_regex(cells, pattern) for pattern in (NUMBER, ALIKE))
        row = exact.index(False).as_py() + 1
        shown = row - 1 if row else alike.index(True).as_py()
        cell = cells[shown].as_py() if shown >= 0 else ""
        mostly = 2 * functions.sum(alike).as_py() > len(column) - column.null_count
        return cls(name, file.name, cell, row, mostly)

    def refused(self) -> Unreadable:
        """That numbers were expected."""
        return Unreadable(f"got {self.cell!r} in column {self.name!r} of {self.file}, expected numbers{self.hint}")

    @property
    def hint(self) -> str:
        """What to do where all is of numbers but the first row."""
        return BELOW if self.mostly and self.row == 1 else ""


def passed_over(others: Sequence[Other], time: str | None) -> list[str]:
    """Sentences on columns that are no channels; on times, where no column `time` was asked for."""
    said, found = list[str](), dict[str, Other]()
    for other in sorted(others, key=lambda one: (not one.mostly, not one.cell)):
        if other.name or other.cell:
            found.setdefault(other.name, other)
    if found.get("", Other("", "")).counts:
        del found[""]
        said.append("Passed over a column without a name, which numbers the rows.")
    times = [] if time is not None else [name for name, one in found.items() if one.times]
    if times:
        del found[times[0]]
        name = plain(times[0])
        said.append(f"{name} holds times: with --data.time {quote(name)} no window crosses rows that are missing.")
    if found:
        names = ", ".join(_told(one) for one in [*found.values()][:SHOWN]) + (", ..." if len(found) > SHOWN else "")
        said.append(f"Passed over columns without numbers: {names}.")
    return said


def _told(other: Other) -> str:
    if not other.mostly:
        return plain(other.name)
    if not other.row:
        return f"{plain(other.name)} (numbers as text in {plain(other.file)})"
    where = f"{plain(other.cell)[:40]!r} in row {other.row} of {plain(other.file)}"
    return f"{plain(other.name)} (numbers but for {where}; expected a number, or an empty cell)"


def counts_rows(name: str, column: Any) -> bool:
    """Whether a column without a name numbers the rows, as the index does that pandas writes."""
    from pyarrow import types

    if name or not types.is_integer(column.type) or column.null_count or not len(column):
        return False
    values = column.to_numpy()
    return bool(np.array_equal(values, values[0] + np.arange(len(values))))


def is_number(kind: Any) -> bool:
    """Whether a type of column is of numbers."""
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def is_time(kind: Any) -> bool:
    """Whether a type of column says by itself that it is of times."""
    from pyarrow import types

    return bool(types.is_timestamp(kind) or types.is_date(kind))


def numbers(file: Path, name: str, column: Any) -> Float32[np.ndarray, " n"]:
    """A column's values, NaN where there is none.

    Raises:
        Unreadable: there are other things in it.
    """
    import pyarrow as pa

    if not is_number(column.type) and not pa.types.is_null(column.type):
        raise Other.of(file, name, column).refused()
    values = column.cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _text(cell: object) -> str:
    return cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)
