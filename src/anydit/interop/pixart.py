"""PixArt-alpha and PixArt-Sigma as diffusers has them (`PixArtTransformer2DModel`), read and written.

Such a model has no learned null: samples are guided away from what the encoder makes of the empty (or a negative) text.
What PixArt-alpha at 1,024 pixels is also told, the picture's size and aspect ratio, has no counterpart here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from anydit.config import Json
from anydit.interop.dit import check_fit, refuse_keys, refuse_options
from anydit.interop.folders import checked, read_model, write_model
from anydit.interop.names import Names, Weights, layers, ours, theirs
from anydit.model.dit import DiTConfig
from anydit.model.modulation import Shared
from anydit.model.text import Cross, Text
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import SinCos

KINDS = ("PixArtTransformer2DModel", "Transformer2DModel")
"""The class, and the wider one of which it was a part when PixArt-alpha was published."""
FIXED: Json = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "dropout": 0.0,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "norm_type": "ada_norm_single",
    "upcast_attention": False,
}
"""Options of diffusers' class of which there is one value only here; also its defaults."""
SIZES: Json = {
    "attention_head_dim": 72,
    "caption_channels": None,
    "cross_attention_dim": 1152,
    "in_channels": 4,
    "num_attention_heads": 16,
    "num_layers": 28,
    "patch_size": 2,
    "sample_size": 128,
}
OTHER: Json = {
    "interpolation_scale": None,
    "norm_num_groups": 32,
    "num_embeds_ada_norm": 1000,
    "out_channels": 8,
    "use_additional_conditions": None,
}
TIME = TimeEmbedding()
"""What the network is told: the index of one of 1,000 steps."""

OUTER = {
    "embed": "pos_embed.proj",
    "conditioner.time.up": "adaln_single.emb.timestep_embedder.linear_1",
    "conditioner.time.down": "adaln_single.emb.timestep_embedder.linear_2",
    "conditioner.texts.text.up": "caption_projection.linear_1",
    "conditioner.texts.text.down": "caption_projection.linear_2",
    "modulation.linear": "adaln_single.linear",
    "output.linear": "proj_out",
}
INNER = {
    "attention.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attention.out": ("attn1.to_out.0",),
    "cross.q": ("attn2.to_q",),
    "cross.context.kv": ("attn2.to_k", "attn2.to_v"),
    "cross.out": ("attn2.to_out.0",),
    "mlp.up": ("ff.net.0.proj",),
    "mlp.down": ("ff.net.2",),
}
TABLES, TABLE = "modulation.blocks", "scale_shift_table"
DROPPED = "caption_projection.y_embedding"
"""What stood for dropped texts in the training of the published weights; diffusers leaves it unused, and so do we."""
KERNEL = "pos_embed.proj.weight"


def read(folder: Path) -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of a `PixArtTransformer2DModel` folder, or of a pipeline's folder that holds one.

    Raises:
        ValueError: a file is missing or damaged, or the model is not one that anydit's network computes.
    """
    return from_diffusers(*read_model(folder))


def write(config: DiTConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write a `PixArtTransformer2DModel` folder.

    Raises:
        ValueError: diffusers has no such model; nothing is written then.
    """
    write_model(*to_diffusers(config, tensors), folder)


def from_diffusers(about: Json, state: Mapping[str, Tensor], source: object = "model") -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of a `PixArtTransformer2DModel`'s config and state dict.

    Raises:
        ValueError: they do not fit together, or have options that anydit has not.
    """
    config = _config(checked(about, KINDS, FIXED, SIZES, OTHER, source), source)
    names = _names(config.depth)
    refuse_keys(state.keys() - {DROPPED}, {name for several in names.values() for name in several}, source)
    # A table of each block, stacked; the patch embedding is a convolution's kernel.
    shaped = {name: value[None] if name.endswith(f".{TABLE}") else value for name, value in state.items()}
    tensors = ours({**shaped, KERNEL: state[KERNEL].flatten(1)}, names)
    check_fit(config, tensors, source)
    return config, tensors


def to_diffusers(config: DiTConfig, tensors: Mapping[str, Tensor], time: TimeEmbedding = TIME) -> tuple[Json, Weights]:
    """Config and state dict of the `PixArtTransformer2DModel` that computes the same: the inverse of `from_diffusers`.

    `time`: what a scheduler tells the network.

    Raises:
        ValueError: there is none; names each field that stands in the way.
    """
    about = _about(config)
    nearest = replace(_config({**FIXED, **OTHER, **about}, "the model"), time=time)
    text = config.conditions.get("text")
    if isinstance(text, Text):  # the width of a vector that does not enter says nothing
        own = Text(text.width, text.pooled, Cross(), dropout=0.0)
        nearest = replace(nearest, conditions={"text": own})
    refuse_options(config, nearest, "diffusers' PixArt")
    check_fit(config, tensors, "the model")
    state = theirs(tensors, _names(config.depth), {})
    state[KERNEL] = state[KERNEL].reshape(config.width, config.in_channels, *config.patch)
    return about, {name: value[0] if name.endswith(f".{TABLE}") else value for name, value in state.items()}


def _names(depth: int) -> Names:
    pairs: dict[str, str | tuple[str, ...]] = {**OUTER}
    for n in range(depth):
        inner = {f"blocks.{n}.{a}": tuple(f"transformer_blocks.{n}.{b}" for b in bs) for a, bs in INNER.items()}
        pairs |= inner
    tables = [f"transformer_blocks.{n}.{TABLE}" for n in range(depth)]
    return {**layers(pairs), TABLES: tables, "modulation.out": [TABLE]}


def _config(got: Json, source: object) -> DiTConfig:
    side, width = got["sample_size"], got["num_attention_heads"] * got["attention_head_dim"]
    outputs, channels = got["out_channels"] or got["in_channels"], got["in_channels"]
    sized, grid = got["use_additional_conditions"], side // got["patch_size"]
    scale = got["interpolation_scale"] or max(side // 64, 1)
    extent = max(round(grid / scale), 1)  # what the coordinates are squeezed into
    faults = list[str]()
    if abs(extent * scale - grid) > 1e-6 * grid:
        faults.append(f"interpolation_scale: got {scale}, expected one that divides {grid} patches")
    if side == 128 if sized is None else sized:
        faults.append(f"use_additional_conditions: got {sized} at size {side}, which means True; expected False")
    if got["cross_attention_dim"] != width:
        faults.append(f"cross_attention_dim: got {got['cross_attention_dim']}, expected the width {width}")
    if outputs not in (channels, 2 * channels):
        faults.append(f"out_channels: got {outputs}, expected {channels}, or {2 * channels} with a learned variance")
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    return DiTConfig(
        width=width,
        depth=got["num_layers"],
        heads=got["num_attention_heads"],
        patch=(got["patch_size"],) * 2,
        channels=channels,
        size=(side, side),
        conditions={"text": Text(width=got["caption_channels"], entry=Cross(), dropout=0.0)},
        position=SinCos(interpolate=True, extent=None if extent == grid else (extent, extent)),
        modulation=Shared(),
        time=TIME,
        learned_variance=outputs != channels,
    )


def _about(config: DiTConfig) -> Json:
    """The options of diffusers' class that come nearest to a config."""
    text = config.conditions.get("text")
    extent = config.position.extent if isinstance(config.position, SinCos) else None
    return {
        "_class_name": KINDS[0],
        **FIXED,
        "attention_head_dim": config.width // config.heads,
        "caption_channels": text.width if isinstance(text, Text) else None,
        "cross_attention_dim": config.width,
        "in_channels": config.in_channels,
        "interpolation_scale": config.grid[0] / extent[0] if extent else 1,
        "num_attention_heads": config.heads,
        "num_layers": config.depth,
        "out_channels": config.out_channels,
        "patch_size": config.patch[0],
        "sample_size": config.grid[0] * config.patch[0],
        "use_additional_conditions": False,
    }
