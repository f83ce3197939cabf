"""A model in pieces, one in each of several processes: by FSDP2, which gathers a layer's weights while it runs."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from anydit.train.checkpoint import Share
from anydit.train.parallel import Processes
from anydit.train.pieces import Piece
from anydit.train.tensor import Product, Sharers, share_products


class Split:
    """Cuts every parameter of a model, and keeps the piece of this process.

    Products that processes share are cut by heads and hidden units first. Then all is cut along its first axis: layers
    among the processes that have the same heads, everything else among all of a copy. So nobody else of a copy has the
    same piece, but of the few parameters that serve all heads.
    `layers`: those modules of the model whose weights are gathered at a time. `own`: this process's piece of each
    parameter, by name; they are the model's memory, so that what updates them updates the model.
    """

    def __init__(self, model: nn.Module, layers: Iterable[nn.Module], processes: Processes, patience: float) -> None:
        assert processes.batch is not None
        tensor = processes.mesh.tensor
        self._sharers = Sharers(processes.rank % tensor, tensor, processes.batch.get_group("tensor"))
        self._cuts, self._common = share_products(model, self._sharers)
        _shard(model, layers, processes)
        self._parameters = {name: _cut(p) for name, p in model.named_parameters()}
        among_alike = {name for name, p in self._parameters.items() if p.device_mesh == processes.alike}
        assert tensor == 1 or among_alike == {*self._cuts, *self._common}
        self.own = {name: nn.Parameter(p.to_local().detach()) for name, p in self._parameters.items()}
        pieces = {name: self._piece(name, processes) for name in self.own}
        self.share = Share(processes.piece, processes.pieces, pieces, patience)

    def collect(self) -> list[Tensor]:
        """Give this process's pieces the gradients that the model's backward pass left there.

        Returns those that are its part of the whole gradient: of what several have, the first of them counts.
        """
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            self.own[name].grad = gradient.to_local() if isinstance(gradient, DTensor) else None
            parameter.grad = None
        common = {name: gradient for name in self._common if (gradient := self.own[name].grad) is not None}
        if common:
            # Each knows the gradient of its heads alone.
            _sum(list(common.values()), self._sharers)
        mine = (p.grad for name, p in self.own.items() if not self._sharers.rank or name not in common)
        return [gradient for gradient in mine if gradient is not None]

    @torch.no_grad()
    def whole(self, name: str, piece: Tensor) -> Tensor:
        """A parameter-like tensor as a whole, from the piece that each process has; all of them must ask."""
        like = self._parameters[name]
        cut = DTensor.from_local(
            piece, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        ).full_tensor()
        if name not in self._cuts:
            return cut
        parts = [torch.empty_like(cut) for _ in range(self._sharers.count)]
        dist.all_gather(parts, cut.contiguous(), self._sharers.group)
        return self._cuts[name].whole(parts)

    def _piece(self, name: str, processes: Processes) -> Piece:
        """As FSDP2 cuts: pieces of one size, of which the last ones are smaller or empty."""
        shape, cut, number, of = self._parameters[name].shape, self._cuts.get(name), processes.piece, processes.pieces
        if cut is not None or name in self._common:
            number, of = number // self._sharers.count, of // self._sharers.count
        first = min(shape[0], number * -(-shape[0] // of))
        stop = first + len(self.own[name])
        return Piece(tuple(shape), ((first, stop),)) if cut is None else cut.piece(shape, first, stop)


def _shard(model: nn.Module, layers: Iterable[nn.Module], processes: Processes) -> None:
    """Hand the layers, the shared products outside of them, and what is left to FSDP2."""
    assert processes.model is not None
    layers = list(layers)
    inside = {module for layer in layers for module in layer.modules()}
    products = [module for module in model.modules() if isinstance(module, Product) and module not in inside]
    for module in (*layers, *products):
        fully_shard(module, mesh=processes.alike)
    fully_shard(model, mesh=processes.model)


def _sum(gradients: Sequence[Tensor], sharers: Sharers) -> None:
    """Add up what each process has of them, in one exchange."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    if len(flat):
        parts = sharers.sum(flat).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _cut(parameter: nn.Parameter) -> DTensor:
    assert isinstance(parameter, DTensor)
    return parameter
