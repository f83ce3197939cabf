"""Attention among a sample's tokens, from them to a text's, and of both together; PyTorch's kernel does the work."""

from math import inf

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.model.norms import Norm
from anydit.model.tokens import rotate

Heads = Float[Tensor, "b heads n k"]


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani 2017), optionally with normalised queries and keys and rotary positions.

    `more`: values that come after those of each head.
    """

    def __init__(self, width: int, heads: int, qk_norm: Norm | None = None, more: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = (_norm(width // heads, qk_norm) for _ in range(2))
        self.out = nn.Linear(width + heads * more, width)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        rotation: Float[Tensor, "2 n k"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n width"]:
        """Let every token attend to all tokens that `mask` says exist."""
        return self.out(merge(attend(*self.split(x, rotation), mask)))

    def split(
        self, x: Float[Tensor, "b n width"], rotation: Float[Tensor, "2 n k"] | None = None
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of each head, as one product."""
        # Plain views in place of einops, whose overhead shows in small models: qkv is [b n (three heads k)].
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q.type_as(v), k.type_as(v), v


class KeysAndValues(nn.Module):
    """What others attend to in tokens that attend to nothing themselves."""

    def __init__(self, width: int, heads: int, qk_norm: Norm | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.kv = nn.Linear(width, 2 * width)
        self.k_norm = _norm(width // heads, qk_norm)

    def forward(self, x: Float[Tensor, "b n width"]) -> tuple[Heads, Heads]:
        """Keys and values of each head, as one product."""
        k, v = self.kv(x).unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        return self.k_norm(k).type_as(v), v


class CrossAttention(nn.Module):
    """Multi-head attention of a sample's tokens to those of a context."""

    def __init__(self, width: int, heads: int, qk_norm: Norm | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.q_norm = _norm(width // heads, qk_norm)
        self.context = KeysAndValues(width, heads, qk_norm)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n width"], context: Float[Tensor, "b m width"], exists: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b n width"]:
        """Let every token of `x` attend to all tokens of the context that exist."""
        k, v = self.context(context)
        q = self.q_norm(self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2))
        return self.out(merge(attend(q.type_as(v), k, v, exists)))


SHORT_TOKENS = 1024
"""Up to so many tokens the scores of all pairs are small enough to be stored."""


def attend(
    q: Float[Tensor, "b heads n k"],
    k: Float[Tensor, "b heads m k"],
    v: Float[Tensor, "b heads m k"],
    mask: Bool[Tensor, "b m"] | None,
) -> Float[Tensor, "b heads n k"]:
    """softmax(q k^T / sqrt(width)) v, over the keys that exist."""
    keys = None if mask is None else mask[:, None, None, :]
    # PyTorch's CPU kernel is slow backward in bfloat16: at 16 tokens 8 times, at 256 twice as slow as plain products.
    slow = q.device.type == "cpu" and q.dtype is torch.bfloat16 and q.requires_grad
    if not (slow and max(q.shape[2], k.shape[2]) <= SHORT_TOKENS):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    if keys is not None:
        scores = scores.masked_fill(~keys, -inf)
    return scores.softmax(-1).type_as(v) @ v


def merge(heads: Heads) -> Float[Tensor, "b n width"]:
    """The values of all heads, one after the other."""
    return heads.transpose(1, 2).flatten(2)


def _norm(width: int, norm: Norm | None) -> nn.Module:
    return norm.build(width, affine=True) if norm else nn.Identity()
