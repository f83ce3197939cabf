"""The adaLN-Zero transformer block (Peebles & Xie 2022, section 3.2) and the modulated output layer."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.model.attention import Attention
from anydit.model.norms import MLP, Norm

MODULATIONS = 6
"""What the condition sets in one block: shift, scale and gate, for attention and for the feed-forward network."""

Modulation = Float[Tensor, "b 1 width"]


def modulate(x: Float[Tensor, "b n width"], shift: Modulation, scale: Modulation) -> Float[Tensor, "b n width"]:
    """Scale and shift every token's channels; a zero condition leaves them as they are."""
    return torch.addcmul(shift, x, 1 + scale)  # one pass over the tokens


class Block(nn.Module):
    """Attention, then a feed-forward network, each modulated before and gated after by the condition."""

    def __init__(self, width: int, heads: int, norms: tuple[Norm, Norm], mlp: MLP, qk_norm: Norm | None) -> None:
        super().__init__()
        self.norm1 = norms[0].build(width, affine=False)
        self.attention = Attention(width, heads, qk_norm)
        self.norm2 = norms[1].build(width, affine=False)
        self.mlp = mlp.build(width)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        modulation: Float[Tensor, "b 6 width"],
        rotation: Float[Tensor, "2 n k"] | None,
        mask: Bool[Tensor, "b n"] | None,
    ) -> Float[Tensor, "b n width"]:
        """One block's step on the tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unsqueeze(2).unbind(1)
        x = torch.addcmul(x, gate1, self.attention(modulate(self.norm1(x), shift1, scale1), rotation, mask))
        return torch.addcmul(x, gate2, self.mlp(modulate(self.norm2(x), shift2, scale2)))


class Output(nn.Module):
    """Modulated norm and one product: tokens to the values of their patches."""

    def __init__(self, width: int, values: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm.build(width, affine=False)
        self.linear = nn.Linear(width, values)

    def forward(self, x: Float[Tensor, "b n width"], modulation: Float[Tensor, "b 2 width"]) -> Float[Tensor, "b n v"]:
        """The patches' values."""
        shift, scale = modulation.unsqueeze(2).unbind(1)
        return self.linear(modulate(self.norm(x), shift, scale))
