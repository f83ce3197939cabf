"""Checkpoints in the format of SiT (willisma/SiT; Ma 2024, arXiv 2401.08740), read and written.

The network and the names of its tensors are the published DiT's. Three conventions are others:
- its time runs from 0 for noise to 1 for data, and sinusoids see it unscaled. With scale 1 and shift -1 anydit's sees
  the negative of that: the same cosines, and sines of the other sign, which `turned` gives to their weights;
- it predicts the velocity towards data, anydit's networks that towards noise: `turned` turns the output round as well;
- it has a second output for each channel, as the DiT, and throws it away: here it is left out, and written as zeros.
A file does not say which path and prediction it is for; these are the published ones, linear and velocity.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from anydit.interop.dit import (
    Weights,
    check_fit,
    expressible,
    from_published,
    load_state,
    refuse_options,
    to_published,
)
from anydit.model.dit import DiTConfig
from anydit.model.time import TimeEmbedding
from anydit.weights import write_atomically

TIME = TimeEmbedding(scale=1.0, shift=-1.0)


def read(
    path: Path, *, heads: int | None = None, classes: int | None = None, ema: bool = True
) -> tuple[DiTConfig, Weights]:
    """A checkpoint's config and weights, the latter under anydit's names. Arguments as in `anydit.interop.dit.read`.

    Raises:
        ValueError: the file is not such a checkpoint, with the reason.
    """
    return from_sit(load_state(path, ema), heads=heads, classes=classes, source=path)


def write(config: DiTConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a model in SiT's format, as a plain state dict.

    Raises:
        ValueError: the format cannot express the config.
    """
    state = to_sit(config, tensors)
    write_atomically(path, lambda to: torch.save(state, to))


def from_sit(
    state: Mapping[str, Tensor], *, heads: int | None = None, classes: int | None = None, source: object = "checkpoint"
) -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of a SiT's state dict. Arguments as in `anydit.interop.dit.from_published`.

    Raises:
        ValueError: names keys that are missing or unknown, or shapes that make no SiT.
    """
    return as_flow(*from_published(state, heads=heads, classes=classes, source=source))


def to_sit(config: DiTConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """The state dict of the SiT that computes the same: the inverse of `from_sit`, but for the output thrown away.

    Raises:
        ValueError: names each field that the format cannot express, or tensors that are not this config's.
    """
    time = replace(TIME, frequencies=config.time.frequencies)
    refuse_options(config, replace(expressible(config), time=time, learned_variance=False), "SiT's format")
    check_fit(config, tensors, "the model")
    return to_published(*as_diffusion(config, tensors))


def as_flow(config: DiTConfig, tensors: Weights) -> tuple[DiTConfig, Weights]:
    """A model that was read as a DiT's, with the conventions of SiT turned into anydit's."""
    tensors = turned(tensors)
    if config.learned_variance:
        for name in ("output.linear.weight", "output.linear.bias"):
            rows = tensors[name].unflatten(0, (prod(config.patch), config.out_channels))
            tensors[name] = rows[:, : config.in_channels].flatten(0, 1)
    time = replace(TIME, frequencies=config.time.frequencies)
    return replace(config, time=time, learned_variance=False), tensors


def as_diffusion(config: DiTConfig, tensors: Mapping[str, Tensor]) -> tuple[DiTConfig, Weights]:
    """The inverse of `as_flow`, with zeros for the output that is thrown away."""
    state = turned(tensors)
    for name in ("output.linear.weight", "output.linear.bias"):
        rows = state[name].unflatten(0, (prod(config.patch), config.in_channels))
        state[name] = torch.cat([rows, torch.zeros_like(rows)], dim=1).flatten(0, 1)
    time = replace(TimeEmbedding(), frequencies=config.time.frequencies)
    return replace(config, time=time, learned_variance=True), state


def turned(tensors: Mapping[str, Tensor]) -> Weights:
    """Weights of the same network for a time, and with an output, of the other sign; twice turned is as before."""
    out = dict(tensors)
    cosines, sines = out["conditioner.time.up.weight"].chunk(2, dim=1)
    out["conditioner.time.up.weight"] = torch.cat([cosines, -sines], dim=1)
    for name in ("output.linear.weight", "output.linear.bias"):
        out[name] = -out[name]
    return out
