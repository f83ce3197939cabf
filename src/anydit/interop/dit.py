"""Checkpoints in the format of the published DiT (facebookresearch/DiT, Peebles & Xie 2022), read and written.

Three things differ from anydit's own names: the patch embedding is a convolution's kernel, each block holds its own
modulation (here they are the rows of one product, block by block), and the table of positions is stored.
"""

import re
from argparse import Namespace
from collections.abc import Mapping, Set
from dataclasses import replace
from math import isqrt
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor

from anydit.config import Json, differences, to_json
from anydit.model.blocks import MODULATIONS, OUTPUT_ROWS
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import GELU
from anydit.model.presets import SIZES
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import SinCos, coordinates, sincos_table
from anydit.weights import load_strictly, write_atomically

Weights = dict[str, Tensor]

HEADS = {width: heads for _, width, heads in SIZES.values()}
"""Heads of the published sizes, by width: the one number that no weight's shape shows."""

OUTER = {
    "x_embedder.proj": "embed",
    "t_embedder.mlp.0": "conditioner.time.up",
    "t_embedder.mlp.2": "conditioner.time.down",
    "final_layer.linear": "output.linear",
}
INNER = {"attn.qkv": "attention.qkv", "attn.proj": "attention.out", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"}
CLASSES = "y_embedder.embedding_table.weight"
OUR_CLASSES = "conditioner.vectors.label.table.weight"
POSITIONS = "pos_embed"
MODULATION, OUTPUT_MODULATION = "blocks.{}.adaLN_modulation.1", "final_layer.adaLN_modulation.1"


def read(
    path: Path, *, heads: int | None = None, classes: int | None = None, ema: bool = True
) -> tuple[DiTConfig, Weights]:
    """A checkpoint's config and weights, the latter under anydit's names.

    The file is a plain state dict, or a training checkpoint with "ema" and "model"; `ema` says which of these.
    `heads`, `classes`: as in `from_published`. Nothing but tensors is unpickled.

    Raises:
        ValueError: the file is not such a checkpoint, with the reason.
    """
    return from_published(load_state(path, ema), heads=heads, classes=classes, source=path)


def write(config: DiTConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a model in the published format, as a plain state dict.

    Raises:
        ValueError: the format cannot express the config.
    """
    state = to_published(config, tensors)
    write_atomically(path, lambda to: torch.save(state, to))


def load_state(path: Path, ema: bool = True) -> Weights:
    """The tensors of a checkpoint: of the averaged or of the trained weights, where it is one of training.

    Raises:
        ValueError: as `load_pickle`, or it holds something else.
    """
    content = load_pickle(path)
    return plain(content.get("ema" if ema else "model", content), path)


def load_pickle(path: Path) -> dict[str, Any]:
    """What a `.pt` or `.bin` file holds, if that is a dictionary of tensors and plain values; runs no code.

    Raises:
        ValueError: it is missing, cut short, holds anything else, or tries to.
    """
    if not path.is_file():
        raise ValueError(f"path: got {path}, which does not exist; expected a checkpoint file")
    try:
        # Training checkpoints keep their command line beside the weights, as a namespace: attributes and no code.
        with torch.serialization.safe_globals([Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (
        UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"path: got {path}, which cannot be read as a checkpoint of plain tensors: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"path: got {path}, which holds a {type(content).__name__}; expected a dictionary of tensors")
    return cast("dict[str, Any]", content)


def plain(content: Any, path: Path) -> Weights:
    """`content`, if it is a state dict; `path` is for the message if it is not."""
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in cast("Json", content).values()):
        raise ValueError(f"path: got {path}, which holds something else; expected a dictionary of tensors")
    return cast("Weights", content)


def from_published(
    state: Mapping[str, Tensor], *, heads: int | None = None, classes: int | None = None, source: object = "checkpoint"
) -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of a published state dict; the config follows from the shapes.

    `heads`: of a width that is none of the published ones. `classes`: None takes the last row of the class table as the
    null, as published; a model trained without label dropout has as many rows as classes, and no null.

    Raises:
        ValueError: names keys that are missing or unknown, or shapes that make no DiT.
    """
    depth = depth_of(state)
    refuse_keys(state.keys(), keys(depth), source)
    config, tensors = config_of(state, heads, classes), our_tensors(state)
    check_fit(config, tensors, source)
    return config, tensors


def to_published(config: DiTConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """The published state dict of a model: the inverse of `from_published`.

    Raises:
        ValueError: names each field that the format cannot express, or tensors that are not this config's.
    """
    refuse_options(config, expressible(config), "the published format")
    check_fit(config, tensors, "the model")
    return their_tensors(config, tensors)


def depth_of(state: Mapping[str, Tensor]) -> int:
    """How many blocks a state dict has; one at least, whose names are then missing."""
    return max(1, len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}))


def keys(depth: int) -> set[str]:
    """The names in a published state dict."""
    return {*_names(depth), *_modulation(depth, "weight"), *_modulation(depth, "bias"), POSITIONS}


def our_tensors(state: Mapping[str, Tensor]) -> Weights:
    """A published state dict under anydit's names, in anydit's layout; what stands there besides is left out."""
    depth = depth_of(state)
    tensors = {ours: state[theirs] for theirs, ours in _names(depth).items()}
    tensors["embed.weight"] = tensors["embed.weight"].flatten(1)
    for kind in ("weight", "bias"):
        tensors[f"modulation.linear.{kind}"] = torch.cat([state[name] for name in _modulation(depth, kind)])
    return tensors


def their_tensors(config: DiTConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """The inverse of `our_tensors`, with the positions."""
    state = {theirs: tensors[ours] for theirs, ours in _names(config.depth).items()}
    kernel = state["x_embedder.proj.weight"]
    state["x_embedder.proj.weight"] = kernel.reshape(len(kernel), config.in_channels, *config.patch)
    sizes = [MODULATIONS * config.width] * config.depth + [OUTPUT_ROWS * config.width]
    for kind in ("weight", "bias"):
        rows = tensors[f"modulation.linear.{kind}"].split(sizes)
        state |= dict(zip(_modulation(config.depth, kind), rows, strict=True))
    state[POSITIONS] = _positions(config)[None]
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def expressible(config: DiTConfig) -> DiTConfig:
    """The config nearest to `config` that the published format can hold: the published options, at its sizes."""
    size = None if config.size is None else (config.size[0],) * 2
    label = config.conditions.get("label")
    return DiTConfig(
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        patch=(config.patch[0],) * 2,
        channels=config.channels,
        size=size if size and size[0] % config.patch[0] == 0 else None,
        conditions={"label": label if isinstance(label, Label) else Label()},
        mlp=GELU(config.mlp.ratio),
        time=replace(TimeEmbedding(), frequencies=config.time.frequencies),
        learned_variance=config.learned_variance,
    )


def refuse_options(config: DiTConfig, nearest: DiTConfig, form: str) -> None:
    """Refuse a config that a format cannot hold, naming every field that stands in the way."""
    faults = [f"{field}: got {a}, expected {b}" for field, a, b in differences(to_json(config), to_json(nearest))]
    if faults:
        raise ValueError(f"model: {form} cannot hold {'; '.join(faults)}")


def refuse_keys(got: Set[str], expected: Set[str], source: object) -> None:
    """Refuse a state dict whose names are not exactly the expected ones, naming up to eight of them."""
    faults = [f"missing {name}" for name in sorted(expected - got)] + [f"unknown {n}" for n in sorted(got - expected)]
    if faults:
        more = f" and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise ValueError(f"keys: {source} is not of this format: {'; '.join(faults[:8])}{more}")


def check_fit(config: DiTConfig, tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse tensors that are not exactly those of a model of this config; none is copied."""
    with torch.device("meta"):
        model = DiT(config)
    load_strictly(model, tensors, source)


def _names(depth: int) -> dict[str, str]:
    """Their name to ours, for all but the modulation and the positions."""
    pairs = dict(OUTER)
    for n in range(depth):
        pairs |= {f"blocks.{n}.{theirs}": f"blocks.{n}.{ours}" for theirs, ours in INNER.items()}
    both = {f"{a}.{kind}": f"{b}.{kind}" for a, b in pairs.items() for kind in ("weight", "bias")}
    return both | {CLASSES: OUR_CLASSES}


def _modulation(depth: int, kind: str) -> list[str]:
    """Their names of what is one product here, in the order of its rows."""
    return [f"{MODULATION.format(n)}.{kind}" for n in range(depth)] + [f"{OUTPUT_MODULATION}.{kind}"]


def config_of(state: Mapping[str, Tensor], heads: int | None = None, classes: int | None = None) -> DiTConfig:
    """The config that follows from a published state dict. Arguments as in `from_published`.

    Raises:
        ValueError: the shapes make no DiT, or the positions are not those that anydit computes.
    """
    kernel, table, time = state["x_embedder.proj.weight"], state[CLASSES], state["t_embedder.mlp.0.weight"]
    if kernel.ndim != 4 or state[POSITIONS].ndim != 3 or table.ndim != 2 or time.ndim != 2:
        raise ValueError(f"x_embedder.proj.weight: got shape {tuple(kernel.shape)}, expected (width, channels, p, p)")
    width, channels, patch = kernel.shape[:3]
    if heads is None and width not in HEADS:
        raise ValueError(f"heads: got None, expected a number, because width {width} is none of {sorted(HEADS)}")
    tokens, values = state[POSITIONS].shape[1], len(state["final_layer.linear.bias"])
    side = isqrt(tokens)
    if side**2 != tokens:
        raise ValueError(f"pos_embed: got {tokens} places, expected a square number: the format knows squares only")
    rows = len(table)
    null = classes is None or classes < rows
    config = DiTConfig(
        width=width,
        depth=depth_of(state),
        heads=heads or HEADS[width],
        patch=(patch, patch),
        channels=channels,
        size=(side * patch, side * patch),
        conditions={"label": Label(rows - null if classes is None else classes, dropout=0.1 if null else 0.0)},
        mlp=GELU(len(state["blocks.0.mlp.fc1.bias"]) / width),
        time=TimeEmbedding(frequencies=time.shape[1]),
        learned_variance=values == 2 * channels * patch**2,
    )
    _check_positions(state[POSITIONS], config)
    return config


def _positions(config: DiTConfig) -> Tensor:
    return sincos_table(coordinates(config.grid), config.width, SinCos().max_period)


def _check_positions(stored: Tensor, config: DiTConfig) -> None:
    own = _positions(config)[None]
    if stored.shape != own.shape:
        raise ValueError(f"pos_embed: got shape {tuple(stored.shape)}, expected {tuple(own.shape)}")
    off = float((stored.double() - own.double()).abs().max())
    if not off <= max(1e-6, torch.finfo(stored.dtype).eps):
        raise ValueError(
            f"pos_embed: differs by {off:.2g} from the sine-cosine table that anydit computes; expected it"
        )
