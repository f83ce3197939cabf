"""Processes that share the tokens of each sample: each computes the blocks for its own, and attention exchanges heads.

As DeepSpeed-Ulysses does (Jacobs 2023, arXiv 2309.14509): for attention, each process gives its tokens' queries, keys
and values of the other processes' heads away, and gets those of its own heads for all tokens; what is found goes the
same way back. Of a block's work and memory each process has its part, and the result is the same to rounding.
"""

from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd

from anydit.model.attention import Axial, attend
from anydit.model.blocks import Block, Places
from anydit.model.dit import DiT, DiTConfig
from anydit.model.points import Points
from anydit.model.text import Joint
from anydit.train.mesh import Mesh
from anydit.train.parallel import Processes


def check_context(model: DiTConfig, mesh: Mesh) -> None:
    """Refuse a model whose tokens cannot be shared.

    Raises:
        ValueError: its heads or tokens do not divide, or its blocks do more than attend among all tokens.
    """
    count, name = mesh.context, "train.mesh.context"
    if count == 1:
        return
    for what, held in (("Axial", isinstance(model.attention, Axial)), ("Points", isinstance(model.position, Points)),
                       ("a text that enters by Joint", isinstance(model.text, Joint))):  # fmt: skip
        if held:
            raise ValueError(f"{name}: got {count} beside {what}, expected 1: only full attention exchanges heads")
    if model.heads % (count * mesh.tensor):
        shared = f" / tensor {mesh.tensor}" if mesh.tensor > 1 else ""
        raise ValueError(f"{name}: got {count}, expected a divisor of heads {model.heads}{shared}")
    if model.size is not None:
        _each(prod(model.grid), count)


def share_tokens(model: DiT, processes: Processes) -> None:
    """Let each process compute `model` for its part of the tokens; each has the whole output.

    Raises:
        ValueError: in a forward pass, if the tokens of a sample do not divide.
    """
    assert processes.batch is not None
    part = _Part(processes.batch.get_group("context"))
    for block in model.blocks:
        assert isinstance(block, Block)
        block.register_forward_pre_hook(part.places)
        block.attend = part.attend
    model.blocks[0].register_forward_pre_hook(part.tokens)
    model.output.register_forward_hook(part.joined)


class _Part:
    """One process's part of the tokens, in the order of the processes of its group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank, self.count = group, dist.get_rank(group), dist.get_world_size(group)

    def tokens(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the first block: this process's tokens alone."""
        tokens, *others = given
        return (self._own(tokens, 1), *others)

    def places(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before each block: their rotation alone. The mask stays that of all, which attention sees."""
        *others, places = given
        assert isinstance(places, Places)
        rotation = places.rotation
        return (*others, places if rotation is None else places._replace(rotation=self._own(rotation, 1)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """What attention among all tokens finds for this process's tokens."""
        some, heads, n, width = q.shape
        each = heads // self.count
        mine = torch.stack([q, k, v]).view(3, some, self.count, each, n, width)
        theirs = self._exchanged(mine.permute(2, 0, 1, 3, 4, 5))
        every = theirs.permute(1, 2, 3, 0, 4, 5).reshape(3, some, each, self.count * n, width)
        found = attend(every[0], every[1], every[2], mask).view(some, each, self.count, n, width)
        back = self._exchanged(found.permute(2, 0, 1, 3, 4))
        return back.permute(1, 0, 2, 3, 4).reshape(some, heads, n, width)

    def joined(self, _: nn.Module, given: Any, output: Tensor) -> Tensor:
        """After the last layer: the output of all tokens."""
        return _Joined.apply(output, self.group, self.rank, self.count)  # pyright: ignore[reportUnknownMemberType]

    def _own(self, x: Tensor, axis: int) -> Tensor:
        each = _each(x.shape[axis], self.count)
        return x.narrow(axis, self.rank * each, each)

    def _exchanged(self, x: Tensor) -> Tensor:
        """Row i of the first axis goes to process i, whose own comes in its place."""
        return all_to_all_single_autograd(x.contiguous(), None, None, self.group)


class _Joined(torch.autograd.Function):
    """Tokens of all processes. Each goes on with them in the same way, so that its part of the gradient is whole."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, rank: int, count: int) -> Tensor:
        ctx.rank, ctx.each = rank, x.shape[1]
        parts = [torch.empty_like(x) for _ in range(count)]
        dist.all_gather(parts, x.contiguous(), group)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gradients[0].narrow(1, ctx.rank * ctx.each, ctx.each), None, None, None


def _each(tokens: int, count: int) -> int:
    if tokens % count:
        raise ValueError(f"train.mesh.context: got {count}, expected a divisor of the {tokens} tokens of a sample")
    return tokens // count
