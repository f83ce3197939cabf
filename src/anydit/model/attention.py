"""Self-attention: one product makes queries, keys and values; PyTorch's kernel does the rest."""

from math import inf

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.model.norms import Norm
from anydit.model.tokens import rotate

Heads = Float[Tensor, "b heads n k"]


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani 2017), optionally with normalised queries and keys and rotary positions."""

    def __init__(self, width: int, heads: int, qk_norm: Norm | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = qk_norm.build(width // heads, affine=True) if qk_norm else nn.Identity()
        self.k_norm = qk_norm.build(width // heads, affine=True) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        rotation: Float[Tensor, "2 n k"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n width"]:
        """Let every token attend to all tokens that `mask` says exist."""
        # Plain views in place of einops, whose overhead shows in small models: qkv is [b n (three heads k)].
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        keys = None if mask is None else mask[:, None, None, :]
        x = attend(q.type_as(v), k.type_as(v), v, keys)
        return self.out(x.transpose(1, 2).flatten(2))


SHORT_TOKENS = 1024
"""Up to so many tokens the scores of all pairs are small enough to be stored."""


def attend(q: Heads, k: Heads, v: Heads, keys: Bool[Tensor, "b 1 1 n"] | None) -> Heads:
    """softmax(q k^T / sqrt(width)) v, over the keys that exist."""
    # PyTorch's CPU kernel is slow backward in bfloat16: at 16 tokens 8 times, at 256 twice as slow as plain products.
    slow = q.device.type == "cpu" and q.dtype is torch.bfloat16 and q.requires_grad
    if not (slow and q.shape[2] <= SHORT_TOKENS):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    if keys is not None:
        scores = scores.masked_fill(~keys, -inf)
    return scores.softmax(-1).type_as(v) @ v
