"""Samples of which only a part exists: how long they are, as said, as told by a condition, or as the data have it."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int, Real
from torch import Tensor

from anydit.config import config
from anydit.data import Facts
from anydit.inference.conditions import Given, as_mask, as_numbers
from anydit.tensors import MASK, Stream

LENGTH = "length"
"""What says, among the conditions of samples of which only a part exists, how many places of the last axis do."""


@config
class Lengths:
    """How many places exist along the last axis of samples, and how often, as the data have it.

    `often`: lengths, and how many training samples have each. `total_of`: numbers among the conditions whose sum is the
    length, wherever they are given.
    """

    often: tuple[tuple[int, int], ...]
    total_of: str | None = None

    def __post_init__(self) -> None:
        if not self.often or any(length < 1 or count < 1 for length, count in self.often):
            raise ValueError(f"lengths.often: got {self.often}, expected lengths and how often each is, all above 0")

    @classmethod
    def of(cls, facts: Facts) -> "Lengths | None":
        """Those of the data; None where samples exist whole."""
        return cls(facts.lengths, facts.total_of) if facts.lengths else None

    def drawn(self, n: int, seed: int) -> Int[Tensor, " n"]:
        """Lengths as often as the data have them; that of sample i depends on `seed` and i alone."""
        lengths, counts = torch.tensor(self.often).unbind(1)
        up_to = counts.cumsum(0)
        place = Stream(seed, "length").integers(0, torch.arange(n), int(up_to[-1]))
        return lengths[torch.searchsorted(up_to, place, right=True)]


def split(
    lengths: Lengths | None, cond: Mapping[str, Given], n: int, size: tuple[int, ...], seed: int
) -> tuple[Bool[Tensor, "n *size"] | None, dict[str, Given]]:
    """Which places of `n` samples of `size` exist (None: all), and what else is told of them.

    By the condition "mask", else by "length", for all or for each, else by the numbers that tell it, else as drawn.

    Raises:
        ValueError: a length is beyond the size, there are not as many as samples, or both mask and length are given.
    """
    others = {name: value for name, value in cond.items() if name != MASK and (lengths is None or name != LENGTH)}
    if MASK in cond:
        if len(others) + 1 < len(cond):
            raise ValueError(f"cond: got {LENGTH} beside {MASK}, expected one of them")
        return as_mask(cond[MASK], n, size), others
    if lengths is None:
        return None, others
    many = _lengths(lengths, cond, n, seed)
    if len(many) != n or bool((many < 1).any()) or bool((many > size[-1]).any()):
        raise ValueError(
            f"cond: {LENGTH}: got {many.tolist()}, expected 1 to {size[-1]}, one for all or for each of {n} samples"
        )
    return (torch.arange(size[-1]) < many.reshape(-1, *(1,) * len(size))).expand(n, *size), others


def split_given(
    lengths: Lengths | None, x: Real[Tensor, "n c *size"], cond: Mapping[str, Given], seed: int
) -> tuple[Bool[Tensor, "n *size"] | None, dict[str, Given]]:
    """The same for samples that are there: unless it is said, those places exist where not all channels are NaN."""
    told = dict(cond)
    if lengths is not None and not {MASK, LENGTH} & set(cond):
        told[MASK] = ~x.isnan().all(1)
    return split(lengths, told, len(x), tuple(x.shape[2:]), seed)


def _lengths(lengths: Lengths, cond: Mapping[str, Given], n: int, seed: int) -> Int[Tensor, " m"]:
    if LENGTH in cond:
        many = as_numbers(LENGTH, cond[LENGTH]).reshape(-1)
    elif lengths.total_of is not None and lengths.total_of in cond:
        many = as_numbers(lengths.total_of, cond[lengths.total_of]).sum(-1).reshape(-1)
    else:
        return lengths.drawn(n, seed)
    if bool((many != many.round()).any()):
        raise ValueError(f"cond: {LENGTH}: got {many.tolist()}, expected whole numbers")
    return many.long().expand(n) if len(many) == 1 else many.long()
