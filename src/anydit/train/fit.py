"""Weights of one model as the first weights of another: kept where they fit, resized where there is a rule, else new.

The rules, by tensor:
- one that both have, of one shape and meaning, is kept as it was;
- classes: a row is kept for each class of the same name, or by index where there are as many and not both have names;
  other rows begin as the null, so that the model begins with what it knows of all classes;
- patch embedding: channels are kept in their order, fields by name, and more of them begin at zero, without effect. To
  another patch it is resized by the pseudo-inverse of linear interpolation (Beyer 2022, arXiv 2212.08013): a sample
  enlarged with its patches gives the tokens that it gave;
- output: channels likewise, and another patch is interpolated, so that the output is enlarged with the sample;
- blocks: a block keeps its weights whether the sample has a stream of its own beside a text's or not, and so does the
  modulation of what both have; more of that begins at zero, as in a new model;
- whatever else is missing, or of another shape, is new, as in a model that begins with nothing.
Positions are computed from coordinates and have no weights; `anydit.train.start` says what becomes of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anydit.model.blocks import MODULATIONS, OUTPUT_ROWS, JointBlock
from anydit.model.conditioning import Field, Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.modulation import Shared
from anydit.model.text import Joint

Weights = dict[str, Tensor]

KEPT: Final = "as it was"
RESIZED: Final = "resized"
PART: Final = "in part"
NEW: Final = "new"
LEFT: Final = "left out"

LABEL = re.compile(r"conditioner\.vectors\.(\w+)\.table\.weight")


@dataclass(frozen=True)
class Row:
    """What became of a tensor: its name, one of the words above, its shapes before and now, and why."""

    name: str
    how: str
    was: tuple[int, ...] | None
    now: tuple[int, ...] | None
    why: str = ""


ALONE = re.compile(r"^(blocks\.\d+\.)(attention\.|mlp\.)")
STREAM = re.compile(r"^(blocks\.\d+\.)sample\.(attention\.|mlp\.)")

Fitted = tuple[Tensor, str, str]
"""A tensor, what became of it, and why."""


@torch.no_grad()
def fitted(old: DiTConfig, tensors: Mapping[str, Tensor], model: DiT) -> tuple[Weights, list[Row]]:
    """First weights for `model`, made of those of a model of the config `old`; and a row for each tensor of either."""
    out, rows = Weights(), list[Row]()
    tensors = {_place(name, old, model.config): tensor for name, tensor in tensors.items()}
    for name, fresh in model.state_dict().items():
        given = tensors.get(name)
        tensor, how, why = (fresh, NEW, "") if given is None else _rule(name)(given, fresh, old, model.config)
        out[name] = tensor.to(fresh.dtype)
        rows.append(Row(name, how, None if given is None else tuple(given.shape), tuple(fresh.shape), why))
    rows += [Row(name, LEFT, tuple(tensors[name].shape), None) for name in tensors if name not in out]
    return out, rows


Rule = Callable[[Tensor, Tensor, DiTConfig, DiTConfig], Fitted]


def _rule(name: str) -> Rule:
    label = LABEL.fullmatch(name)
    if label is not None:
        return lambda given, fresh, old, new: _classes(label[1], given, fresh, old, new)
    rules: dict[str, Rule] = {"embed.weight": _embed, "output.linear.weight": _output, "output.linear.bias": _output}
    rules |= dict.fromkeys(("modulation.linear.weight", "modulation.linear.bias", "modulation.blocks"), _modulation)
    return rules.get(name, _same)


def _place(name: str, old: DiTConfig, new: DiTConfig) -> str:
    """What an old tensor is called in the new model: beside a text's stream, the sample's has a name of its own."""
    had, has = (isinstance(config.text, Joint) for config in (old, new))
    if had == has:
        return name
    return STREAM.sub(r"\1\2", name) if had else ALONE.sub(r"\1sample.\2", name)


def _same(given: Tensor, fresh: Tensor, old: DiTConfig, new: DiTConfig) -> Fitted:
    return (given, KEPT, "") if given.shape == fresh.shape else (fresh, NEW, "another shape")


def _classes(name: str, given: Tensor, fresh: Tensor, old: DiTConfig, new: DiTConfig) -> Fitted:
    """A table of classes, with one row more where a null was learned."""
    a, b = old.conditions.get(name), new.conditions[name]
    if not isinstance(a, Label) or not isinstance(b, Label) or given.shape[1] != fresh.shape[1]:
        return fresh, NEW, "another condition or width"
    given, count = given.to(fresh.dtype), b.classes or 0
    null = given[-1] if a.dropout else None
    if a.names and b.names:
        places = [a.names.index(own) if own in a.names else None for own in b.names]
    else:
        places = list(range(count)) if a.classes == b.classes else [None] * count
    if given.shape == fresh.shape and places == list(range(count)) and bool(a.dropout) == bool(b.dropout):
        return given, KEPT, ""
    rows = [null if place is None else given[place] for place in places] + ([null] if b.dropout else [])
    table = torch.stack([own if row is None else row for row, own in zip(rows, fresh, strict=True)])
    known = sum(place is not None for place in places)
    others = "are new" if null is None else "begin as the null"
    return table, PART if known or null is not None else NEW, f"{known} of {count} classes are known, others {others}"


def _embed(given: Tensor, fresh: Tensor, old: DiTConfig, new: DiTConfig) -> Fitted:
    """The patch embedding: values of a patch are ordered channel first, the sample's and then each field's."""
    if given.shape[0] != fresh.shape[0] or len(old.patch) != len(new.patch):
        return fresh, NEW, "another width or number of axes"
    had, has = _sections(old), _sections(new)
    if (old.patch, had) == (new.patch, has):
        return given, KEPT, ""
    weight = given.unflatten(1, (sum(had.values()), *old.patch))
    for axis, (a, b) in enumerate(zip(old.patch, new.patch, strict=True)):
        if a != b:
            weight = _along(2 + axis, weight, torch.linalg.pinv(_interpolation(a, b).T))
    whole = weight.new_zeros(len(fresh), sum(has.values()), *new.patch)
    places = dict(zip(has, whole.split(list(has.values()), dim=1), strict=True))
    for name, part in zip(had, weight.split(list(had.values()), dim=1), strict=True):
        if name in places:
            kept = min(had[name], has[name])
            places[name][:, :kept] = part[:, :kept]
    return whole.flatten(1), RESIZED if had == has else PART, _changes(old, new, had, has)


def _output(given: Tensor, fresh: Tensor, old: DiTConfig, new: DiTConfig) -> Fitted:
    """The last product: values of a patch are ordered axes first, then prediction and variance, then the channel."""
    if old.width != new.width or len(old.patch) != len(new.patch):
        return fresh, NEW, "another width or number of axes"
    had, has = ({"prediction": c.in_channels, "variance": c.out_channels - c.in_channels} for c in (old, new))
    if (old.patch, had) == (new.patch, has):
        return given, KEPT, ""
    kinds = [1 + bool(c["variance"]) for c in (had, has)]
    rows = given.unflatten(0, (*old.patch, kinds[0], old.in_channels))
    axes = len(new.patch)
    for axis, (a, b) in enumerate(zip(old.patch, new.patch, strict=True)):
        if a != b:
            rows = _along(axis, rows, _interpolation(a, b))
    whole = rows.new_zeros(*new.patch, kinds[1], new.in_channels, *given.shape[1:])
    both, kept = min(kinds), min(old.in_channels, new.in_channels)
    there = (*(slice(None),) * axes, slice(both), slice(kept))
    whole[there] = rows[there]
    return whole.flatten(0, axes + 1), RESIZED if had == has else PART, _changes(old, new, had, has)


def _modulation(given: Tensor, fresh: Tensor, old: DiTConfig, new: DiTConfig) -> Fitted:
    """Rows that condition or table set in each block, and after the blocks' those of the output."""
    if (old.width, type(old.modulation)) != (new.width, type(new.modulation)):
        return fresh, NEW, "another width or kind"
    had, has = _rows(old), _rows(new)
    if had == has:
        return given, KEPT, ""
    whole, blocks = fresh.clone(), min(old.depth, new.depth)
    if isinstance(old.modulation, Shared):  # of each block the first rows, which are the sample's
        there = (slice(blocks), slice(MODULATIONS)) if given.ndim == 3 else (slice(MODULATIONS * old.width),)
        whole[there] = given[there].to(whole.dtype)
    else:
        for a, b in zip(_places(had, old.width), _places(has, new.width), strict=False):
            kept = min(a.stop - a.start, b.stop - b.start)
            whole[b.start : b.start + kept] = given[a.start : a.start + kept].to(whole.dtype)
        ends = slice(-OUTPUT_ROWS * old.width, None)
        whole[ends] = given[ends].to(whole.dtype)
    return whole, PART, f"of {blocks} blocks, what both have; more begins at zero"


def _rows(config: DiTConfig) -> list[int]:
    """Rows of modulation of each part of each block: the sample's, those of a second attention, the text's."""
    with torch.device("meta"):
        blocks = list(DiT(config).blocks)
    return [n for block in blocks for n in (block.parts if isinstance(block, JointBlock) else (MODULATIONS, 0, 0))]


def _places(rows: Sequence[int], width: int) -> list[slice]:
    ends = [width * end for end in accumulate(rows)]
    return [slice(end - width * count, end) for end, count in zip(ends, rows, strict=True)]


def _sections(config: DiTConfig) -> dict[str, int]:
    """Channels that enter the patch embedding: the sample's, then each field's, by its name."""
    fields = {name: c.channels or 0 for name, c in config.conditions.items() if isinstance(c, Field)}
    return {"": config.in_channels, **fields}


def _changes(old: DiTConfig, new: DiTConfig, had: Mapping[str, int], has: Mapping[str, int]) -> str:
    """In what a patch's values differ."""
    said = [f"patch {old.patch} -> {new.patch}"] if old.patch != new.patch else []
    for name in dict.fromkeys((*had, *has)):
        a, b = had.get(name, 0), has.get(name, 0)
        if a != b:
            said.append(f"{f'{name}: ' if name else ''}{a} -> {b} channels")
    return ", ".join(said)


def _interpolation(old: int, new: int) -> Float[Tensor, "new old"]:
    """The matrix that stretches `old` values along an axis to `new`, by linear interpolation between their centres."""
    one_each = torch.eye(old, dtype=torch.float64)[None]
    return F.interpolate(one_each, size=new, mode="linear", align_corners=False)[0].T


def _along(axis: int, x: Tensor, matrix: Float[Tensor, "new old"]) -> Tensor:
    """`x` with its axis of `old` values multiplied by a matrix; in doubles."""
    return (x.double().movedim(axis, -1) @ matrix.T).movedim(-1, axis)
