"""Names and layout of the tensors in diffusers' `DiTTransformer2DModel`, against those of the published DiT."""

from collections.abc import Mapping

import torch
from torch import Tensor

from anydit.interop.dit import CLASSES, POSITIONS, Weights, refuse_keys

OUTER = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
SHARED = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
}
SHARED_CLASSES = "norm1.emb.class_embedder.embedding_table.weight"
INNER = {
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}
QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")


def published_names(state: Mapping[str, Tensor], depth: int, source: object) -> Weights:
    """A state dict of diffusers under the published names; positions under "pos_embed.pos_embed" must be among it.

    Raises:
        ValueError: names what is missing or unknown, or an embedding that is not the same in all blocks.
    """
    pairs, copies, parts = _pairs(depth), _copies(depth), _parts(depth)
    lists = [name for names in (*copies.values(), *parts.values()) for name in names]
    refuse_keys(state.keys(), {*pairs.values(), *lists, "pos_embed.pos_embed"}, source)
    for first, *rest in copies.values():
        for name in rest:
            if not torch.equal(state[first], state[name]):
                raise ValueError(
                    f"{name}: differs from {first}; expected the same embedding in every block, as published"
                )
    published = {a: state[b] for a, b in pairs.items()}
    published |= {a: state[names[0]] for a, names in copies.items()}
    published |= {a: torch.cat([state[name] for name in names]) for a, names in parts.items()}
    return published | {POSITIONS: state["pos_embed.pos_embed"]}


def diffusers_names(published: Weights, depth: int) -> Weights:
    """A published state dict under diffusers' names, without the positions, which diffusers computes."""
    state = {b: published[a] for a, b in _pairs(depth).items()}
    for a, names in _copies(depth).items():
        state |= {name: published[a].clone() for name in names}
    for a, names in _parts(depth).items():
        state |= {name: part.clone() for name, part in zip(names, published[a].chunk(3), strict=True)}
    return state


def _pairs(depth: int) -> dict[str, str]:
    """Published names to diffusers', for what is one tensor in both."""
    pairs = dict(OUTER)
    for n in range(depth):
        pairs |= {f"blocks.{n}.{a}": f"transformer_blocks.{n}.{b}" for a, b in INNER.items()}
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in pairs.items() for kind in ("weight", "bias")}


def _copies(depth: int) -> dict[str, list[str]]:
    """Published names to the names of their copies in each of diffusers' blocks."""
    pairs = {f"{a}.{kind}": f"{b}.{kind}" for a, b in SHARED.items() for kind in ("weight", "bias")}
    pairs[CLASSES] = SHARED_CLASSES
    return {a: [f"transformer_blocks.{n}.{b}" for n in range(depth)] for a, b in pairs.items()}


def _parts(depth: int) -> dict[str, list[str]]:
    """Published names of products for queries, keys and values to diffusers' three."""
    return {
        f"blocks.{n}.attn.qkv.{kind}": [f"transformer_blocks.{n}.{part}.{kind}" for part in QKV]
        for n in range(depth)
        for kind in ("weight", "bias")
    }
