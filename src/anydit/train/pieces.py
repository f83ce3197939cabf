"""Pieces of tensors that several processes hold: which rows and columns, and how some are made of others in files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

Range = tuple[int, int]
"""From the first to before the second."""


class Piece(NamedTuple):
    """Which part of a tensor of `shape`: ranges of its rows, one behind the other, and a range of its columns.

    `columns`: None is all of them.
    """

    shape: tuple[int, ...]
    rows: tuple[Range, ...]
    columns: Range | None = None

    @property
    def own_shape(self) -> tuple[int, ...]:
        """Of the piece itself."""
        count, (_, *others) = sum(stop - first for first, stop in self.rows), self.shape
        if self.columns is not None:
            others[0] = self.columns[1] - self.columns[0]
        return (count, *others)


Pieces = Mapping[str, Piece]
"""By a parameter's name, what is here of it and of its moments (`NAME:MOMENT`); others are whole."""

ALL: Pieces = MappingProxyType({})


def piece_of(pieces: Pieces, key: str) -> Piece | None:
    """What is here of a parameter, or of a moment; None is all of it."""
    return pieces.get(key.partition(":")[0])


def written(pieces: Pieces, tensors: Mapping[str, Tensor]) -> dict[str, str] | None:
    """What the header of a file of these tensors says of those that are pieces; numbers are in each file."""
    told = {key: piece for key, x in tensors.items() if x.ndim and (piece := piece_of(pieces, key))}
    return {"pieces": json.dumps(told)} if told else None


def read(header: Mapping[str, str] | None) -> dict[str, Any]:
    """What a header says of the tensors of its file that are pieces, for `put`."""
    header = header or {}
    return json.loads(header.get("pieces") or header.get("rows") or "{}")


def put(found: dict[str, Tensor], key: str, there: Any, told: Sequence[Any] | None, wanted: Piece | None) -> None:
    """Put what a file has of a tensor to what others have of it.

    `there`: the tensor in the file, a slice of safetensors. `told`: what the header says of it. `wanted`: of the whole
    tensor; None is all of it.
    """
    shape: list[int] = there.get_shape()
    if not shape:  # a number, which each writer has
        found[key] = there[...]
        return
    here = _piece(told, shape)
    wanted = wanted or Piece(here.shape, ((0, here.shape[0]),))
    if here == wanted:
        found[key] = there[:]
        return
    if key not in found:
        found[key] = torch.empty(wanted.own_shape, dtype=there[:0].dtype)
    columns = None if here.columns == wanted.columns else _both(here.columns, wanted.columns, here.shape[1])
    for rows, into in _shared(here.rows, wanted.rows):
        if columns is None:
            found[key][into] = there[rows]
        elif columns[0].start < columns[0].stop:
            found[key][into, columns[1]] = there[rows, columns[0]]


def _piece(told: Sequence[Any] | None, shape: Sequence[int]) -> Piece:
    """What a file has, of the `shape` that it has there."""
    if told is None:
        return Piece(tuple(shape), ((0, shape[0]),))
    if isinstance(told[0], int):  # from before processes could share matrices: first row, last, and rows in all
        first, stop, total = told
        return Piece((total, *shape[1:]), ((first, stop),))
    whole, rows, columns = told
    return Piece(tuple(whole), tuple((first, stop) for first, stop in rows), columns and (columns[0], columns[1]))


def _both(here: Range | None, wanted: Range | None, count: int) -> tuple[slice, slice]:
    """The columns that are in two ranges, as each of them counts."""
    (a, a_stop), (b, b_stop) = here or (0, count), wanted or (0, count)
    first, stop = max(a, b), min(a_stop, b_stop)
    return slice(first - a, stop - a), slice(first - b, stop - b)


def _shared(here: Sequence[Range], wanted: Sequence[Range]) -> Iterator[tuple[slice, slice]]:
    """The rows that are among two lists of ranges, as each of them counts."""
    for at, (a, a_stop) in _placed(here):
        for into, (b, b_stop) in _placed(wanted):
            first, stop = max(a, b), min(a_stop, b_stop)
            if first < stop:
                yield slice(at + first - a, at + stop - a), slice(into + first - b, into + stop - b)


def _placed(ranges: Sequence[Range]) -> Iterator[tuple[int, Range]]:
    """Each range, and how much is before it."""
    before = 0
    for first, stop in ranges:
        yield before, (first, stop)
        before += stop - first
