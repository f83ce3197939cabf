"""What one pass through a DiT costs, counted exactly: matrix products, at two operations for each multiply-add.

Norms, activations and sums are left out, as in every published figure; published "GFLOPs" of DiTs are multiply-adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from anydit.model.conditioning import Numbers, NumbersVector
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import SwiGLU
from anydit.model.points import HIDDEN, Points
from anydit.model.text import Cross, Joint, Text
from anydit.model.tokens import Grid, grid_of

TEXT_TOKENS = 77
"""How many tokens a text is taken to have where nothing else is said: CLIP's number."""


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


def cost(config: DiTConfig, size: Grid | None = None, text_tokens: Mapping[str, int] | None = None) -> Cost:
    """Count for samples of shape `size`, by default the one that the config is trained on; all conditions are given.

    `text_tokens`: how many tokens texts have, padding included, by the condition's name.

    Raises:
        ValueError: the patch does not divide `size`, or the config leaves something to the data.
    """
    with torch.device("meta"):
        model = DiT(config)
    width, patch = config.width, prod(config.patch)
    grid = config.grid if size is None else grid_of(size, config.patch)
    n = prod(grid)
    conditions = config.conditions.values()
    texts = [c for c in conditions if isinstance(c, Text)]
    lengths = {name: (text_tokens or {}).get(name, TEXT_TOKENS) for name in model.conditioner.texts}
    m = sum(lengths.values())
    vectors = [config.time.frequencies, *(c.pooled or 0 for c in texts if c.as_vector)]
    vectors += [len(c.mean or ()) * (1 + 2 * NumbersVector.BANDS) for c in conditions if isinstance(c, Numbers)]
    modulation = sum(p.numel() for name, p in model.modulation.named_parameters() if name == "linear.weight")
    projections = sum(
        lengths[name] * sum(p.numel() for p in text.parameters() if p.ndim == 2)
        for name, text in model.conditioner.texts.items()
    )
    blocks, attention = _blocks(config, grid, m)
    return Cost(
        tokens=n,
        parameters=sum(p.numel() for p in model.parameters()),
        embedding=2 * n * patch * (config.in_channels + model.conditioner.channels) * width,
        conditioning=2 * (width * sum(k + width for k in vectors) + modulation + projections),
        blocks=blocks,
        attention=attention,
        output=2 * n * width * patch * config.out_channels,
    )


def _blocks(config: DiTConfig, grid: Grid, m: int) -> tuple[int, int]:
    """All blocks' products with weights, and those of attention, for a grid of tokens and `m` tokens of texts."""
    width, depth, n = config.width, config.depth, prod(grid)
    mlp = (3 if isinstance(config.mlp, SwiGLU) else 2) * config.mlp.hidden(width)
    products = depth * n * (4 * width + mlp)
    along = (config.attention.axes(block) for block in range(depth))
    pairs = sum(n * (n if axes is None else prod(grid[axis] for axis in axes)) for axes in along)
    if isinstance(config.text, Cross):
        products += depth * 2 * (n + m) * width
        pairs += depth * n * m
    elif isinstance(config.text, Joint):
        # The last block only reads the text: keys and values.
        products += (depth - 1) * m * (4 * width + mlp) + 2 * m * width + config.text.dual * 4 * n * width
        pairs += (depth - 1) * (2 * n * m + m * m) + n * m + config.text.dual * n * n
    if not isinstance(config.position, Points):
        return 2 * width * products, 4 * width * pairs
    values, bands = config.heads * config.position.axes, config.position.bands
    between = 2 * n * n * (HIDDEN * (bands + depth * config.heads) + depth * values)
    return 2 * width * (products + depth * n * values), 4 * width * pairs + between
