"""Self-attention: one product makes queries, keys and values; PyTorch's kernel does the rest."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.model.norms import Norm
from anydit.model.tokens import rotate


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
        x = F.scaled_dot_product_attention(q.type_as(v), k.type_as(v), v, attn_mask=keys)
        return self.out(x.transpose(1, 2).flatten(2))
