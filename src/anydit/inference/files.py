"""What files tell of samples: conditions that are data, each in the format of its modality."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.data import View
from anydit.data.base import Loaded
from anydit.data.known import KNOWN, told
from anydit.data.reading import NPY, array_in, check_shape
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Field
from anydit.model.dit import coded_fields


class Window(NamedTuple):
    """What is known of a sample, NaN elsewhere, the view by which it is written, and what there is to say of it."""

    x: Float[Tensor, "c *space"]
    view: View
    note: str = ""


@dataclass(frozen=True)
class FromFiles:
    """The field condition `name` of samples of `size`: a file for each, in the data's format, or one .npy for several.

    What the view knows nothing of, for it is no part of samples, comes as .npy alone. Where the condition tells some of
    the samples' own values ("known"), a file that is shorter than a sample in time is how it begins. Of a longer one
    the last places are taken. Where these have gaps, NaN or empty cells, the gaps are drawn, else what comes after:
    then as many places are told as in training.
    """

    pipeline: Pipeline
    name: str
    files: tuple[Path, ...]
    size: tuple[int, ...]

    @cached_property
    def loaded(self) -> list[Loaded]:
        """What is in each file.

        Raises:
            ValueError: one cannot be read, or is not of such samples.
        """
        try:
            return [each for file in self.files for each in self._in(file)]
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    @cached_property
    def windows(self) -> list[Window]:
        """What is known of each sample.

        Raises:
            ValueError: nothing is, or nothing is left to be drawn.
        """
        return [self._window(*each) for each in self.loaded]

    @property
    def value(self) -> Float[Tensor, "n k *space"]:
        """The condition."""
        if not self.partial:
            return torch.stack([x for x, _ in self.loaded])
        x = torch.stack([window.x for window in self.windows])
        return told(x, ~x.isnan(), (self._condition.mean or ())[: x.shape[1]])

    @cached_property
    def partial(self) -> bool:
        """Whether the condition tells some of the samples' own values."""
        return self.name == KNOWN and self._condition.channels == 2 * self._channels

    def usual(self, places: int) -> int:
        """How many of so many places were known in training, on average: the mean of the condition's flags."""
        flags = (self._condition.mean or ())[self._channels :]
        return min(max(1, round(places * sum(flags) / max(1, len(flags)))), places - 1)

    @property
    def _condition(self) -> Field:
        condition = self.pipeline.config.model.conditions[self.name]
        assert isinstance(condition, Field), "no other condition is told by such files"
        return condition

    @cached_property
    def _channels(self) -> int:
        """Of a sample."""
        config = self.pipeline.config
        z = torch.zeros(1, config.model.in_channels, *config.codec.latent_size(self.size))
        return self.pipeline.decode(z).shape[1]

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of what is in a file, for one sample."""
        if self.partial:
            return self._channels, *self.size
        count = coded_fields(self.pipeline.config.model).get(self.name)
        return (self._condition.channels or 0) if count is None else count * self._channels, *self.size

    def _in(self, file: Path) -> list[Loaded]:
        """The samples in a file."""
        view, shape = self.pipeline.config.view, self._shape
        if file.suffix.lower() == NPY:
            return [Loaded(one, view) for one in self._arrays(file)]
        read = view.reader(self.name) if self.partial or self.name != KNOWN else None
        if read is None:
            wanted = f"a {NPY} file of shape [n, {', '.join(map(str, shape))}]"
            why = f"{self.name} is no part of a sample, which other formats are read as"
            raise ValueError(f"got {file}, expected {wanted}: {why}")
        loaded = read(file, shape)
        if not self.partial:
            check_shape(file, loaded.x.shape, shape)
        return [loaded]

    def _arrays(self, file: Path) -> Float[Tensor, "n c *longer"]:
        """What a file of NumPy holds; of what is known, either NaN elsewhere, or the condition as in training."""
        view, shape = self.pipeline.config.view, self._shape
        x = array_in(file)
        if x.ndim == len(shape):
            x = view.read(file, shape).x[None] if NPY in view.suffixes else x[None]
        if x.ndim != len(shape) + 1:
            raise ValueError(f"got an array of shape {tuple(x.shape)} in {file}, expected [n, channels, *size]")
        if self.partial and x.shape[1] == self._condition.channels:
            values, known = x.chunk(2, 1)
            x = values.where(known > 0.5, torch.nan)
        check_shape(file, x.shape[1:], shape, view.time_axis if self.partial else None)
        return x

    def _window(self, x: Float[Tensor, "c *longer"], view: View) -> Window:
        note, axis = "", view.time_axis
        if axis is not None:
            x, view, note = _in_time(x, view, axis + 1, self.size[axis], self.usual(self.size[axis]))
        missing = x.isnan()
        if bool(missing.all()) or not bool(missing.any()):
            which = "nothing is known" if bool(missing.any()) else "everything is known"
            raise ValueError(f"{self.name}: got a file of which {which}, expected NaN where values are to be drawn")
        return Window(x, view, note)


def _in_time(x: Float[Tensor, "c *longer"], view: View, dim: int, places: int, usual: int) -> Window:
    """So many places along the dimension that is time, of what may have more or fewer."""
    have = x.shape[dim]
    last = x.narrow(dim, max(0, have - places), min(have, places))
    goes_on = have >= places and not bool(last.isnan().any())
    count = usual if goes_on else last.shape[dim]
    before, kept = x.split([have - count, count], dim)
    note = f"Of {have} places in time in a file the last {count} are told." if count < have else ""
    if have < places and have != usual and not bool(x.isnan().any()):
        note = f"The first {have} of {places} places in time are told; in training {usual} were, on average."
    empty = x.new_full((*x.shape[:dim], places - count, *x.shape[dim + 1 :]), torch.nan)
    return Window(torch.cat([kept, empty], dim), view.after(before) if count < have else view, note)
