"""The seams of data: where samples come from, how they are read, and how a modality is shown and written."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from anydit.config import config
from anydit.data.known import KNOWN, PAST
from anydit.data.reading import NPY, array_in, check_shape
from anydit.tensors import Batch, Tokens

Part = Literal["train", "held_out"]
"""What to train on, and what a model never sees, for the floor of every figure."""

SECONDS = {"ms": 1e-3, "min": 60.0, "s": 1.0, "h": 3600.0, "d": 86400.0}
"""How many a unit of time has, by its name; of two that a text ends in the first one counts."""


@dataclass(frozen=True)
class Facts:
    """What only the data can tell of its samples.

    What is known about each sample, by the condition's name. `classes`: of a label, by name, in the order of their
    indices. `numbers`: what each of several numbers is, with its unit. `fields`: the channels of an aligned field.
    `texts`: the names of what is told in words. `lengths`: where samples exist in part only (see `MASK`), how many
    places do along the last axis, and how many training samples have that length; `total_of`: the numbers whose sum a
    sample's length is.
    `view`: what a file of such data says of itself that its numbers do not, such as a rate in Hz or a spacing in mm.
    """

    channels: int
    size: tuple[int, ...]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    numbers: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    fields: Mapping[str, int] = field(default_factory=dict[str, int])
    texts: tuple[str, ...] = ()
    view: "View | None" = None
    lengths: tuple[tuple[int, int], ...] = ()
    total_of: str | None = None

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of all that is known."""
        return (*self.classes, *self.numbers, *self.fields, *self.texts)


@runtime_checkable
class Samples(Protocol):
    """An opened data set: any batch of it, by ids. Reading the same ids gives the same batch."""

    @property
    def facts(self) -> Facts:
        """What the samples have in common."""
        ...

    def __len__(self) -> int:
        """How many samples there are; ids run from 0 to below it."""
        ...

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        """Samples on the data's own scale, with what is known about them."""
        ...


@dataclass(frozen=True)
class Wrapped:
    """What samples that are made of others have of those, unless they say otherwise; each has a `read` of its own."""

    samples: Samples

    @property
    def facts(self) -> Facts:
        """Those of the samples that these are made of."""
        return self.samples.facts

    def __len__(self) -> int:
        return len(self.samples)


@runtime_checkable
class Bucketed(Samples, Protocol):
    """Samples of several sizes, each size a bucket. `facts.size` is the one that most of them have.

    `read` refuses ids of several buckets by a ValueError that names two of their sizes: a batch never mixes them.
    `anydit.data.buckets` has one for samples of any kind, and what goes through such samples bucket by bucket.
    """

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """The size of each bucket; no two are alike."""
        ...

    @property
    def buckets(self) -> Int[Tensor, " n"]:
        """The bucket of each id."""
        ...


@runtime_checkable
class Checkable(Samples, Protocol):
    """Samples whose texts can be checked: each text says what `k` parts of its sample show.

    `cut` takes any sample, drawn or real, apart as the text of sample `id` tells; a classifier of `parts` judges those.
    """

    @property
    def parts(self) -> "Data":
        """Single parts of real samples as `cut` makes them, with one label."""
        ...

    def cut(self, x: Float[Tensor, "b c *space"], ids: Int[Tensor, " b"]) -> Float[Tensor, "b k c_k *space_k"]:
        """The parts of each sample that the text of the id beside it speaks of."""
        ...

    def shows(self, ids: Int[Tensor, " b"]) -> Int[Tensor, "b k"]:
        """The class of each part, as the text says."""
        ...


def digest(samples: Samples) -> str:
    """A sha256 that tells data apart: of facts and sizes, how many there are, and up to 64 of them, evenly spread.

    It misses a change that touches none of those few: it is cheap enough to be taken whenever a run starts.
    """
    facts, count = samples.facts, len(samples)
    sha = sha256(repr((sorted((k, v) for k, v in vars(facts).items() if v), count)).encode())
    if isinstance(samples, Bucketed):
        sha.update(repr((samples.sizes, samples.buckets.bincount().tolist())).encode())
    looked_at = min(count, 64)
    for i in range(looked_at):
        one = samples.read(torch.tensor([i * (count - 1) // max(1, looked_at - 1)]))
        for name, texts in sorted(one.texts.items()):
            sha.update(f"{name} {list(texts)!r}".encode())
        for name, value in [("x", one.x), *sorted(one.cond.items())]:
            for part in value if isinstance(value, Tokens) else (value,):
                if part is not None:
                    sha.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
                    sha.update(part.contiguous().numpy().tobytes())
    return sha.hexdigest()


def cache_folder() -> Path:
    """Where what can be made again is kept: `ANYDIT_CACHE`, else `anydit` in the user's cache folder."""
    own, users = os.environ.get("ANYDIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(users) if users else Path.home() / ".cache") / "anydit"


def check_share(held_out: float) -> None:
    """Refuse a share of samples to hold out that leaves none to train on."""
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out: got {held_out}, expected at least 0 and below 1")


@config
class Data(ABC):
    """Where samples come from; each kind of data has a config that extends this one."""

    @abstractmethod
    def open(self, part: Part) -> Samples:
        """Find the samples.

        Raises:
            ValueError: they are not there, or not what the config says.
        """

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """The sizes that samples can have, as far as this config alone tells."""
        size: Sequence[int] | None = getattr(self, "size", None)
        return [] if size is None else [tuple(size)]


def suffixed(path: Path, suffix: str) -> Path:
    """`path` with a suffix more, whatever dots its name has."""
    return path.with_name(path.name + suffix)


class Loaded(NamedTuple):
    """A sample from a file, on the data's own scale, and the view that writes it where and when it was there."""

    x: Float[Tensor, "c *space"]
    view: "View"


@config
class View(ABC):
    """How samples of a modality are shown to people, written to files and read back.

    Where a sample is NaN it does not exist. `placed`: whether a place means the same in each sample, so that samples
    can be compared place by place. `time_axis`: which axis after the channels is time, along which a sample can go on.
    `suffixes`: what files that can be read are named. `clips`: whether files hold no values beyond `bounds`.
    """

    placed: ClassVar[bool] = True
    clips: ClassVar[bool] = False
    time_axis: ClassVar[int | None] = None
    suffixes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def picture(
        self, x: Float[Tensor, "b c *space"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        """All samples on one sheet, `columns` in a row (about square where None), a caption under each."""

    @abstractmethod
    def save(self, x: Float[Tensor, "c *space"], path: Path) -> Path:
        """Write one sample in the modality's format; returns the file, which is `path` with the format's suffix."""

    def write(self, x: Float[Tensor, "b c *space"], folder: Path, stem: str = "sample") -> list[Path]:
        """Each sample as a file of its own, in the modality's format; returns the files."""
        return [self.save(one, folder / f"{stem}-{i:05d}") for i, one in enumerate(x)]

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """A sample of `shape` `[c, *space]` from a file in the modality's format, NaN where it says nothing.

        What `save` wrote is read back as far as the format keeps it, and what the data are read from. Along the axis of
        time it has as many places as the file. Of views without a format of their own it is an array of NumPy.

        Raises:
            ValueError: the file cannot be read, or it holds no such sample.
        """
        if path.suffix.lower() != NPY:
            raise ValueError(f"got {path}, expected a {NPY} file: {type(self).__name__} reads no other")
        x = array_in(path)
        check_shape(path, x.shape, shape, self.time_axis)
        return Loaded(x, self)

    def reader(self, name: str) -> Callable[[Path, Sequence[int]], Loaded] | None:
        """What reads the field condition `name` from files as `read` does; None where it is told by arrays alone."""
        return self.read if name in (KNOWN, PAST) else None

    def at(self, told: Mapping[str, float], size: Sequence[int]) -> "View":
        """The view by which a sample of `size` is written where the numbers that are told of it, by name, say it is."""
        return self

    def after(self, x: Float[Tensor, "c *space"]) -> "View":
        """The view by which what follows `x`, which this one writes, is written when it is."""
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The values between which samples lie, where there are such, as black and white of images are."""
        return None

    @property
    def per_second(self) -> float | None:
        """How many places along the axis of time make a second, where there is one and the view knows."""
        return None

    @property
    def state_channels(self) -> int | None:
        """How many channels one of the states has that samples hold one after the other; None: they are no such."""
        return None

    def places(self, length: str) -> int:
        """How many places a length is that a person gives: a number of them, or where they are in time 0.5s, 3h, 1d.

        Raises:
            ValueError: it is none.
        """
        number, rate = length.strip(), self.per_second
        unit = next((unit for unit in SECONDS if rate and number.endswith(unit)), "")
        try:
            value = number.removesuffix(unit)
            count = round(float(value) * SECONDS[unit] * (rate or 1.0)) if unit else int(value)
        except (ValueError, OverflowError):
            count = 0
        if count < 1:
            times = "a time, as 0.5s, 500ms, 2min, 3h or 1d, or " if rate else ""
            raise ValueError(f"length: got {length!r}, expected {times}a whole number of places from 1 on")
        return count

    def like(self, facts: Facts) -> "View":
        """The view with each field that is None filled in as the data has it, so that samples are written so."""
        said = facts.view
        if not isinstance(said, type(self)):
            return self
        left = [f.name for f in fields(self) if getattr(self, f.name) is None]
        return replace(self, **{name: getattr(said, name) for name in left})

    def animation(self, frames: Sequence[Float[Tensor, "b c *space"]], path: Path) -> None:
        """A GIF whose frames are the sheets of samples under way from noise to data; the last one stays a while."""
        sheets = [self.picture(x) for x in frames]
        time_ms = [80] * (len(sheets) - 1) + [1500]
        sheets[0].save(path, save_all=True, append_images=sheets[1:], duration=time_ms, loop=0)
