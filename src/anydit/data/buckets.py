"""Samples of several sizes: those of each size are a bucket, and whatever reads many samples goes bucket by bucket."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from anydit.data.base import Bucketed, Facts, Samples
from anydit.tensors import Batch


@dataclass(frozen=True)
class Groups:
    """Samples of several sizes: `groups` of one size each, whose ids run on from one group into the next.

    Raises:
        ValueError: two groups have the same size, or differ in anything but their size; or one has several sizes.
    """

    groups: Sequence[Samples]

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("groups: got none, expected at least one")
        first, seen = self.groups[0].facts, set[tuple[int, ...]]()
        for group in self.groups:
            facts = group.facts
            if isinstance(group, Bucketed):
                raise ValueError(f"groups: got one of the sizes {_named(group.sizes)}, expected one size in each")
            if facts.size in seen:
                raise ValueError(f"groups: got two of size {_x(facts.size)}, expected one of each size")
            # Lengths of samples that exist in part only are of each size's own; those that are told are the fullest's.
            for name, value in vars(replace(facts, size=first.size, lengths=first.lengths)).items():
                if value != getattr(first, name):
                    raise ValueError(
                        f"groups: got {name} {value!r} of the samples of size {_x(facts.size)}, expected "
                        f"{getattr(first, name)!r}, as of those of size {_x(first.size)}"
                    )
            seen.add(facts.size)

    @property
    def facts(self) -> Facts:
        return max(self.groups, key=len).facts

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        return [group.facts.size for group in self.groups]

    @property
    def buckets(self) -> Int[Tensor, " n"]:
        return self._buckets

    @cached_property
    def _buckets(self) -> Int[Tensor, " n"]:
        counts = torch.tensor([len(group) for group in self.groups])
        return torch.arange(len(counts)).repeat_interleave(counts)

    def __len__(self) -> int:
        return len(self.buckets)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        which = one_bucket(self, ids)
        start = sum(len(group) for group in self.groups[:which])
        return replace(self.groups[which].read(ids - start), ids=ids)


@dataclass(frozen=True)
class OneSize:
    """The samples of one bucket of others, under ids of their own."""

    samples: Bucketed
    which: int

    @cached_property
    def places(self) -> Int[Tensor, " n"]:
        """Their ids among the others."""
        return torch.nonzero(self.samples.buckets == self.which)[:, 0]

    @property
    def facts(self) -> Facts:
        return replace(self.samples.facts, size=tuple(self.samples.sizes[self.which]))

    def __len__(self) -> int:
        return len(self.places)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        return replace(self.samples.read(self.places[ids]), ids=ids)


def one_bucket(samples: Bucketed, ids: Int[Tensor, " b"]) -> int:
    """The bucket of all of `ids`; of none of them it is the fullest.

    Raises:
        ValueError: they are of several.
    """
    found: list[int] = samples.buckets[ids].unique().tolist()
    if len(found) > 1:
        a, b = (_x(samples.sizes[k]) for k in found[:2])
        raise ValueError(f"ids: got samples of sizes {a} and {b} in one batch, expected one size: it never mixes them")
    return found[0] if found else list(samples.sizes).index(samples.facts.size)


def by_size(samples: Samples) -> list[Samples]:
    """The samples of each size that some have, as data with ids of their own; those of the fullest bucket first."""
    if isinstance(samples, Groups):
        parts = list(samples.groups)
    elif isinstance(samples, Bucketed):
        parts = [OneSize(samples, which) for which in range(len(samples.sizes))]
    else:
        return [samples]
    return sorted((part for part in parts if len(part)), key=len, reverse=True)


def fullest(samples: Samples) -> Samples:
    """Those of the size that most have: for what has to be of one size."""
    return by_size(samples)[0]


def together(groups: Sequence[Samples]) -> Samples:
    """Groups of one size each as one data set; those without samples are left out."""
    some = [group for group in groups if len(group)] or list(groups[:1])
    return some[0] if len(some) == 1 else Groups(some)


def each_size(samples: Samples, make: Callable[[Samples], Samples]) -> Samples:
    """What `make` makes of the samples of each size, together again in the order of `by_size`."""
    return together([make(part) for part in by_size(samples)])


def by_bucket(samples: Samples, ids: Int[Tensor, " n"], at_once: int) -> Iterator[Int[Tensor, " b"]]:
    """All of `ids` in parts of at most `at_once`, each of one size; in each bucket they keep their order."""
    if not isinstance(samples, Bucketed):
        yield from ids.split(at_once)
        return
    which = samples.buckets[ids]
    for bucket in which.unique().tolist():
        yield from ids[which == bucket].split(at_once)


def shares(samples: Samples) -> str:
    """Each size, and which part of the samples has it, for a sentence; the fullest bucket first."""
    return ", ".join(f"{_x(part.facts.size)} ({len(part) / len(samples):.0%})" for part in by_size(samples))


def _x(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _named(sizes: Sequence[Sequence[int]]) -> str:
    return ", ".join(map(_x, sizes))
