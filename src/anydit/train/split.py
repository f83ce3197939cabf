"""A model in parts, one in each of several processes: by FSDP2, which gathers a layer's weights while it runs."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from anydit.train.checkpoint import Rows, Share
from anydit.train.parallel import Processes


class Split:
    """Cuts every parameter of a model along its first axis, and keeps the rows of this process.

    `layers`: those modules of the model whose weights are gathered at a time. `own`: this process's rows of each
    parameter, by name; they are the model's memory, so that what updates them updates the model.
    """

    def __init__(self, model: nn.Module, layers: Iterable[nn.Module], processes: Processes, patience: float) -> None:
        assert processes.model is not None
        for layer in layers:
            fully_shard(layer, mesh=processes.model)
        fully_shard(model, mesh=processes.model)
        self._parameters = {name: _cut(p) for name, p in model.named_parameters()}
        self.own = {name: nn.Parameter(p.to_local().detach()) for name, p in self._parameters.items()}
        cut = {name: _rows(p.shape[0], len(self.own[name]), processes) for name, p in self._parameters.items()}
        self.share = Share(processes.piece, processes.pieces, cut, patience)

    def collect(self) -> None:
        """Give this process's rows the gradients that the model's backward pass left there."""
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            self.own[name].grad = gradient.to_local() if isinstance(gradient, DTensor) else None
            parameter.grad = None

    @torch.no_grad()
    def whole(self, name: str, rows: Tensor) -> Tensor:
        """A parameter-like tensor as a whole, from the rows that each process has; all of them must ask."""
        like = self._parameters[name]
        cut = DTensor.from_local(
            rows, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        return cut.full_tensor()


def _cut(parameter: nn.Parameter) -> DTensor:
    assert isinstance(parameter, DTensor)
    return parameter


def _rows(count: int, here: int, processes: Processes) -> Rows:
    """As FSDP2 cuts: pieces of one size, of which the last ones are smaller or empty."""
    first = min(count, processes.piece * -(-count // processes.pieces))
    return Rows(first, first + here, count)
