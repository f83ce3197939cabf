"""The adaLN-Zero transformer block (Peebles & Xie 2022, section 3.2), alone and with a text, and the output layer."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.model.attention import Attention, CrossAttention, Heads, KeysAndValues, attend, attend_along, merge
from anydit.model.norms import MLP, Norm
from anydit.model.points import Relation, attend_to_points
from anydit.model.tokens import Grid

MODULATIONS = 6
"""What the condition sets in one block: shift, scale and gate, for attention and for the feed-forward network."""
DUAL_ROWS, READ_ROWS, OUTPUT_ROWS = 3, 2, 2
"""What it sets for a second self-attention, for tokens that are only read, and in the output layer."""

Modulation = Float[Tensor, "b 1 width"]
Tokens = Float[Tensor, "b n width"]


def modulate(x: Tokens, shift: Modulation, scale: Modulation) -> Tokens:
    """Scale and shift every token's channels; a zero condition leaves them as they are."""
    return torch.addcmul(shift, x, 1 + scale)  # one pass over the tokens


def enter(norm: nn.Module, x: Tokens, shift: Modulation, scale: Modulation) -> tuple[Tokens, Tokens]:
    """The tokens as they are, and normed and modulated."""
    return x, modulate(norm(x), shift, scale)


def join(
    norm: nn.Module, x: Tokens, gate: Modulation, h: Tokens, shift: Modulation, scale: Modulation
) -> tuple[Tokens, Tokens]:
    """The tokens with what was found for them, and that normed and modulated."""
    return enter(norm, leave(x, gate, h), shift, scale)


def leave(x: Tokens, gate: Modulation, h: Tokens) -> Tokens:
    """The tokens with what was found for them."""
    return torch.addcmul(x, gate, h)


class Between(NamedTuple):
    """What a block does to its tokens between products; kernels that do the same may take its place, from outside."""

    enter: Callable[[nn.Module, Tokens, Modulation, Modulation], tuple[Tokens, Tokens]] = enter
    join: Callable[[nn.Module, Tokens, Modulation, Tokens, Modulation, Modulation], tuple[Tokens, Tokens]] = join
    leave: Callable[[Tokens, Modulation, Tokens], Tokens] = leave


class Layers(NamedTuple):
    """What the layers of all blocks have in common; `norms`: before attention, and before the feed-forward network.

    `axes`: of the space in which the tokens are points, if they are.
    """

    width: int
    heads: int
    norms: tuple[Norm, Norm]
    mlp: MLP
    qk_norm: Norm | None
    axes: int = 0


class Places(NamedTuple):
    """What blocks know of the tokens: how positions turn them; which of the sample's and the context's exist.

    `grid`: on which the sample's tokens lie. `relation`: of tokens that are points, in one block.
    """

    rotation: Float[Tensor, "2 *each n k"] | None
    mask: Bool[Tensor, "b n"] | None
    exists: Bool[Tensor, "b m"] | None
    grid: Grid = ()
    relation: Relation | None = None


class Block(nn.Module):
    """Attention, then a feed-forward network, each modulated before and gated after by the condition.

    `cross`: between the two, attention to the context's tokens, neither modulated nor gated (PixArt-alpha, Chen 2023).
    `axes`: of the grid, along which alone tokens attend to each other; None is all of them.
    """

    def __init__(self, layers: Layers, *, cross: bool = False, axes: tuple[int, ...] | None = None) -> None:
        super().__init__()
        width, heads, (norm1, norm2), mlp, qk_norm, space = layers
        self.axes, self.attend, self.between = axes, attend, Between()
        self.rows = MODULATIONS
        self.norm1 = norm1.build(width, affine=False)
        self.attention = Attention(width, heads, qk_norm, space)
        self.cross = CrossAttention(width, heads, qk_norm) if cross else None
        self.norm2 = norm2.build(width, affine=False)
        self.mlp = mlp.build(width)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        context: Float[Tensor, "b m width"] | None,
        modulation: Float[Tensor, "b rows width"],
        places: Places,
    ) -> tuple[Float[Tensor, "b n width"], Float[Tensor, "b m width"] | None]:
        """One block's step on the tokens; the context stays as it is."""
        rows = modulation.unsqueeze(2).unbind(1)
        x, (q, k, v) = self.split(x, rows, places.rotation)
        if places.relation is not None:
            heads = attend_to_points(q, k, v, places.relation)
        elif self.axes is not None:
            heads = attend_along(self.axes, places.grid, q, k, v, places.mask)
        else:
            heads = self.attend(q, k, v, places.mask)
        if self.cross is None:
            return self.finished(x, rows, heads), context
        assert context is not None
        assert places.exists is not None
        x = self.attended(x, rows, heads)
        return self.fed(x + self.cross(x, context, places.exists), rows), context

    def split(
        self, x: Tokens, rows: Sequence[Modulation], rotation: Float[Tensor, "2 *each n k"] | None = None
    ) -> tuple[Tokens, tuple[Heads, Heads, Heads]]:
        """The tokens; and modulated, their queries, keys and values."""
        x, normed = self.between.enter(self.norm1, x, *rows[:2])
        return x, self.attention.split(normed, rotation)

    def attended(self, x: Tokens, rows: Sequence[Modulation], heads: Heads) -> Tokens:
        """The tokens with what attention found for them."""
        return self.between.leave(x, rows[2], self.attention.out(merge(heads)))

    def fed(self, x: Tokens, rows: Sequence[Modulation]) -> Tokens:
        """The tokens with what the feed-forward network finds for them."""
        x, normed = self.between.enter(self.norm2, x, *rows[3:5])
        return self.between.leave(x, rows[5], self.mlp(normed))

    def finished(self, x: Tokens, rows: Sequence[Modulation], heads: Heads) -> Tokens:
        """`attended`, then `fed`."""
        found = self.attention.out(merge(heads))
        x, normed = self.between.join(self.norm2, x, rows[2], found, *rows[3:5])
        return self.between.leave(x, rows[5], self.mlp(normed))


class Read(nn.Module):
    """Tokens that are only read: norm, keys and values."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.norm = layers.norms[0].build(layers.width, affine=False)
        self.attention = KeysAndValues(layers.width, layers.heads, layers.qk_norm)

    def forward(self, x: Float[Tensor, "b n width"], rows: Sequence[Modulation]) -> tuple[Heads, Heads]:
        """Keys and values of the modulated tokens."""
        return self.attention(modulate(self.norm(x), *rows))


class JointBlock(nn.Module):
    """Sample and context attend to all tokens of both, each with weights of its own (MM-DiT, Esser 2024).

    `last`: the context is only read, because nothing comes after. `dual`: the sample also attends to itself alone
    (MM-DiT-X, Stable Diffusion 3.5). The rows of modulation are the sample's, those of `dual`, and the context's.
    """

    def __init__(self, layers: Layers, *, last: bool, dual: bool) -> None:
        super().__init__()
        self.sample = Block(layers)
        self.dual = Attention(layers.width, layers.heads, layers.qk_norm) if dual else None
        self.context = Read(layers) if last else Block(layers)
        self.parts = [MODULATIONS, DUAL_ROWS if dual else 0, READ_ROWS if last else MODULATIONS]
        self.rows = sum(self.parts)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        context: Float[Tensor, "b m width"],
        modulation: Float[Tensor, "b rows width"],
        places: Places,
    ) -> tuple[Float[Tensor, "b n width"], Float[Tensor, "b m width"]]:
        """One block's step on the tokens of both."""
        ours, dual, theirs = (part.unbind(1) for part in torch.split(modulation.unsqueeze(2), self.parts, dim=1))
        rotation, mask, exists = places[:3]
        assert exists is not None
        both = torch.cat([exists.new_ones(x.shape[:2]) if mask is None else mask, exists], dim=1)
        x, (q, k, v) = self.sample.split(x, ours, rotation)
        alone = None
        if self.dual is not None:
            alone = dual[2] * self.dual(modulate(self.sample.norm1(x), *dual[:2]), rotation, mask)
        if isinstance(self.context, Read):
            k_context, v_context = self.context(context, theirs)
        else:
            context, (q_context, k_context, v_context) = self.context.split(context, theirs)
            q = torch.cat([q, q_context], dim=2)
        heads = attend(q, torch.cat([k, k_context], dim=2), torch.cat([v, v_context], dim=2), both)
        ours_found, found = heads[:, :, : x.shape[1]], heads[:, :, x.shape[1] :]
        if isinstance(self.context, Block):
            context = self.context.finished(context, theirs, found)
        if alone is None:
            return self.sample.finished(x, ours, ours_found), context
        return self.sample.fed(self.sample.attended(x, ours, ours_found) + alone, ours), context


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
