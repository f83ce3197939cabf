"""Files of fields, with names, units and a grid, as the model's view reads and writes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from anydit.data import FieldView, View
from anydit.data.base import Loaded
from anydit.data.fields.files import SUFFIXES, WRITTEN_AS, kind
from anydit.inverse.operators import Operator, SuperResolution

WRITTEN = tuple(WRITTEN_AS.values())
"""What names of files that are written end in."""


def endings(view: View) -> tuple[str, ...]:
    """What names of files end in that hold samples as the data of a model of fields do; of other models nothing."""
    return WRITTEN if isinstance(view, FieldView) else ()


def is_own(view: View, path: Path) -> bool:
    """Whether a file is one of fields, for a model of fields."""
    return bool(endings(view)) and path.suffix.lower() in SUFFIXES


def ending_like(view: View, path: Path) -> str:
    """What names of files end in that are as a file of a model's own is."""
    well = isinstance(view, FieldView) and view.grid is not None and kind(path) == "hdf5"
    return WRITTEN_AS["the_well" if well else kind(path)]


def read_own(view: View, path: Path, shape: Sequence[int], blocks: Operator | None) -> Loaded:
    """The last state of a file, NaN at what is missing, and the view by which samples are written at its time.

    `blocks`: what measured the file's values, if that was `SuperResolution`: they lie in the middle of its blocks.

    Raises:
        ValueError: the file cannot be read, or its variables, units or points are not those of the model's data.
    """
    assert isinstance(view, FieldView)
    factor = blocks.factor if isinstance(blocks, SuperResolution) else 1
    axes = view.axes and tuple(axis.coarse(factor) for axis in view.axes)
    try:
        x, found = replace(view, axes=axes).read(path, (shape[0], *(n // factor for n in shape[1:])))
    except ValueError as error:
        raise ValueError(f"scan: {error}") from None
    assert isinstance(found, FieldView)
    return Loaded(x, replace(found, axes=view.axes))


def write_own(view: View, x: Float[Tensor, "n c *space"], path: Path) -> list[Path]:
    """A file of fields for each sample, in the format that the name says; several are numbered."""
    assert isinstance(view, FieldView)
    format, end = next((format, end) for format, end in WRITTEN_AS.items() if path.name.lower().endswith(end))
    grid = view.grid if format == "the_well" else None  # with it HDF5 would be in The Well's layout, and named so
    view, stem = replace(view, format=format, grid=grid), path.name[: -len(end)]
    return [view.save(x[0], path.with_name(stem))] if len(x) == 1 else view.write(x, path.parent, stem)
