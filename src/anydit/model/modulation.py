"""How the condition vector becomes the scale, shift and gate of every block (adaLN-Zero, Peebles & Xie 2022)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import config
from anydit.model.blocks import MODULATIONS


@config
class PerBlock:
    """Every block makes its modulation from the condition with weights of its own (as published)."""

    def build(self, width: int, depth: int) -> nn.Module:
        """The module, with its weights at zero."""
        return PerBlockModulation(width, depth)


@config
class Shared:
    """One set of weights for all blocks, plus a learned table for each (adaLN-single, PixArt-alpha 2023)."""

    def build(self, width: int, depth: int) -> nn.Module:
        """The module, with its weights at zero."""
        return SharedModulation(width, depth)


class PerBlockModulation(nn.Module):
    """The modulation of all blocks and of the output, as one product."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.linear = nn.Linear(width, (MODULATIONS * depth + 2) * width)

    def forward(
        self, c: Float[Tensor, "b width"]
    ) -> tuple[Float[Tensor, "b depth 6 width"], Float[Tensor, "b 2 width"]]:
        """Modulation of the blocks, and of the output."""
        rows = self.linear(F.silu(c)).unflatten(1, (-1, c.shape[1]))
        blocks, out = rows.split([MODULATIONS * self.depth, 2], dim=1)
        return blocks.unflatten(1, (self.depth, MODULATIONS)), out


class SharedModulation(nn.Module):
    """One product for all blocks; a table for each block and for the output is added."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, MODULATIONS * width)
        self.blocks = nn.Parameter(torch.zeros(depth, MODULATIONS, width))
        self.out = nn.Parameter(torch.zeros(2, width))

    def forward(
        self, c: Float[Tensor, "b width"]
    ) -> tuple[Float[Tensor, "b depth 6 width"], Float[Tensor, "b 2 width"]]:
        """Modulation of the blocks, and of the output."""
        shared = self.linear(F.silu(c)).unflatten(1, (MODULATIONS, -1))
        return shared[:, None] + self.blocks.type_as(shared), c[:, None] + self.out.type_as(c)
