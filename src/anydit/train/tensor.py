"""Processes that share the products of each block: each has some of the heads and hidden units, for the same tokens.

As Megatron does (Shoeybi 2019, arXiv 1909.08053): of the first product of attention, and of a feed-forward network, a
process has the rows that make its heads or units, and of the last one the columns that read them; what all of them
find is summed. In the backward pass, so are the gradients of what they began with.

PyTorch's own plans (`parallelize_module`) give each process one range of rows. But queries, keys and values are one
product here, and so are a gated network's gate and values, so that a process needs a range of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_reduce, wait_tensor

from anydit.model.attention import Attention, CrossAttention, KeysAndValues
from anydit.model.dit import DiTConfig
from anydit.model.norms import GELUNetwork, SwiGLUNetwork
from anydit.model.points import Relations
from anydit.train.mesh import Mesh
from anydit.train.pieces import Piece, Range


def check_tensor(model: DiTConfig, mesh: Mesh) -> None:
    """Refuse a model whose heads or hidden units do not divide.

    Raises:
        ValueError: with what would.
    """
    for what, number in (("heads", model.heads), ("hidden units", model.mlp.hidden(model.width))):
        if number % mesh.tensor:
            raise ValueError(f"train.mesh.tensor: got {mesh.tensor}, expected a divisor of {what} {number}")


@dataclass(frozen=True)
class Sharers:
    """The processes that share products: this one's number, of how many; `group`: None exchanges nothing."""

    rank: int
    count: int
    group: dist.ProcessGroup | None = None

    def sum(self, x: Tensor) -> Tensor:
        """Of what each of them has."""
        return x if self.group is None else wait_tensor(all_reduce(x, "sum", self.group))


@dataclass(frozen=True)
class Cut:
    """How a parameter is cut along `axis`: into `groups`, of each of which every process has a part."""

    sharers: Sharers
    axis: int = 0
    groups: int = 1

    def own(self, whole: Tensor) -> Tensor:
        """The part of this process."""
        of, axis = self.sharers, self.axis
        return whole.unflatten(axis, (self.groups, of.count, -1)).select(axis + 1, of.rank).flatten(axis, axis + 1)

    def whole(self, parts: Sequence[Tensor]) -> Tensor:
        """The parameter, from the part of each process."""
        groups = [part.unflatten(self.axis, (self.groups, -1)) for part in parts]
        return torch.stack(groups, self.axis + 1).flatten(self.axis, self.axis + 2)

    def piece(self, shape: Sequence[int], first: int, stop: int) -> Piece:
        """Some rows of this process's part, which has this shape, as a piece of the whole."""
        count, rank, (rows, *others) = self.sharers.count, self.sharers.rank, shape
        if self.axis:
            columns = others[0]
            whole = (rows, columns * count, *others[1:])
            return Piece(whole, ((first, stop),), (rank * columns, (rank + 1) * columns))
        each, ranges = rows // self.groups, list[Range]()
        for group in range(self.groups):
            low, high = max(first, group * each), min(stop, (group + 1) * each)
            if low < high:
                moved = (group * (count - 1) + rank) * each
                ranges.append((low + moved, high + moved))
        return Piece((rows * count, *others), tuple(ranges))


def share_products(model: nn.Module, sharers: Sharers) -> tuple[dict[str, Cut], list[str]]:
    """Leave to `model` this process's heads and hidden units; what it computes stays the same.

    Returns how its parameters are cut, by name, and those that serve all heads, of whose gradient each process knows a
    part: the norms of queries and keys. Alone there is nobody to share with, and nothing is touched.
    """
    cuts, common = dict[str, Cut](), list[str]()
    if sharers.count == 1:
        return cuts, common
    for at, module in list(model.named_modules()):
        replaced = dict[str, Product]()
        for name, groups in _firsts(module).items():
            rows = Cut(sharers, groups=groups)
            replaced[name] = First(getattr(module, name), rows, rows)
        for name in _lasts(module):
            replaced[name] = Last(getattr(module, name), Cut(sharers, axis=1), Cut(sharers))
        for name, product in replaced.items():
            setattr(module, name, product)
            cuts |= {f"{at}.{name}.weight": product.cuts[0], f"{at}.{name}.bias": product.cuts[1]}
        if isinstance(module, Attention | CrossAttention | KeysAndValues):
            module.heads //= sharers.count
            common += [f"{at}.{name}" for name, _ in module.named_parameters() if name.startswith(("q_norm", "k_norm"))]
    return cuts, common


class Product(nn.Linear):
    """A part of a product of tokens. `weight`, `bias`: how they are cut."""

    def __init__(self, whole: nn.Linear, weight: Cut, bias: Cut) -> None:
        super().__init__(1, 1, device="meta")
        self.cuts, self.sharers = (weight, bias), weight.sharers
        self.weight = nn.Parameter(weight.own(whole.weight.detach()).clone())
        self.bias = nn.Parameter(bias.own(whole.bias.detach()).clone())
        self.out_features, self.in_features = self.weight.shape


class First(Product):
    """Some rows, of tokens that all processes have."""

    def forward(self, input: Float[Tensor, "*any width"]) -> Float[Tensor, "*any some"]:
        return super().forward(_Given.apply(input, self.sharers))


class Last(Product):
    """Some columns, and some of the bias; the sum over all processes."""

    def forward(self, input: Float[Tensor, "*any some"]) -> Float[Tensor, "*any width"]:
        before = self.sharers.rank * len(self.bias)
        bias = F.pad(self.bias, (before, self.out_features - before - len(self.bias)))
        return _Summed.apply(F.linear(input, self.weight, bias), self.sharers)


class _Given(torch.autograd.Function):
    """What each process goes on with in its own way, so that the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharers: Sharers) -> Tensor:
        ctx.sharers = sharers
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.sharers.sum(gradients[0]), None


class _Summed(torch.autograd.Function):
    """The sum over processes, with which each goes on in the same way, so that each knows its whole gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharers: Sharers) -> Tensor:
        return sharers.sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _firsts(module: nn.Module) -> dict[str, int]:
    """The products of a module whose rows make heads or hidden units, and in how many groups they lie."""
    match module:
        case Attention():
            return {"qkv": 3}
        case CrossAttention():
            return {"q": 1}
        case KeysAndValues():
            return {"kv": 2}
        case SwiGLUNetwork():
            return {"up": 2}
        case GELUNetwork():
            return {"up": 1}
        case Relations():
            return {"down": module.depth}
        case _:
            return {}


def _lasts(module: nn.Module) -> tuple[str, ...]:
    """Those whose columns read them."""
    if isinstance(module, Attention | CrossAttention):
        return ("out",)
    return ("down",) if isinstance(module, GELUNetwork | SwiGLUNetwork) else ()
