"""What one pass through a DiT costs, counted exactly: matrix products, at two operations for each multiply-add.

Norms, activations and sums are left out, as in every published figure; published "GFLOPs" of DiTs are multiply-adds.
"""

from dataclasses import dataclass
from math import prod

import torch

from anydit.model.blocks import MODULATIONS
from anydit.model.conditioning import Field, Numbers, NumbersVector
from anydit.model.dit import DiT, DiTConfig
from anydit.model.modulation import PerBlock
from anydit.model.norms import SwiGLU
from anydit.model.tokens import Grid, grid_of


@dataclass(frozen=True)
class Cost:
    """One sample's forward pass, in FLOPs by where they arise; `tokens` it has, and `parameters` of the network.

    `attention` is what grows with the square of the tokens: scores, and the sums that they weight. `blocks` are the
    blocks' other products, `conditioning` all that is made once for a sample: time, conditions and modulation.
    """

    tokens: int
    parameters: int
    embedding: int
    conditioning: int
    blocks: int
    attention: int
    output: int

    @property
    def forward(self) -> int:
        """FLOPs of one sample's forward pass."""
        return self.embedding + self.conditioning + self.blocks + self.attention + self.output

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one sample's forward pass."""
        return self.forward // 2

    @property
    def training(self) -> int:
        """FLOPs of one training sample: forward, and twice that backward, for gradients of inputs and of weights."""
        return 3 * self.forward


def cost(config: DiTConfig, size: Grid | None = None) -> Cost:
    """Count for samples of shape `size`, by default the one that the config is trained on; all conditions are given.

    Raises:
        ValueError: the patch does not divide `size`, or the config leaves something to the data.
    """
    with torch.device("meta"):
        parameters = sum(p.numel() for p in DiT(config).parameters())
    width, depth = config.width, config.depth
    n = prod(config.grid if size is None else grid_of(size, config.patch))
    patch = prod(config.patch)
    conditions = config.conditions.values()
    fields = sum(len(c.mean or ()) for c in conditions if isinstance(c, Field))
    vectors = [config.time.frequencies]
    vectors += [len(c.mean or ()) * (1 + 2 * NumbersVector.BANDS) for c in conditions if isinstance(c, Numbers)]
    rows = MODULATIONS * depth + 2 if isinstance(config.modulation, PerBlock) else MODULATIONS
    mlp = (3 if isinstance(config.mlp, SwiGLU) else 2) * config.mlp.hidden(width)
    return Cost(
        tokens=n,
        parameters=parameters,
        embedding=2 * n * patch * (config.in_channels + fields) * width,
        conditioning=2 * width * (sum(k + width for k in vectors) + rows * width),
        blocks=2 * depth * n * width * (4 * width + mlp),
        attention=4 * depth * n**2 * width,
        output=2 * n * width * patch * config.out_channels,
    )
