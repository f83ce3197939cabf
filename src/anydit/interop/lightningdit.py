"""Checkpoints in the format of LightningDiT (hustvl/LightningDiT; Yao 2025, arXiv 2501.01423), read and written.

Time and velocity are SiT's (see `anydit.interop.sit`), most names and the layout the published DiT's. Beside them:
- RMS norms carry a weight, after which the condition scales: w (1 + s) is 1 + s' with s' = w s + w - 1, so that the
  weight goes into the modulation, which here has none to itself. It is written as ones;
- without shifts (`wo_shift`) a modulation has four parts in place of six: here its shifts are zero;
- rotary positions turn neighbouring values of a head, anydit's turn values half a head apart: queries, keys and their
  norms are sorted anew. The added table stays beside them, as `SinCosRope`;
- which options a model has is read off its keys. Rotation tables are stored; a file without them has no rotation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from anydit.interop import dit, sit
from anydit.interop.dit import Weights, check_fit, refuse_keys, refuse_options
from anydit.model.blocks import MODULATIONS
from anydit.model.dit import DiTConfig
from anydit.model.norms import LayerNorm, RMSNorm, SwiGLU
from anydit.model.tokens import Rope, SinCos, SinCosRope, coordinates, rotation_table
from anydit.weights import write_atomically

HEADS = {1536: 24, 1792: 28}
"""Heads of the sizes that LightningDiT has beside the DiT's, by width."""

MLP = {"mlp.w12": "mlp.fc1", "mlp.w3": "mlp.fc2"}
"""Products of a gated feed-forward network, and the published names that stand for them while a file is translated."""

COSINES, SINES = "feat_rope.freqs_cos", "feat_rope.freqs_sin"
NORMS = {"blocks.{}.norm1": 1, "blocks.{}.norm2": 4}
"""Norms with a weight, and which part of their block's modulation scales after them."""

FINAL_NORM, FINAL, BLOCK = "final_layer.norm_final", "final_layer.adaLN_modulation.1", "blocks.{}.adaLN_modulation.1"
QK = {"attn.q_norm": "attention.q_norm", "attn.k_norm": "attention.k_norm"}


@dataclass(frozen=True)
class Options:
    """What a LightningDiT is built with: its repository's switches."""

    rope: bool
    rms: bool
    swiglu: bool
    qk: bool

    def keys(self, depth: int) -> set[str]:
        """The names in a state dict of these options."""
        names = dit.keys(depth)
        if self.swiglu:
            names = {_swapped(name, {ours: theirs for theirs, ours in MLP.items()}) for name in names}
        names |= {COSINES, SINES} if self.rope else set()
        names |= {f"{FINAL_NORM}.weight", *_each(depth, NORMS)} if self.rms else set()
        return names | (set(self.qk_names(depth)) if self.qk else set())

    def qk_names(self, depth: int) -> dict[str, str]:
        """Their names of the norms of queries and keys, and ours."""
        kinds = ("weight",) if self.rms else ("weight", "bias")
        pairs = [(a, b, n, kind) for a, b in QK.items() for n in range(depth) for kind in kinds]
        return {f"blocks.{n}.{a}.{kind}": f"blocks.{n}.{b}.{kind}" for a, b, n, kind in pairs}

    def apply(self, config: DiTConfig) -> DiTConfig:
        """The config of a DiT of the same sizes, with these options; `config.mlp` is of the width that it has."""
        norm = RMSNorm() if self.rms else LayerNorm()
        # The norm of queries and keys is PyTorch's own where the others are not RMS norms, with PyTorch's epsilon.
        qk_norm = None if not self.qk else RMSNorm() if self.rms else LayerNorm(1e-5)
        mlp = SwiGLU(config.mlp.hidden(config.width) / 2 / config.width) if self.swiglu else config.mlp
        position = SinCosRope(SinCos(), Rope()) if self.rope else SinCos()
        return replace(config, norm=norm, qk_norm=qk_norm, mlp=mlp, position=position)


def read(
    path: Path, *, heads: int | None = None, classes: int | None = None, ema: bool = True
) -> tuple[DiTConfig, Weights]:
    """A checkpoint's config and weights, the latter under anydit's names. Arguments as in `anydit.interop.dit.read`.

    Raises:
        ValueError: the file is not such a checkpoint, with the reason.
    """
    return from_lightningdit(dit.load_state(path, ema), heads=heads, classes=classes, source=path)


def write(config: DiTConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a model in LightningDiT's format, as a plain state dict under "ema", where its scripts look for it.

    Raises:
        ValueError: the format cannot express the config.
    """
    state = to_lightningdit(config, tensors)
    write_atomically(path, lambda to: torch.save({"ema": state}, to))


def from_lightningdit(
    state: Mapping[str, Tensor], *, heads: int | None = None, classes: int | None = None, source: object = "checkpoint"
) -> tuple[DiTConfig, Weights]:
    """Config and anydit weights of a LightningDiT's state dict; its options follow from its keys.

    `heads`: None reads them off the rotation, or takes those of the published sizes. `classes`: as in
    `anydit.interop.dit.from_published`.

    Raises:
        ValueError: names keys that are missing or unknown, or shapes that make no LightningDiT.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of distributed training
    depth, options = dit.depth_of(state), _options(state)
    refuse_keys(state.keys(), options.keys(depth), source)
    width = len(state["x_embedder.proj.bias"])
    if options.rope:
        heads = heads or width // max(1, state[COSINES].shape[-1])
    published = {_swapped(name, MLP): tensor for name, tensor in state.items()}
    published |= dict(_modulations(state, depth, width))
    config = dit.config_of(published, heads or HEADS.get(width), classes)
    tensors = dit.our_tensors(published) | {ours: state[a] for a, ours in _qk(options, depth)}
    if options.rope:
        _check_rotation(state, config)
        tensors = _sorted(tensors, config.heads, "(heads way i pair) ... -> (heads pair way i) ...")
    config, tensors = sit.as_flow(options.apply(config), tensors)
    check_fit(config, tensors, source)
    return config, tensors


def to_lightningdit(config: DiTConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """The state dict of the LightningDiT that computes the same, as its scripts build it: no second output.

    Raises:
        ValueError: names each field that the format cannot express, or tensors that are not this config's.
    """
    qk, swiglu = config.qk_norm is not None, isinstance(config.mlp, SwiGLU)
    options = Options(isinstance(config.position, SinCosRope), isinstance(config.norm, RMSNorm), swiglu, qk)
    time = replace(sit.TIME, frequencies=config.time.frequencies)
    nearest = options.apply(replace(dit.expressible(config), time=time, learned_variance=False))
    refuse_options(config, replace(nearest, mlp=config.mlp), "LightningDiT's format")
    check_fit(config, tensors, "the model")
    if options.rope:
        tensors = _sorted(tensors, config.heads, "(heads pair way i) ... -> (heads way i pair) ...")
    published = dit.their_tensors(config, sit.turned(tensors))
    back = {ours: theirs for theirs, ours in MLP.items()} if swiglu else {}
    state = {_swapped(name, back): tensor for name, tensor in published.items()}
    state |= {theirs: tensors[ours].clone() for theirs, ours in _qk(options, config.depth)}
    if options.rms:
        one = torch.ones(config.width)
        state |= {f"{FINAL_NORM}.weight": one} | {name: one.clone() for name in _each(config.depth, NORMS)}
    return state | (_rotation(config) if options.rope else {})


def _options(state: Mapping[str, Tensor]) -> Options:
    return Options(
        rope=COSINES in state,
        rms="blocks.0.norm1.weight" in state,
        swiglu="blocks.0.mlp.w12.weight" in state,
        qk="blocks.0.attn.q_norm.weight" in state,
    )


def _qk(options: Options, depth: int) -> list[tuple[str, str]]:
    return list(options.qk_names(depth).items()) if options.qk else []


def _each(depth: int, names: Mapping[str, int]) -> list[str]:
    return [f"{name.format(n)}.weight" for name in names for n in range(depth)]


def _swapped(name: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name


def _modulations(state: Mapping[str, Tensor], depth: int, width: int) -> Iterator[tuple[str, Tensor]]:
    """Every modulation as the published DiT has it: with shifts, and with the weights of the norms before it."""
    one = torch.ones(width)
    places = [(BLOCK.format(n), {at: f"{norm.format(n)}.weight" for norm, at in NORMS.items()}) for n in range(depth)]
    for name, norms in [*places, (FINAL, {1: f"{FINAL_NORM}.weight"})]:
        weight, bias = (state[f"{name}.{kind}"] for kind in ("weight", "bias"))
        rows = [n * width for n in ((2,) if name == FINAL else (MODULATIONS - 2, MODULATIONS))]
        if len(bias) not in rows or weight.shape != (len(bias), width):
            expected = " or ".join(str((n, width)) for n in rows)
            raise ValueError(f"{name}.weight: got shape {tuple(weight.shape)}, expected {expected}")
        w, b = (list(tensor.unflatten(0, (-1, width))) for tensor in (weight, bias))
        if len(b) == MODULATIONS - 2:
            for at in (0, 3):
                w.insert(at, torch.zeros_like(w[0]))
                b.insert(at, torch.zeros_like(b[0]))
        for at, norm in norms.items():
            scale = state.get(norm, one).double()
            w[at] = (scale[:, None] * w[at]).type_as(w[at])
            b[at] = (scale * (1 + b[at].double()) - 1).type_as(b[at])
        yield f"{name}.weight", torch.cat(w)
        yield f"{name}.bias", torch.cat(b)


def _sorted(tensors: Mapping[str, Tensor], heads: int, pattern: str) -> Weights:
    """`tensors` with the values of each head of queries and keys in another order."""
    out = dict(tensors)
    for name, tensor in tensors.items():
        if ".attention.qkv." in name:
            q, k, v = tensor.chunk(3)
            out[name] = torch.cat([*(rearrange(t, pattern, heads=heads, way=2, pair=2) for t in (q, k)), v])
        elif ".attention.q_norm." in name or ".attention.k_norm." in name:
            out[name] = rearrange(tensor, pattern, heads=1, way=2, pair=2)
    return out


def _rotation(config: DiTConfig) -> Weights:
    """The stored cosines and sines: one for each value of a head, neighbours alike."""
    cosines, sines = rotation_table(coordinates(config.grid), config.width // config.heads, Rope().max_period)
    order = "n (pair way i) -> n (way i pair)"
    # Of the signed sines the second of each pair has the plain sign.
    sines = sines.chunk(2, dim=1)[1].repeat(1, 2)
    return {COSINES: rearrange(cosines, order, pair=2, way=2), SINES: rearrange(sines, order, pair=2, way=2)}


def _check_rotation(state: Mapping[str, Tensor], config: DiTConfig) -> None:
    head = config.width // config.heads
    if head % 4:
        raise ValueError(f"heads: got {head} values a head, expected a multiple of 4 for a rotation on two axes")
    for name, own in _rotation(config).items():
        if state[name].shape != own.shape:
            shape = (prod(config.grid), head)
            raise ValueError(f"{name}: got shape {tuple(state[name].shape)}, expected {shape}")
        off = float((state[name].double() - own.double()).abs().max())
        if not off <= max(1e-4, torch.finfo(state[name].dtype).eps):
            raise ValueError(f"{name}: differs by {off:.2g} from the rotation that anydit computes; expected it")
