"""The Diffusion Transformer (Peebles & Xie 2022, arXiv 2212.09748), for samples of any shape: config, model, init."""

from dataclasses import field
from math import prod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import config
from anydit.model.blocks import Block, Output
from anydit.model.conditioning import (
    Condition,
    Conditioner,
    LabelVector,
    NumbersVector,
    PerBlock,
    Shared,
    TimeEmbedding,
)
from anydit.model.norms import GELU, MLP, LayerNorm, Norm
from anydit.model.tokens import (
    Grid,
    Position,
    Rope,
    SinCos,
    coordinates,
    grid_of,
    patchify,
    rotation_table,
    sincos_table,
    token_mask,
    unpatchify,
)
from anydit.tensors import MASK, Cond, known


@config
class DiTConfig:
    """What a DiT is. The defaults are the published choices.

    `channels`, `size`: of a sample; None takes them from the data. `size` is the shape that is trained on; any other
    that `patch` divides runs too. `patch`: one number for each axis. `learned_variance`: twice the output channels.
    """

    width: int
    depth: int
    heads: int
    patch: tuple[int, ...]
    channels: int | None = None
    size: tuple[int, ...] | None = None
    conditions: dict[str, Condition] = field(default_factory=dict[str, Condition])
    position: SinCos | Rope | None = SinCos()
    norm: Norm = LayerNorm()
    qk_norm: Norm | None = None
    mlp: MLP = GELU()
    modulation: PerBlock | Shared = PerBlock()
    time: TimeEmbedding = TimeEmbedding()
    learned_variance: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.width % self.heads:
            raise ValueError(f"heads: got {self.heads}, expected a divisor of width {self.width}")
        if not self.patch or min(self.patch) < 1:
            raise ValueError(f"patch: got {self.patch}, expected a positive number for each axis")
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels: got {self.channels}, expected at least 1")
        if self.size is not None:
            grid_of(self.size, self.patch)
        if isinstance(self.position, Rope) and self.width // self.heads < 2 * len(self.patch):
            raise ValueError(f"heads: got {self.heads}, expected heads of at least {2 * len(self.patch)} values for Rope")
        for name in self.conditions:
            if not name.isidentifier() or name == MASK:
                raise ValueError(f"conditions: got the name {name!r}, expected an identifier other than {MASK!r}")

    @property
    def grid(self) -> Grid:
        """Patches along each axis of the trained size."""
        if self.size is None:
            raise ValueError("size: got None, expected numbers: resolve the config with its data first")
        return grid_of(self.size, self.patch)

    @property
    def out_channels(self) -> int:
        """Channels of the network's output."""
        if self.channels is None:
            raise ValueError("channels: got None, expected a number: resolve the config with its data first")
        return self.channels * (2 if self.learned_variance else 1)


class DiT(nn.Module):
    """`model(x_t, t, cond)`: noised samples, their times and conditions to the network's prediction.

    Raises:
        ValueError: the config still leaves channels, size, classes or normalisation to the data.
    """

    def __init__(self, config: DiTConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        width, values = config.width, prod(config.patch)
        self.conditioner = Conditioner(config.time, config.conditions, width)
        self.embed = nn.Linear(values * (config.out_channels // (1 + config.learned_variance) + self.conditioner.channels), width)
        self.modulation = config.modulation.build(width, config.depth)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.norm, config.mlp, config.qk_norm) for _ in range(config.depth)
        )
        self.output = Output(width, values * config.out_channels, config.norm)
        self._tables: dict[tuple[Grid, torch.device], Tensor] = {}
        init(self, torch.Generator().manual_seed(seed))

    def forward(
        self, x: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond = {}
    ) -> Float[Tensor, "b c_out *space"]:
        """Predict what the training's prediction says (noise, velocity, ...), per channel and place.

        Raises:
            ValueError: the patch does not divide the sample, or a condition is absent that has no learned null.
        """
        patch = self.config.patch
        grid = grid_of(tuple(x.shape[2:]), patch)
        mask = token_mask(known(cond[MASK])[0], patch) if MASK in cond else None
        tokens = self.embed(patchify(self.conditioner.beside(x, cond), patch))
        if isinstance(self.config.position, SinCos):
            tokens = tokens + self._table(grid, x.device).type_as(tokens)
        rotation = self._table(grid, x.device) if isinstance(self.config.position, Rope) else None
        blocks, out = self.modulation(self.conditioner.vector(t, cond))
        for block, modulation in zip(self.blocks, blocks.unbind(1), strict=True):
            tokens = block(tokens, modulation, rotation, mask)
        return unpatchify(self.output(tokens, out), grid, patch)

    def _table(self, grid: Grid, device: torch.device) -> Tensor:
        """The positions' sines and cosines for a grid, made once for each grid and device."""
        if (grid, device) not in self._tables:
            position, width = cast("Position", self.config.position), self.config.width
            places = coordinates(grid, self.config.grid if position.interpolate else None, device)
            make, share = (sincos_table, width) if isinstance(position, SinCos) else (rotation_table, width // self.config.heads)
            self._tables[grid, device] = make(places, share, position.max_period)
        return self._tables[grid, device]


@torch.no_grad()
def init(model: DiT, generator: torch.Generator) -> None:
    """The published initialisation: Xavier for products, 0.02 for embeddings, zero for modulation and output."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
    for module in model.conditioner.modules():
        if isinstance(module, LabelVector):
            nn.init.normal_(module.table.weight, std=0.02, generator=generator)
        elif isinstance(module, NumbersVector):
            nn.init.normal_(module.unknown, std=0.02, generator=generator)
    for module in (model.conditioner.time.up, model.conditioner.time.down):
        nn.init.normal_(module.weight, std=0.02, generator=generator)
    for zero in (*model.modulation.parameters(), *model.output.linear.parameters()):
        nn.init.zeros_(zero)
