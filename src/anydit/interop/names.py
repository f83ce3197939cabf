"""Tensors under the names of another format and under anydit's, where one of ours may be several of theirs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = dict[str, Tensor]

Names = Mapping[str, Sequence[str]]
"""Our names to theirs, whose rows stand one after the other in ours."""


def layers(pairs: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """The names of weights and biases, from the names of layers."""
    several = {ours: [theirs] if isinstance(theirs, str) else theirs for ours, theirs in pairs.items()}
    return {f"{a}.{kind}": [f"{b}.{kind}" for b in bs] for a, bs in several.items() for kind in ("weight", "bias")}


def ours(state: Mapping[str, Tensor], names: Names) -> Weights:
    """Their tensors under our names."""
    return {a: state[bs[0]] if len(bs) == 1 else torch.cat([state[b] for b in bs]) for a, bs in names.items()}


def theirs(tensors: Mapping[str, Tensor], names: Names, rows: Mapping[str, int]) -> Weights:
    """Our tensors under their names; `rows` of theirs, where those that make one of ours are not equally many."""
    state = Weights()
    for a, bs in names.items():
        sizes = [rows.get(b, len(tensors[a]) // len(bs)) for b in bs]
        state |= dict(zip(bs, tensors[a].split(sizes), strict=True))
    return {b: part.detach().cpu().clone(memory_format=torch.contiguous_format) for b, part in state.items()}


def halves_exchanged(tensor: Tensor) -> Tensor:
    """The second half of the rows before the first: scale and shift, in formats that have the scale first."""
    return torch.cat(tensor.chunk(2)[::-1])
