"""A network as a CUDA graph: its kernels are started all at once, where starting them takes longer than they do.

That is so for small batches. It has not been run on a GPU yet: the tests that are marked `gpu` do.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from anydit.diffusion.denoiser import Network
from anydit.inference.pipeline import Pipeline
from anydit.tensors import Cond

WARM_UP = 3
"""Calls before one is captured, in which kernels are compiled and constants made."""


def replay(pipeline: Pipeline, shapes: int = 8) -> None:
    """From here on draw samples with a replayed network; compile its blocks before, if at all.

    Raises:
        ValueError: the network is not on a GPU.
    """
    if pipeline.device.type != "cuda":
        raise ValueError(f"replay: got a network on {pipeline.device.type}, expected one on a GPU, which has graphs")
    pipeline.network = Replayed(pipeline.model, shapes)


class Replayed:
    """`network(x, t, cond)`, captured once for each shape of what it is given, and from then on replayed.

    The last `shapes` of these are kept. A graph reads weights from where they were: once they were moved, all is
    captured anew. It is on the GPU that they are on, whichever is the current one.
    """

    def __init__(self, network: nn.Module, shapes: int = 8) -> None:
        self.network, self.shapes = network, shapes
        self._weights = list(network.parameters())
        self._addresses = list[int]()
        self._graphs = OrderedDict[Hashable, _Graph]()

    def __call__(self, x: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond) -> Tensor:
        """What the network returns, in a tensor of its own.

        Raises:
            ValueError: gradients are asked for, which a replayed network has none of, or samples are not on a GPU.
        """
        if torch.is_grad_enabled():
            raise ValueError("replay: got a call with gradients, expected none; set the pipeline's network to None")
        if x.device.type != "cuda":
            instead = "move the pipeline back, or set its network to None"
            raise ValueError(f"replay: got samples on {x.device.type}, expected them on a GPU; {instead}")
        self._forget_if_moved()
        given, form = tree_flatten((x, t, dict(cond)))
        kind = (form, *(None if v is None else (v.shape, v.dtype, v.device) for v in given), _autocast(x.device))
        with torch.cuda.device(x.device):
            graph = self._graphs.pop(kind, None) or _Graph(self.network, given, form)
            self._graphs[kind] = graph
            while len(self._graphs) > self.shapes:
                self._graphs.popitem(last=False)
            return graph(given)

    def _forget_if_moved(self) -> None:
        """Of graphs that read weights where they no longer are."""
        addresses = [p.data_ptr() for p in self._weights]
        if addresses != self._addresses:
            self._graphs.clear()
            self._addresses = addresses


class _Graph:
    """One shape's, on the current GPU. What is given is copied to where the graph reads it."""

    def __init__(self, network: Network, given: Sequence[Tensor | None], form: TreeSpec) -> None:
        self.given = [None if v is None else v.clone() for v in given]
        enabled, dtype = _autocast(torch.device("cuda"))

        def call() -> Tensor:
            # Weights that autocast keeps from one call to the next would not be there for the graph.
            with torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False):
                x, t, cond = tree_unflatten(self.given, form)
                return network(x, t, cond)

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=aside):  # its own would be on the GPU of the first graph ever
            self.made = call()

    def __call__(self, given: Sequence[Tensor | None]) -> Tensor:
        for own, v in zip(self.given, given, strict=True):
            if own is not None and v is not None:
                own.copy_(v)
        self.graph.replay()
        return self.made.clone()


def _autocast(device: torch.device) -> tuple[bool, torch.dtype]:
    """Whether it acts, and what products are in then."""
    return torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
