"""Fields on grids, such as flows and weather: states of trajectories, and tasks on them: forecast, super-resolution."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.config import check_at_least, check_fraction, config
from anydit.data.absent import check_here
from anydit.data.arrays import split
from anydit.data.base import Data, Facts, Part, Samples, check_share
from anydit.data.fields.beside import lost
from anydit.data.fields.boundaries import common
from anydit.data.fields.contents import Contents
from anydit.data.fields.files import listed
from anydit.data.fields.found import found_in, refuse_absent
from anydit.data.fields.layout import Layout, check_alike, layout, number, view
from anydit.data.fields.times import gaps
from anydit.data.fields.view import Quantity
from anydit.data.folders import passed_over
from anydit.data.outside import SHOWN
from anydit.tensors import Batch

KEPT_BYTES = 2**30
"""Data of at most this size are read once and kept in memory."""

AT_ONCE = 2**24
"""Values looked at together while bad states are looked for."""


@config
class Fields(Data):
    """States of fields: a file in HDF5 (The Well's layout too), NetCDF or Zarr, or a folder of such files, all alike.

    `variables`: arrays by name, of which each scalar or component is a channel; none takes all on the grid. `axes`: in
    place of the names that the file has, as `sample time x y component` (any other name is of space). `periodic`: axes
    of space that are, where the file does not say so. `numbers`: of each trajectory, together the condition "numbers".
    `given`: arrays that are the condition "given".

    `past`: so many states before are the condition "past", the oldest first, and a sample is the `future` states that
    follow, their channels one after the other; `stride` states apart. `coarse`: means over blocks of so many points
    along each axis are the condition "coarse", on the whole grid.

    `held_out`: the share of trajectories kept from training, or of the time of a single one, where no folders `train`
    and `valid` say it. `nan`: what stands for NaN, as on land (None: refuse it). `bad_limit`: the share of states that
    may hold NaN or infinity; those are left out and counted.
    """

    path: Path = Path()
    variables: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    periodic: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    past: int = 0
    future: int = 1
    stride: int = 1
    coarse: int = 0
    held_out: float = 0.1
    nan: float | None = None
    bad_limit: float = 0.0

    def __post_init__(self) -> None:
        check_share(self.held_out)
        check_fraction("data.bad_limit", self.bad_limit)
        for name, least in (("past", 0), ("future", 1), ("stride", 1), ("coarse", 0)):
            check_at_least(f"data.{name}", getattr(self, name), least)

    def open(self, part: Part) -> Samples:
        path = self.path.expanduser()
        check_here([path])  # before a link is followed
        path = path.resolve()
        files, _ = found_in(path)
        refuse_absent([file for file, _ in files])
        stats = tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in (file.stat() for file, _ in files))
        whole = _whole(replace(self, path=path), stats)
        windows = whole.windows[whole.parts == (part == "held_out")]
        if not len(windows):
            raise ValueError(
                f"data.held_out: got {self.held_out}, which leaves no sample of {len(whole.sources)} trajectories in "
                f"the part {part}; expected at least one"
            )
        return replace(whole, windows=windows)

    @property
    def span(self) -> int:
        """How many of the file's states lie between a sample's first state and the one after its last."""
        return (self.past + self.future - 1) * self.stride + 1


@dataclass(frozen=True)
class Source:
    """A trajectory: where it is, its number there, what is given beside it, all its states where they are kept.

    `gaps`: how often states are missing up to each of its own.
    """

    file: Path
    number: int
    layout: Layout
    given: Layout | None
    gaps: Int[np.ndarray, " t"]
    kept: Float[np.ndarray, "t c *space"] | None = None

    @property
    def states(self) -> int:
        """How many there are."""
        return self.layout.times

    def read(self, times: slice) -> Float[np.ndarray, "t c *space"]:
        """Some of its states."""
        return self.layout.states(self.file, self.number, times) if self.kept is None else self.kept[times]


@dataclass(frozen=True)
class FieldSamples:
    """Opened fields. `windows`: of each sample its trajectory's place among `sources` and its first state.

    `parts`: of all, which are held out (1), to train on (0), and neither (-1), for they reach into both.
    """

    data: Fields
    facts: Facts
    sources: tuple[Source, ...]
    numbers: Float[Tensor, "trajectories k"] | None
    windows: Int[Tensor, "n 2"]
    parts: Int[Tensor, " all"]

    def __len__(self) -> int:
        return len(self.windows)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        windows = self.windows[ids].tolist()
        states = torch.from_numpy(np.stack([self._states(*window) for window in windows]))
        past, future = states[:, : self.data.past], states[:, self.data.past :]
        x, cond = future.flatten(1, 2), dict[str, Tensor]()
        if self.numbers is not None:
            cond["numbers"] = self.numbers[self.windows[ids, 0]]
        if self.data.past:
            cond["past"] = past.flatten(1, 2)
        if self.data.coarse:
            cond["coarse"] = coarsened(x, self.data.coarse)
        if self.data.given:
            now = [(which, first + self.data.past * self.data.stride) for which, first in windows]
            given = np.concatenate([self._given(*at) for at in now])
            self._check(given, now, 0)
            cond["given"] = torch.from_numpy(given)
        return Batch(x.contiguous(), cond, ids)

    def trajectory(self, which: int, first: int, count: int) -> Float[Tensor, "t c *space"]:
        """`count` states, `stride` apart, of one trajectory, from one of its states on; fewer where it ends before."""
        times = slice(first, first + count * self.data.stride, self.data.stride)
        return torch.from_numpy(np.array(self.sources[which].read(times)))

    def _states(self, which: int, first: int) -> Float[np.ndarray, "t c *space"]:
        states = self.sources[which].read(slice(first, first + self.data.span, self.data.stride))
        self._check(states, [(which, first)] * len(states), self.data.stride)
        return states

    def _given(self, which: int, time: int) -> Float[np.ndarray, "1 c *space"]:
        source = self.sources[which]
        assert source.given is not None
        return source.given.states(source.file, source.number, slice(time, time + 1))

    def _check(self, states: Float[np.ndarray, "t c *space"], at: Sequence[Sequence[int]], stride: int) -> None:
        """Refuse what is not finite, wherever it was not left out before."""
        good = np.isfinite(states).reshape(len(states), -1).all(1)
        if not good.all():
            which, first = at[bad := int(np.argmin(good))]
            hint = "; --data.nan 0 puts 0 for NaN, --data.bad-limit 0.01 leaves some states out"
            raise ValueError(_bad(self.sources[which], first + bad * stride, hint))


def coarsened(x: Float[Tensor, "b c *space"], factor: int) -> Float[Tensor, "b c *space"]:
    """Means over blocks of `factor` points along each axis, at each of their points."""
    for axis in range(2, x.ndim):
        x = x.unflatten(axis, (-1, factor)).mean(axis + 1).repeat_interleave(factor, axis)
    return x


@lru_cache(maxsize=1)
def _whole(data: Fields, state: tuple[tuple[int, ...], ...]) -> FieldSamples:
    """What both parts share, found once; a new state of the files reads anew."""
    files, others = found_in(data.path)
    if others:
        print(passed_over(others, "fields"), file=sys.stderr)
    paths = [file for file, _ in files]
    contents = [listed(file) for file in paths]
    layouts = _layouts(data, paths, contents)
    first, given = layouts[0]
    if data.coarse > 1 and any(n % data.coarse for n in first.size):
        raise ValueError(f"data.coarse: got {data.coarse}, expected a divisor of each of {first.size} points")
    pairs = list(zip(files, layouts, strict=True))
    found = zip(pairs, gaps(paths, [at for at, _ in layouts], data.span), strict=True)
    sources = [Source(file, i, *both, each) for ((file, _), both), of in found for i, each in enumerate(of)]
    size = 4 * sum(source.states for source in sources) * len(first.channels) * prod(first.size)
    if size <= KEPT_BYTES:
        sources = [replace(s, kept=np.array(s.read(slice(s.states)))) for s in sources]
    told: list[Part | None] = [part for (_, part), (at, _) in pairs for _ in range(at.trajectories)]
    windows = _windows(data, sources)
    known = [
        [number(file, c, n, at.trajectories) for n in data.numbers]
        for c, ((file, _), (at, _)) in zip(contents, pairs, strict=True)
    ]
    numbers = [torch.from_numpy(np.stack([v for _, v in each], 1)) for each in known if each]
    fields = {"past": data.past * len(first.channels), "coarse": data.coarse and data.future * len(first.channels)}
    if unkept := lost(first.variables, first.at.values()):
        print(f"Not kept of {paths[0]}, and so not in what is written: {', '.join(unkept)}.", file=sys.stderr)
    kept = common(paths, [each.boundaries for each in contents], first.space)
    facts = Facts(
        data.future * len(first.channels),
        first.size,
        numbers={"numbers": tuple(name for name, _ in known[0])} if data.numbers else {},
        fields={n: c for n, c in (fields | {"given": len(given.channels) if given else 0}).items() if c},
        view=replace(
            view(paths[0], contents[0], first, data.stride, data.periodic),
            boundaries=kept or None,
            dims=data.axes or None,
            blocks=data.coarse or None,
            given=tuple(map(Quantity, given.channels, given.units)) if given else None,
            nan=data.nan,
        ),
    )
    together = torch.cat(numbers) if numbers else None
    return FieldSamples(data, facts, tuple(sources), together, windows, _parts(data, sources, told, windows))


def _layouts(data: Fields, files: Sequence[Path], contents: Sequence[Contents]) -> list[tuple[Layout, Layout | None]]:
    """Each file's layout, and that of what is given."""
    found = list[tuple[Layout, Layout | None]]()
    for file, content in zip(files, contents, strict=True):
        at, given = replace(layout(file, content, data.variables, data.axes, "variables"), nan=data.nan), None
        if found:
            check_alike(at, file, found[0][0], files[0])
        if data.given:
            given = layout(file, content, data.given, data.axes, "given")
            if not set(given.space) <= set(at.space):
                raise ValueError(f"data.given: got axes {given.space} in {file}, expected some of {at.space}")
            given = replace(given, space=at.space, size=at.size, nan=data.nan)
        found.append((at, given))
    return found


def _windows(data: Fields, sources: Sequence[Source]) -> Int[Tensor, "n 2"]:
    """All samples, without those that hold a bad state where some are allowed."""
    windows, bad, count, across = list[Tensor](), list[str](), sum(source.states for source in sources), 0
    for which, source in enumerate(sources):
        starts = torch.arange(max(0, source.states - data.span + 1))
        whole = source.gaps[starts.numpy()] == source.gaps[starts.numpy() + data.span - 1]
        across, starts = across + int((~whole).sum()), starts[torch.from_numpy(whole)]
        if data.bad_limit:
            good = torch.from_numpy(_finite(source))
            bad += [_bad(source, t) for t in torch.nonzero(~good)[:, 0].tolist()]
            needed = torch.arange(data.past + data.future) * data.stride
            starts = starts[good[starts[:, None] + needed].all(1)]
        windows.append(torch.stack([torch.full_like(starts, which), starts], 1))
    if bad:
        listed = "; ".join(bad[:SHOWN]) + ("; ..." if len(bad) > SHOWN else "")
        if len(bad) > data.bad_limit * count:
            got = f"got {len(bad)} bad of {count} states ({listed})"
            raise ValueError(f"data.bad_limit: {got}, expected at most {data.bad_limit:g} of them")
        print(f"Left out {len(bad)} of {count} states: {listed}.", file=sys.stderr)
    if across:
        print(f"Left out {across} samples in which states are missing, by their times.", file=sys.stderr)
    together = torch.cat(windows)
    if not len(together):
        raise ValueError(
            f"data.past, data.future: got {data.past} and {data.future} states {data.stride} apart, expected at most "
            f"the {max(source.states for source in sources)} that a trajectory has, at even times; each file has "
            "trajectories of its own"
        )
    return together


def _finite(source: Source) -> np.ndarray:
    """Which states have no NaN or infinity; a few are in memory at one time."""
    step = max(1, AT_ONCE // (len(source.layout.channels) * prod(source.layout.size)))
    parts = (source.read(slice(t, min(t + step, source.states))) for t in range(0, source.states, step))
    return np.concatenate([np.isfinite(part).reshape(len(part), -1).all(1) for part in parts])


def _bad(source: Source, state: int, hint: str = "") -> str:
    return f"data.path: {source.file} has NaN or infinity in state {state} of trajectory {source.number}{hint}"


def _parts(data: Fields, sources: Sequence[Source], told: Sequence[Part | None], windows: Tensor) -> Int[Tensor, " n"]:
    """Of which part each sample is: by folder, else by trajectory, else the last of the only one's time is held out."""
    if any(told):
        return torch.tensor([int(part == "held_out") for part in told])[windows[:, 0]]
    if len(sources) > 1:
        return torch.isin(windows[:, 0], split(len(sources), data.held_out, "held_out")).long()
    cut = round((1 - data.held_out) * sources[0].states)
    return (windows[:, 1] >= cut).long() - ((windows[:, 1] < cut) & (windows[:, 1] + data.span > cut)).long()
