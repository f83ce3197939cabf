"""Folders of diffusers' `DiTTransformer2DModel` and `DiTPipeline`, read and written; diffusers itself is not needed.

Where diffusers' network is not the published one:
- its time frequencies reach 1 / 10,000 at the last of them, the published ones only after it. That is a longer period,
  `MAX_PERIOD`, which is what a model read from diffusers gets;
- its norm before each feed-forward network has an epsilon of its own, `norm_eps` (1e-5 unless said otherwise, where the
  published network has 1e-6): here `DiTConfig.mlp_norm`;
- each block keeps a copy of the time's and the classes' embedding. Published weights have equal copies; trained by
  diffusers they drift apart, and such a model is refused, because here (as published) all blocks share one.
`DiTPipeline` itself guides with class 1,000 as the null, whatever the model's number of classes is. The scheduler for
linear paths is one that it cannot step by; others, with `use_flow_sigmas`, can take its place and round times off.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from anydit.config import Json
from anydit.diffusion.paths import AnyPath, Linear
from anydit.diffusion.predictions import AnyPrediction
from anydit.interop.diffusers_names import diffusers_names, published_names
from anydit.interop.diffusers_schedulers import FILE, Schedule, schedule_for, schedule_of, told
from anydit.interop.dit import Weights, expressible, from_published, load_pickle, plain, refuse_options, to_published
from anydit.interop.folders import CONFIG, WEIGHTS, read_json, write_pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.norms import LayerNorm
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import coordinates, frequencies, sincos_table
from anydit.weights import load_tensors

FREQUENCIES = 256
MAX_PERIOD = 10_000.0 ** (FREQUENCIES / (FREQUENCIES - 2))
"""With this period anydit's time frequencies are those of diffusers: k / 128 of its logarithm is k / 127 of theirs."""

TIME_WEIGHT = "conditioner.time.up.weight"

PICKLE = "diffusion_pytorch_model.bin"
FIXED: Json = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "dropout": 0.0,
    "norm_elementwise_affine": False,
    "norm_type": "ada_norm_zero",
    "upcast_attention": False,
}
"""Options of diffusers' class of which a DiT has one value only; also its defaults."""
FREE = ("attention_head_dim", "in_channels", "num_attention_heads", "num_embeds_ada_norm", "num_layers", "patch_size")


def read(folder: Path) -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of a `DiTTransformer2DModel` folder, or of a `DiTPipeline` folder that holds one.

    Raises:
        ValueError: a file is missing or damaged, or the model is not one that anydit's network computes.
    """
    inner = folder / "transformer" if (folder / "transformer").is_dir() else folder
    about = read_json(inner / CONFIG)
    state = (
        load_tensors(inner / WEIGHTS)
        if (inner / WEIGHTS).is_file()
        else plain(load_pickle(inner / PICKLE), inner / PICKLE)
    )
    config, tensors = from_diffusers(about, state, inner)
    names = _class_names(folder / "model_index.json", cast("Label", config.conditions["label"]))
    return replace(config, conditions={"label": names}), tensors


def read_schedule(folder: Path) -> Schedule:
    """The path and prediction that a `DiTPipeline` folder's scheduler was made for, and how it samples.

    Raises:
        ValueError: there is none, or one that does something else than anydit's samplers.
    """
    return schedule_of(read_json(folder / FILE), folder / FILE)


def write(
    config: DiTConfig,
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    path: AnyPath,
    prediction: AnyPrediction,
    vae: Path | None = None,
    round_time: bool = False,
) -> None:
    """Write a `DiTPipeline` folder: transformer/, scheduler/, model_index.json, and a copy of a `vae` folder if given.

    `round_time`: write a model with the published time frequencies although diffusers has slightly other ones, as the
    published weights on its hub do; its output there is not the same.

    Raises:
        ValueError: diffusers has no such model, path or prediction; nothing is written then.
    """
    scheduler = schedule_for(path, prediction)
    if isinstance(path, Linear) and config.time.shift != 0:
        config, tensors = told_as(0.0, config, tensors)
    time = told(config.time, path, scheduler["num_train_timesteps"])
    about, state = to_diffusers(config, tensors, time=time, round_time=round_time)
    others: Json = {"vae": [None, None] if vae is None else ["diffusers", "AutoencoderKL"]}
    names = cast("Label", config.conditions["label"]).names
    if names:
        others["id2label"] = {str(i): name for i, name in enumerate(names)}
    write_pipeline(folder, "DiTPipeline", (about, state), scheduler, others)
    if vae is not None:
        shutil.copytree(vae, folder / "vae", dirs_exist_ok=True)


def from_diffusers(about: Json, state: Mapping[str, Tensor], source: object = "model") -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of a `DiTTransformer2DModel`'s config and state dict.

    Raises:
        ValueError: they do not fit together, or have options that a DiT has not.
    """
    got = _checked(about, source)
    patch, side = got["patch_size"], got["sample_size"] // got["patch_size"]
    width, depth = got["num_attention_heads"] * got["attention_head_dim"], got["num_layers"]
    table = sincos_table(coordinates((side, side)), width, 10_000.0)[None]
    published = published_names({"pos_embed.pos_embed": table, **state}, depth, source)
    config, tensors = from_published(published, heads=got["num_attention_heads"], source=source)
    found = {
        "in_channels": config.channels,
        "num_attention_heads * attention_head_dim": config.width,
        "num_embeds_ada_norm": cast("Label", config.conditions["label"]).classes,
        "out_channels": config.out_channels,
        "patch_size": config.patch[0],
    }
    said = {
        **got,
        "num_attention_heads * attention_head_dim": width,
        "out_channels": got["out_channels"] or config.channels,
    }
    for key, value in found.items():
        if said[key] != value:
            raise ValueError(f"{key}: {source} says {said[key]}, but its weights are of {value}")
    assert config.size == (side * patch, side * patch)
    time = TimeEmbedding(frequencies=config.time.frequencies, max_period=MAX_PERIOD)
    eps = got["norm_eps"]
    return replace(config, time=time, mlp_norm=None if eps == LayerNorm().eps else LayerNorm(eps)), tensors


def to_diffusers(
    config: DiTConfig,
    tensors: Mapping[str, Tensor],
    *,
    time: TimeEmbedding = TimeEmbedding(),  # noqa: B008, a frozen config
    round_time: bool = False,
) -> tuple[Json, Weights]:
    """Config and state dict of the `DiTTransformer2DModel` that computes the same: the inverse of `from_diffusers`.

    `time`: what a scheduler tells the network, in scale and shift.

    Raises:
        ValueError: there is none; names each field that stands in the way.
    """
    period = config.time.max_period if round_time else MAX_PERIOD
    label = config.conditions.get("label")
    null = label.dropout if isinstance(label, Label) and label.dropout else Label().dropout
    nearest = replace(
        expressible(config),
        time=replace(time, frequencies=FREQUENCIES, max_period=period),
        mlp_norm=config.mlp_norm if isinstance(config.mlp_norm, LayerNorm) else None,
        conditions={"label": replace(label, dropout=null) if isinstance(label, Label) else Label()},
    )
    refuse_options(replace(config, time=nearest.time), nearest, "diffusers")
    if config.time.max_period == TimeEmbedding().max_period and not round_time:
        hint = "train with it (anydit.interop.diffusers.MAX_PERIOD) or accept other time frequencies with round_time"
        raise ValueError(f"time.max_period: got {config.time.max_period}, expected {MAX_PERIOD} for diffusers; {hint}")
    refuse_options(config, nearest, "diffusers")
    published = to_published(replace(config, time=TimeEmbedding(), mlp_norm=None), tensors)
    about: Json = {
        "_class_name": "DiTTransformer2DModel",
        **FIXED,
        "attention_head_dim": config.width // config.heads,
        "in_channels": config.in_channels,
        "norm_eps": (config.mlp_norm or config.norm).eps,
        "num_attention_heads": config.heads,
        "num_embeds_ada_norm": cast("Label", label).classes,
        "num_layers": config.depth,
        "out_channels": config.out_channels,
        "patch_size": config.patch[0],
        "sample_size": cast("tuple[int, ...]", config.size)[0],
    }
    return about, diffusers_names(published, config.depth)


def _checked(about: Json, source: object) -> Json:
    """A model's config with diffusers' defaults; refuses what is not a DiT."""
    got: Json = {**FIXED, "norm_eps": 1e-5, "out_channels": None, **about}
    kind = got.get("_class_name")
    if kind not in ("DiTTransformer2DModel", "Transformer2DModel"):
        raise ValueError(f"_class_name: {source} has {kind!r}, expected 'DiTTransformer2DModel'")
    known = {*FIXED, *FREE, "norm_eps", "out_channels", "sample_size", "norm_num_groups"}
    # Options of the older, wider class stand there unset; set, they are another model.
    faults = [f"{k}: got {v!r}, expected none" for k, v in got.items() if k not in known and k[0] != "_" and v]
    faults += [f"{k}: got {got[k]!r}, expected {v!r}" for k, v in FIXED.items() if got[k] != v]
    for key in (*FREE, "sample_size"):
        value = got.get(key)
        if not isinstance(value, int) or value < 1:
            faults.append(f"{key}: got {value!r}, expected a positive number")
    if not faults and got["sample_size"] % got["patch_size"]:
        faults.append(f"sample_size: got {got['sample_size']}, expected a multiple of patch_size {got['patch_size']}")
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    return got


def _class_names(file: Path, label: Label) -> Label:
    """`label` with the names that a pipeline's index gives the classes, if it gives any."""
    names = read_json(file).get("id2label") if file.is_file() else None
    if not names:
        return label
    if {str(key) for key in names} != {str(i) for i in range(label.classes or 0)}:
        raise ValueError(f"{file}: id2label: got {len(names)} names, expected one for each of {label.classes} classes")
    return replace(label, names=tuple(str(names[key]) for key in sorted(names, key=int)))


def told_as(shift: float, config: DiTConfig, tensors: Mapping[str, Tensor]) -> tuple[DiTConfig, Mapping[str, Tensor]]:
    """The same network for a time that is told with another shift.

    cos w(s + d) and sin w(s + d) are sums of cos ws and sin ws, so that the weights that read them take the change.
    """
    by = config.time.shift - shift
    omega = frequencies(config.time.frequencies // 2, config.time.max_period)
    cos, sin, weight = (omega * by).cos(), (omega * by).sin(), tensors[TIME_WEIGHT]
    a, b = weight.double().chunk(2, dim=1)
    turned = torch.cat([a * cos + b * sin, b * cos - a * sin], dim=1).to(weight.dtype)
    return replace(config, time=replace(config.time, shift=shift)), {**tensors, TIME_WEIGHT: turned}
