"""What the condition vector sets in each block and in the output layer: shifts, scales and gates."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import config
from anydit.model.blocks import OUTPUT_ROWS

Rows = Float[Tensor, "b _ width"]


@config
class PerBlock:
    """Every block makes its modulation from the condition with weights of its own (as published)."""

    def build(self, width: int, rows: Sequence[int]) -> nn.Module:
        """The module for blocks that take so many `rows` of modulation each, with its weights at zero."""
        return PerBlockModulation(width, rows)


@config
class Shared:
    """One set of weights for all blocks, plus a learned table for each (adaLN-single, PixArt-alpha 2023)."""

    def build(self, width: int, rows: Sequence[int]) -> nn.Module:
        """The module for blocks that take so many `rows` of modulation each, with its weights at zero."""
        return SharedModulation(width, rows)


class PerBlockModulation(nn.Module):
    """The modulation of all blocks and of the output, as one product."""

    def __init__(self, width: int, rows: Sequence[int]) -> None:
        super().__init__()
        self.rows = [*rows, OUTPUT_ROWS]
        self.linear = nn.Linear(width, sum(self.rows) * width)

    def forward(self, c: Float[Tensor, "b width"]) -> tuple[list[Rows], Rows]:
        """Modulation of each block, and of the output."""
        *blocks, out = self.linear(F.silu(c)).unflatten(1, (-1, c.shape[1])).split(self.rows, dim=1)
        return blocks, out


class SharedModulation(nn.Module):
    """One product for all blocks, to which a table for each is added; for the output, a table and the condition itself.

    So is the output layer's in PixArt-alpha. A block that takes fewer rows than another takes the first ones.
    """

    def __init__(self, width: int, rows: Sequence[int]) -> None:
        super().__init__()
        self.rows = list(rows)
        self.linear = nn.Linear(width, max(rows) * width)
        self.blocks = nn.Parameter(torch.zeros(len(rows), max(rows), width))
        self.out = nn.Parameter(torch.zeros(OUTPUT_ROWS, width))

    def forward(self, c: Float[Tensor, "b width"]) -> tuple[list[Rows], Rows]:
        """Modulation of each block, and of the output."""
        shared = self.linear(F.silu(c)).unflatten(1, (-1, c.shape[1]))
        every = (shared[:, None] + self.blocks.type_as(shared)).unbind(1)
        blocks = [block[:, :rows] for block, rows in zip(every, self.rows, strict=True)]
        return blocks, c[:, None] + self.out.type_as(c)
