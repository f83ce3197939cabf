"""Stable Diffusion 3 and 3.5 (MM-DiT) as diffusers has them (`SD3Transformer2DModel`), read and written.

Such a model has no learned null: samples are guided away from what the encoders make of the empty (or a negative) text.
It attends to the padding of a text too: all of its tokens exist. What differs in form:
- the text's queries in the last block, which nothing reads, are left out here, and written as zeros;
- the table of positions, constant there, is learned here; a computed one is written out, for the trained size;
- in the output and in the last block's text, their modulation has the scale before the shift.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from anydit.config import Json
from anydit.interop.dit import check_fit, refuse_keys, refuse_options
from anydit.interop.folders import checked, read_model, write_model
from anydit.interop.names import Names, Weights, halves_exchanged, layers, ours, theirs
from anydit.model.blocks import DUAL_ROWS, MODULATIONS, OUTPUT_ROWS, READ_ROWS
from anydit.model.dit import DiTConfig
from anydit.model.norms import LayerNorm, Norm, RMSNorm
from anydit.model.text import Joint, Pooled, Text
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import Learned, SinCos, coordinates, sincos_table

KIND = "SD3Transformer2DModel"
SIZES: Json = {
    "attention_head_dim": 64,
    "caption_projection_dim": 1152,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 18,
    "num_layers": 18,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 96,
    "sample_size": 128,
}
OTHER: Json = {"dual_attention_layers": (), "out_channels": 16, "qk_norm": None}
"""Options of diffusers' class, with its defaults."""
QK_NORMS: dict[str | None, Norm | None] = {None: None, "rms_norm": RMSNorm(), "layer_norm": LayerNorm()}

TIME = TimeEmbedding(shift=0.0)
"""What the network is told: 1,000 t."""

OUTER = {
    "embed": "pos_embed.proj",
    "conditioner.time.up": "time_text_embed.timestep_embedder.linear_1",
    "conditioner.time.down": "time_text_embed.timestep_embedder.linear_2",
    "conditioner.vectors.text.up": "time_text_embed.text_embedder.linear_1",
    "conditioner.vectors.text.down": "time_text_embed.text_embedder.linear_2",
    "conditioner.texts.text.up": "context_embedder",
    "output.linear": "proj_out",
}
SAMPLE = {
    "sample.attention.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "sample.attention.out": ("attn.to_out.0",),
    "sample.mlp.up": ("ff.net.0.proj",),
    "sample.mlp.down": ("ff.net.2",),
}
TEXT = {
    "context.attention.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context.attention.out": ("attn.to_add_out",),
    "context.mlp.up": ("ff_context.net.0.proj",),
    "context.mlp.down": ("ff_context.net.2",),
}
READ_TEXT = {"context.attention.kv": ("attn.add_k_proj", "attn.add_v_proj")}
DUAL = {"dual.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"), "dual.out": ("attn2.to_out.0",)}
NORMS = {
    "sample.attention.q_norm": "attn.norm_q",
    "sample.attention.k_norm": "attn.norm_k",
    "context.attention.q_norm": "attn.norm_added_q",
    "context.attention.k_norm": "attn.norm_added_k",
    "dual.q_norm": "attn2.norm_q",
    "dual.k_norm": "attn2.norm_k",
}
POSITIONS, KERNEL, QUERIES = "pos_embed.pos_embed", "pos_embed.proj.weight", "attn.add_q_proj"


def read(folder: Path) -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of an `SD3Transformer2DModel` folder, or of a pipeline's folder that holds one.

    Raises:
        ValueError: a file is missing or damaged, or the model is not one that anydit's network computes.
    """
    return from_diffusers(*read_model(folder))


def write(config: DiTConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write an `SD3Transformer2DModel` folder.

    Raises:
        ValueError: diffusers has no such model; nothing is written then.
    """
    write_model(*to_diffusers(config, tensors), folder)


def from_diffusers(about: Json, state: Mapping[str, Tensor], source: object = "model") -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of an `SD3Transformer2DModel`'s config and state dict.

    Raises:
        ValueError: they do not fit together, or have options that anydit has not.
    """
    config = _config(checked(about, [KIND], {}, SIZES, OTHER, source), source)
    names, unused = _names(config), _unused(config)
    refuse_keys(state.keys(), {*unused, *(name for several in names.values() for name in several)}, source)
    shaped = {**state, POSITIONS: state[POSITIONS].squeeze(0), KERNEL: state[KERNEL].flatten(1)}
    shaped |= {name: halves_exchanged(state[name]) for name in _exchanged(config)}
    tensors = ours(shaped, names)
    check_fit(config, tensors, source)
    return config, tensors


def to_diffusers(config: DiTConfig, tensors: Mapping[str, Tensor], time: TimeEmbedding = TIME) -> tuple[Json, Weights]:
    """Config and state dict of the `SD3Transformer2DModel` that computes the same: the inverse of `from_diffusers`.

    `time`: what a scheduler tells the network.

    Raises:
        ValueError: there is none; names each field that stands in the way.
    """
    if isinstance(config.position, SinCos):  # stored there
        table = sincos_table(coordinates(config.grid, config.position.extent), config.width, config.position.max_period)
        config, tensors = replace(config, position=Learned(config.grid)), {**tensors, "positions": table}
    about = _about(config)
    refuse_options(config, replace(_config(about, "the model"), time=time), "diffusers' SD3")
    check_fit(config, tensors, "the model")
    state = theirs(tensors, _names(config), _rows(config))
    state[POSITIONS] = state[POSITIONS][None]
    state[KERNEL] = state[KERNEL].reshape(config.width, config.in_channels, *config.patch)
    state |= {name: halves_exchanged(state[name]) for name in _exchanged(config)}
    for name, shape in _unused(config).items():
        state[name] = torch.zeros(shape, dtype=state[KERNEL].dtype)
    return about, state


def _names(config: DiTConfig) -> Names:
    pairs: dict[str, str | tuple[str, ...]] = {**OUTER}
    norms = dict[str, str]()
    modulation = list[str]()
    for n in range(config.depth):
        last, dual = n == config.depth - 1, n < _dual(config)
        inner = {**SAMPLE, **(READ_TEXT if last else TEXT), **(DUAL if dual else {})}
        at = f"transformer_blocks.{n}"
        pairs |= {f"blocks.{n}.{a}": tuple(f"{at}.{b}" for b in bs) for a, bs in inner.items()}
        modulation += [f"{at}.norm1.linear", f"{at}.norm1_context.linear"]
        own = {a: b for a, b in NORMS.items() if dual or not a.startswith("dual.")}
        norms |= {
            f"blocks.{n}.{a}": f"{at}.{b}" for a, b in own.items() if not (last and a == "context.attention.q_norm")
        }
    pairs["modulation.linear"] = (*modulation, "norm_out.linear")
    kinds = {RMSNorm: ("weight",), LayerNorm: ("weight", "bias")}.get(type(config.qk_norm), ())
    return {
        **layers(pairs),
        **{f"{a}.{kind}": [f"{b}.{kind}"] for a, b in norms.items() for kind in kinds},
        "positions": [POSITIONS],
    }


def _dual(config: DiTConfig) -> int:
    return config.text.dual if isinstance(config.text, Joint) else 0


def _exchanged(config: DiTConfig) -> list[str]:
    """Their modulations that have the scale first."""
    last = f"transformer_blocks.{config.depth - 1}.norm1_context.linear"
    return [f"{name}.{kind}" for name in (last, "norm_out.linear") for kind in ("weight", "bias")]


def _rows(config: DiTConfig) -> dict[str, int]:
    """Rows of their modulations."""
    rows = {"norm_out.linear": OUTPUT_ROWS}
    for n in range(config.depth):
        at = f"transformer_blocks.{n}"
        rows[f"{at}.norm1.linear"] = MODULATIONS + (DUAL_ROWS if n < _dual(config) else 0)
        rows[f"{at}.norm1_context.linear"] = READ_ROWS if n == config.depth - 1 else MODULATIONS
    return {f"{name}.{kind}": count * config.width for name, count in rows.items() for kind in ("weight", "bias")}


def _unused(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of what is there but has no influence: the last block's queries of the text."""
    at, width, head = f"transformer_blocks.{config.depth - 1}", config.width, config.width // config.heads
    shapes: dict[str, tuple[int, ...]] = {f"{at}.{QUERIES}.weight": (width, width), f"{at}.{QUERIES}.bias": (width,)}
    if config.qk_norm is not None:
        shapes[f"{at}.attn.norm_added_q.weight"] = (head,)
    if isinstance(config.qk_norm, LayerNorm):
        shapes[f"{at}.attn.norm_added_q.bias"] = (head,)
    return shapes


def _config(got: Json, source: object) -> DiTConfig:
    side, width = got["sample_size"], got["num_attention_heads"] * got["attention_head_dim"]
    outputs, dual = got["out_channels"] or got["in_channels"], list(got["dual_attention_layers"] or ())
    faults = list[str]()
    if got["caption_projection_dim"] != width:
        faults.append(f"caption_projection_dim: got {got['caption_projection_dim']}, expected the width {width}")
    if outputs != got["in_channels"]:
        faults.append(f"out_channels: got {outputs}, expected those of in_channels {got['in_channels']}")
    if dual != list(range(len(dual))):
        faults.append(f"dual_attention_layers: got {dual}, expected the first ones, from 0 on")
    if got["qk_norm"] not in QK_NORMS:
        faults.append(f"qk_norm: got {got['qk_norm']!r}, expected one of {', '.join(map(str, QK_NORMS))}")
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    text = Text(got["joint_attention_dim"], got["pooled_projection_dim"], Joint(Pooled(), len(dual)), dropout=0.0)
    return DiTConfig(
        width=width,
        depth=got["num_layers"],
        heads=got["num_attention_heads"],
        patch=(got["patch_size"],) * 2,
        channels=got["in_channels"],
        size=(side, side),
        conditions={"text": text},
        position=Learned((got["pos_embed_max_size"],) * 2),
        qk_norm=QK_NORMS[got["qk_norm"]],
        time=TIME,
    )


def _about(config: DiTConfig) -> Json:
    """The options of diffusers' class that come nearest to a config."""
    text = config.conditions.get("text")
    text = text if isinstance(text, Text) else Text()
    canvas = config.position.canvas if isinstance(config.position, Learned) else config.grid
    return {
        "_class_name": KIND,
        "attention_head_dim": config.width // config.heads,
        "caption_projection_dim": config.width,
        "dual_attention_layers": list(range(_dual(config))),
        "in_channels": config.in_channels,
        "joint_attention_dim": text.width,
        "num_attention_heads": config.heads,
        "num_layers": config.depth,
        "out_channels": config.in_channels,
        "patch_size": config.patch[0],
        "pooled_projection_dim": text.pooled,
        "pos_embed_max_size": canvas[0],
        "qk_norm": next((name for name, norm in QK_NORMS.items() if norm == config.qk_norm), None),
        "sample_size": config.grid[0] * config.patch[0],
    }
