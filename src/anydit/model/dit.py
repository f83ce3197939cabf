"""The Diffusion Transformer (Peebles & Xie 2022, arXiv 2212.09748), for samples of any shape: config, model, init."""

from collections.abc import Callable
from dataclasses import field, replace
from math import prod
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import config
from anydit.model.attention import Axial, Full
from anydit.model.blocks import Block, CrossAttention, JointBlock, Layers, Output, Places
from anydit.model.conditioning import Condition, Conditioner, Field, LabelVector, NumbersVector
from anydit.model.modulation import PerBlock, Shared
from anydit.model.norms import GELU, MLP, LayerNorm, Norm
from anydit.model.points import Points, Relations
from anydit.model.text import Cross, Joint, Pooled, Text, TextTokens, TextVector
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import (
    Grid,
    Learned,
    Position,
    Rope,
    SinCos,
    coordinates,
    grid_of,
    parts,
    patchify,
    rotation_table,
    sincos_table,
    token_mask,
    unpatchify,
)
from anydit.tensors import MASK, Cond, Constants, mask_of


@config
class DiTConfig:
    """What a DiT is. The defaults are the published choices.

    `channels`, `size`: of a sample; None takes them from the data. `size` is the shape that is trained on; any other
    that `patch` divides runs too. `patch`: one number for each axis. `learned_variance`: twice the output channels.
    `mlp_norm`: of the tokens before each feed-forward network, where it is not `norm`. `position`: None is for sets.
    `attention`: which tokens attend to each other.
    """

    width: int
    depth: int
    heads: int
    patch: tuple[int, ...]
    channels: int | None = None
    size: tuple[int, ...] | None = None
    conditions: dict[str, Condition] = field(default_factory=dict[str, Condition])
    position: Position | None = SinCos()
    attention: Full | Axial = Full()
    norm: Norm = LayerNorm()
    mlp_norm: Norm | None = None
    qk_norm: Norm | None = None
    mlp: MLP = GELU()
    modulation: PerBlock | Shared = PerBlock()
    time: TimeEmbedding = TimeEmbedding()
    learned_variance: bool = False

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_positions()
        self._check_conditions()
        if isinstance(self.attention, Axial):
            self._check_axial(self.attention)

    def _check_sizes(self) -> None:
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

    def _check_positions(self) -> None:
        head, axes, (added, turned) = self.width // self.heads, len(self.patch), parts(self.position)
        for position in (added, turned):
            if isinstance(position, (SinCos, Rope)) and position.extent is not None and len(position.extent) != axes:
                raise ValueError(f"position.extent: got {position.extent}, expected a number for each of {axes} axes")
        if turned is not None and (head % 2 or head < 2 * axes):
            raise ValueError(f"heads: got {head} values a head, expected an even number from {2 * axes} on, for Rope")
        if isinstance(self.position, Learned) and self.size is not None:
            self.position.fits(self.grid)
        if isinstance(self.position, Points):
            self._check_points(self.position)

    def _check_points(self, position: Points) -> None:
        if max(self.patch) > 1:
            raise ValueError(f"patch: got {self.patch}, expected 1 along each axis, for Points")
        if self.channels is not None and self.channels < position.axes:
            raise ValueError(f"position.axes: got {position.axes}, expected at most channels {self.channels}")
        if isinstance(self.text, Joint):
            raise ValueError("position: got Points beside a text in joint attention, expected Cross or Pooled for it")

    def _check_conditions(self) -> None:
        for name in self.conditions:
            if not name.isidentifier() or name == MASK or hasattr(_MODULES, name):
                taken = f"that is not {MASK!r} and that PyTorch's modules do not use themselves"
                raise ValueError(f"conditions: got the name {name!r}, expected an identifier {taken}")
        dual = self.text.dual if isinstance(self.text, Joint) else 0
        if dual > self.depth:
            raise ValueError(f"conditions: got dual {dual}, expected at most depth {self.depth}")

    def _check_axial(self, attention: Axial) -> None:
        attention.check(len(self.patch), self.depth)
        if isinstance(self.position, Points):
            raise ValueError("attention: got Axial beside Points, expected Full: a set has no axes to attend along")
        if isinstance(self.text, Joint):
            raise ValueError("attention: got Axial beside a text that enters by Joint, expected Full, or another entry")

    @property
    def text(self) -> Cross | Joint | None:
        """How the blocks take in the tokens of the texts; None where no text enters by its tokens."""
        entries = [c.entry for c in self.conditions.values() if isinstance(c, Text) and not isinstance(c.entry, Pooled)]
        if len({replace(entry, pooled=None) for entry in entries}) > 1:
            got = " and ".join(str(entry) for entry in entries)
            raise ValueError(
                f"conditions: got {got} in one model, expected the same way in for the tokens of all texts"
            )
        return entries[0] if entries else None

    @property
    def grid(self) -> Grid:
        """Patches along each axis of the trained size."""
        if self.size is None:
            raise ValueError("size: got None, expected numbers: resolve the config with its data first")
        return grid_of(self.size, self.patch)

    def trained_grid(self, position: SinCos | Rope) -> Grid | None:
        """The grid to whose extent coordinates are brought; None leaves them as they are."""
        return (position.extent or self.grid) if position.interpolate else None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to the data."""
        known = self.channels is not None and self.size is not None
        return known and all(condition.complete for condition in self.conditions.values())

    @property
    def in_channels(self) -> int:
        """Channels of a sample."""
        if self.channels is None:
            raise ValueError("channels: got None, expected a number: resolve the config with its data first")
        return self.channels

    @property
    def out_channels(self) -> int:
        """Channels of the network's output."""
        return self.in_channels * (2 if self.learned_variance else 1)


def coded_fields(config: DiTConfig) -> dict[str, int]:
    """The fields that a codec encodes, and of how many samples each is made."""
    fields = {name: c for name, c in config.conditions.items() if isinstance(c, Field) and c.coded}
    return {name: (field.channels or 0) // config.in_channels for name, field in fields.items()}


class DiT(nn.Module):
    """`model(x_t, t, cond)`: noised samples, their times and conditions to the network's prediction.

    Computes in the type of its weights. The same seed makes the same weights, and no other random state is touched; on
    the meta device (`with torch.device("meta"): DiT(config)`) it has shapes only, and takes no memory.

    Raises:
        ValueError: the config still leaves channels, size, classes or normalisation to the data.
    """

    def __init__(self, config: DiTConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self._constants = Constants()
        width, values, norms = config.width, prod(config.patch), (config.norm, config.mlp_norm or config.norm)
        for position in parts(config.position):
            if isinstance(position, (SinCos, Rope)):
                config.trained_grid(position)  # a size that is open is refused here, not in the first forward pass
        real = torch.get_default_device().type != "meta"
        with torch.device("meta"):  # or each layer would draw weights of its own, only to have them replaced below
            self.conditioner = Conditioner(config.time, config.conditions, width)
            self.embed = nn.Linear(values * (config.in_channels + self.conditioner.channels), width)
            if isinstance(config.position, Learned):
                self.positions = nn.Parameter(torch.empty(prod(config.position.canvas), width))
            axes = 0
            if isinstance(config.position, Points):
                axes, self.relations = config.position.axes, Relations(config.position, config.depth, config.heads)
            layers = Layers(width, config.heads, norms, config.mlp, config.qk_norm, axes)
            blocks = [_block(config, layers, n) for n in range(config.depth)]
            self.modulation = config.modulation.build(width, [block.rows for block in blocks])
            self.blocks = nn.ModuleList(blocks)
            self.output = Output(width, values * config.out_channels, config.norm)
        if real:
            init(self.to_empty(device="cpu"), torch.Generator("cpu").manual_seed(seed))

    def forward(
        self, x: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond = MappingProxyType({})
    ) -> Float[Tensor, "b c_out *space"]:
        """Predict what the training's prediction says (noise, velocity, ...), per channel and place.

        What the mask says does not exist has no influence on the rest; the output there means nothing.

        Raises:
            ValueError: the patch does not divide the sample, its channels are not the config's, or a condition is
                unknown, of another shape, or absent with no learned null.
        """
        config = self.config
        grid = grid_of(tuple(x.shape[2:]), config.patch)
        if x.shape[1] != config.in_channels:
            raise ValueError(f"channels: got {x.shape[1]}, expected {config.in_channels}")
        self.conditioner.check(cond)
        x = self.conditioner.beside(x.type_as(self.embed.weight), cond)
        mask = mask_of(cond)
        if mask is not None:
            # Even a weight of zero would let a NaN through.
            x, mask = x.masked_fill(~mask[:, None], 0), token_mask(mask, config.patch)
        tokens = self.embed(patchify(x, config.patch))
        table, rotation = self._positions(grid, x.device)
        if table is not None:
            tokens = tokens + table.type_as(tokens)
        context, exists = self.conditioner.context(cond, len(x)) or (None, None)
        among = self.relations(x, mask) if isinstance(config.position, Points) else [None] * config.depth
        blocks, out = self.modulation(self.conditioner.vector(t, cond))
        for block, modulation, relation in zip(self.blocks, blocks, among, strict=True):
            tokens, context = block(tokens, context, modulation, Places(rotation, mask, exists, grid, relation))
        return unpatchify(self.output(tokens, out), grid, config.patch)

    def _positions(self, grid: Grid, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """For a grid, the table to add to the tokens, and the sines and cosines that turn queries and keys."""
        added, turned = parts(self.config.position)
        table = None if added is None else self._table(added, grid, device)
        return table, None if turned is None else self._table(turned, grid, device)

    def _table(self, position: SinCos | Learned | Rope, grid: Grid, device: torch.device) -> Tensor:
        if isinstance(position, Learned):
            return position.middle(self.positions, grid)
        config = self.config
        turns = isinstance(position, Rope)
        make, share = (rotation_table, config.width // config.heads) if turns else (sincos_table, config.width)
        trained = config.trained_grid(position)
        places: Callable[[], Tensor] = lambda: make(coordinates(grid, trained), share, position.max_period)  # noqa: E731
        return self._constants.get((turns, grid), device, places)


def _block(config: DiTConfig, layers: Layers, n: int) -> Block | JointBlock:
    """The block number `n`, from 0."""
    if isinstance(config.text, Joint):
        return JointBlock(layers, last=n == config.depth - 1, dual=n < config.text.dual)
    return Block(layers, cross=config.text is not None, axes=config.attention.axes(n))


@torch.no_grad()
def init(model: DiT, generator: torch.Generator) -> None:
    """The published initialisation: Xavier for products, 0.02 for embeddings, zero for modulation and output."""
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    reads = [module.out for module in model.modules() if isinstance(module, CrossAttention)]  # as in PixArt
    zero = {*model.modulation.modules(), model.output.linear, *reads}
    embeds_time = {model.conditioner.time.up, model.conditioner.time.down}
    if isinstance(model.config.position, Learned):
        nn.init.normal_(model.positions, std=0.02, generator=generator)
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and module.elementwise_affine:
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.Linear) and module in embeds_time:
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        elif isinstance(module, nn.Linear) and module not in zero:
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, LabelVector):
            nn.init.normal_(module.table.weight, std=0.02, generator=generator)
        elif isinstance(module, (NumbersVector, TextVector, TextTokens)) and module.unknown is not None:
            nn.init.normal_(module.unknown, std=0.02, generator=generator)


_MODULES = nn.ModuleDict()
