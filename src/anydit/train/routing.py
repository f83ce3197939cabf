"""Token routing (TREAD: Krause 2025, arXiv 2501.04765): in training some tokens pass by the blocks in the middle.

A share of the tokens of each sample goes around them and joins the others again, so that a step costs less while the
loss is still that of all tokens. The network knows nothing of it, and samples are drawn with all tokens in all blocks.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anydit.config import check_at_least, config
from anydit.model.attention import Axial
from anydit.model.blocks import Places
from anydit.model.dit import DiT, DiTConfig
from anydit.model.points import Points
from anydit.model.tokens import grid_of
from anydit.tensors import Stream


@config
class Route:
    """Which tokens pass by which blocks.

    `share`: of the tokens, chosen anew in every step for every sample. `first`, `last`: of the blocks that they do not
    see, counted from 0; None is the last but one.
    """

    share: float = 0.5
    first: int = 1
    last: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"train.routing.share: got {self.share}, expected above 0 and below 1")
        check_at_least("train.routing.first", self.first, 0)
        if self.last is not None:
            check_at_least("train.routing.last", self.last, self.first)

    def blocks(self, model: DiTConfig) -> range:
        """The numbers of the blocks that they do not see.

        Raises:
            ValueError: the model has none of these, or its tokens need all others.
        """
        last = model.depth - 2 if self.last is None else self.last
        if not self.first <= last < model.depth:
            raise ValueError(
                f"train.routing: got blocks {self.first} to {last}, expected some of 0 to {model.depth - 1}, in order"
            )
        if isinstance(model.attention, Axial):
            raise ValueError("train.routing: got one beside Axial attention, expected None: some of a grid are no grid")
        if isinstance(model.position, Points):
            raise ValueError("train.routing: got one beside Points, expected None: each block sees all distances")
        return range(self.first, last + 1)

    def kept(
        self, stream: Stream, step: int, places: Int[Tensor, " b"], count: int, mask: Bool[Tensor, "b n"] | None = None
    ) -> Int[Tensor, "b m"]:
        """Of `count` tokens of each sample, the numbers of those that go through all blocks, in order.

        `places`: of the samples in the whole batch. What `mask` says does not exist passes by before anything else.
        """
        order = stream.uniform(step, places, (count,))
        if mask is not None:
            order = order + 2.0 * ~mask
        return order.argsort(dim=1)[:, : self.left(count)].sort(dim=1).values

    def left(self, count: int) -> int:
        """How many of so many tokens go through all blocks."""
        return max(1, round((1 - self.share) * count))


class Detour:
    """The blocks that some tokens pass by; `taken` sends them around while it lasts."""

    def __init__(self, route: Route, model: DiT) -> None:
        self.blocks: Sequence[nn.Module] = [model.blocks[n] for n in route.blocks(model.config)]
        self._kept = torch.zeros((0, 0), dtype=torch.long)
        self._around = torch.zeros((0, 0, 0))

    @contextmanager
    def taken(self, kept: Int[Tensor, "b m"]) -> Iterator[None]:
        """Send all tokens but the `kept` ones around the blocks."""
        self._kept = kept[:, :, None]
        handles = [
            self.blocks[0].register_forward_pre_hook(self._part),
            *(block.register_forward_pre_hook(self._told) for block in self.blocks),
            self.blocks[-1].register_forward_hook(self._join),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._around = self._around.new_zeros((0, 0, 0))  # or its graph would be kept for a step

    def _part(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the first block: go on with the kept tokens."""
        tokens, *rest = given
        self._around = tokens
        return (tokens.gather(1, self._kept.expand(-1, -1, tokens.shape[2])), *rest)

    def _told(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before each block: what is known of the tokens is that of the kept ones."""
        *rest, places = given
        return (*rest, of_some(places, self._kept[:, :, 0]))

    def _join(self, _: nn.Module, given: object, made: tuple[Tensor, Any]) -> tuple[Float[Tensor, "b n width"], Any]:
        """After the last block: put the tokens back among those that went around."""
        tokens, context = made
        around = self._around.type_as(tokens)
        return around.scatter(1, self._kept.expand(-1, -1, tokens.shape[2]), tokens), context


def some_routed(route: Route | None, model: DiT, x: Float[Tensor, "b c *space"]) -> AbstractContextManager[None]:
    """Within it, as many tokens of samples like `x` pass by blocks as in training, and always the same ones."""
    if route is None:
        return nullcontext()
    left = route.left(prod(grid_of(x.shape[2:], model.config.patch)))
    return Detour(route, model).taken(torch.arange(left, device=x.device).expand(len(x), left))


def of_some(places: Places, kept: Int[Tensor, "b m"]) -> Places:
    """What blocks know of some tokens, which are others in each sample."""
    rotation, mask = places.rotation, places.mask
    return places._replace(
        rotation=None if rotation is None else rotation[:, kept][:, :, None],
        mask=None if mask is None else mask.gather(1, kept),
    )
