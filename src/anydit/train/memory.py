"""How much memory a training step needs, counted without taking it; and what would fit where that is too much.

A step is run on tensors that have shapes but no values (PyTorch's FakeTensorMode); what lives at a time is added up.
The processor's and the allocator's own buffers are not counted, nor what compiling saves, nor what Muon needs while it
moves matrices, when the activations are gone.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anydit.diffusion.losses import Objective
from anydit.inference.compile import autocast
from anydit.inference.device import free_bytes
from anydit.model.backend import using
from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiT, DiTConfig
from anydit.model.flops import TEXT_TOKENS, cost
from anydit.tensors import Batch, Tokens
from anydit.train.config import TrainConfig
from anydit.train.recompute import recompute
from anydit.train.routing import some_routed
from anydit.train.tensor import Sharers, share_products

CLEAR = 4
"""Where a rough estimate is below the free memory by this factor, nothing is counted: it fits."""

ROUGH_COPIES = 5
"""Tensors of the size of the weights: these, their average, the gradients and the optimizer's two."""

ROUGH_BYTES = 60
"""Of activations for each token, block and unit of width; that of a step in float32 is 40 to 60."""

TRIES, NEAR, FURTHER = 5, 0.97, 16
"""How often a largest size is looked for, how near it is near enough, and how many times a size the next may be."""

MARGIN = 0.9
"""The share of the free memory that is planned with, because of what is not counted."""


@dataclass(frozen=True)
class Planned:
    """A training step whose memory is asked for: of which network and loss, and how it is trained.

    `text_tokens`: the most that a text has, by the condition's name, as the recipe's encoders make of it. A mesh that
    is not filled in is taken to have one copy of the model.
    """

    model: DiTConfig
    objective: Objective
    train: TrainConfig
    text_tokens: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def parts(self) -> int:
        """Of a batch, one for each process or for those that share its tokens."""
        return self.train.mesh.shard * (self.train.mesh.replicate or 1)

    @property
    def shared(self) -> bool:
        """Whether there are several copies of the model, whose gradients are summed."""
        return (self.train.mesh.replicate or 1) > 1

    def with_(self, batch: int, grid: Sequence[int] | None = None) -> "Planned":
        """The same for another batch, in one piece, and perhaps for another number of patches along each axis."""
        model = self.model
        if grid is not None:
            model = replace(model, size=tuple(n * p for n, p in zip(grid, model.patch, strict=True)))
        return replace(self, model=model, train=replace(self.train, batch=batch, accumulate=1))


def needed(step: Planned, device: torch.device) -> int:
    """Bytes at the peak of a step, in each process where several share it, with the weights and all beside them."""
    train, mesh = step.train, step.train.mesh
    counted = _traced(step, max(1, train.batch // train.accumulate // step.parts), device)
    averages = 1 + (0 if train.profiles is None else len(train.profiles.lengths))
    beside = (1 + averages) * counted.weights + counted.moments
    if not mesh.splits:
        # DistributedDataParallel fills buckets of its own with gradients that were found in several pieces.
        buckets = counted.weights if step.shared and train.accumulate > 1 else 0
        return beside + buckets + counted.peak
    whole = counted.weights if device.type == "cpu" else 0  # the average, for samples, which is on the CPU
    own = (beside + counted.weights) // mesh.pieces
    return own + counted.peak // mesh.context + counted.gathered + whole


def largest_batch(step: Planned, free: int, device: torch.device) -> int:
    """The most samples of which a step fits into so many bytes, as many for each process; 0 where not even one does."""
    guess = _rough_tokens(step, free) // prod(step.model.grid)
    return step.parts * _largest(lambda n: needed(step.with_(n * step.parts), device), guess, free)


def largest_grid(step: Planned, free: int, device: torch.device) -> tuple[int, ...] | None:
    """The most patches along each axis, in the config's proportions, of which one sample fits into so many bytes."""
    own = step.model.grid

    def scaled(tokens: int) -> tuple[int, ...]:
        return tuple(max(1, int(n * (tokens / prod(own)) ** (1 / len(own)))) for n in own)

    tokens = _largest(lambda n: needed(step.with_(1, scaled(n)), device), _rough_tokens(step, free), free)
    return scaled(tokens) if tokens else None


def refuse_too_large(step: Planned, device: torch.device) -> None:
    """Refuse a recipe whose step does not fit into the memory that is free.

    Raises:
        ValueError: with what it needs, and what would fit.
    """
    free, train = free_bytes(device), step.train
    if free is None or train.adapter is not None or _rough(step) * CLEAR < free:
        return
    need = needed(step, device)
    if need <= free:
        return
    most = largest_batch(step, int(MARGIN * free), device)
    ways = list[str]()
    if most:
        ways.append(f"--train.batch {most}" + (" --train.accumulate 1" if train.accumulate > 1 else ""))
    if most and (pieces := _pieces(step, most, int(MARGIN * free), device)):
        ways.append(f"--train.accumulate {pieces}")
    if train.recompute < 1 and needed(replace(step, train=replace(train, recompute=1.0)), device) <= MARGIN * free:
        ways.append("--train.recompute 1")
    told = " or ".join(ways) or "a smaller model, or --train.mesh.shard with more processes"
    sizes = f"{need / 2**30:.1f} GiB where {free / 2**30:.1f} GiB are free"
    raise ValueError(f"train.batch: got {train.batch}, whose step needs {sizes}; expected one that fits: {told}")


def _pieces(step: Planned, most: int, free: int, device: torch.device) -> int | None:
    """Into how many pieces each process can cut its part of the batch, so that a step fits; None where into none.

    `most`: samples that fit in one piece, of which fewer fit where gradients of earlier pieces are kept.
    """
    own = step.train.batch // step.parts
    for n in range(-(-step.train.batch // most), own + 1):
        if own % n == 0 and needed(replace(step, train=replace(step.train, accumulate=n)), device) <= free:
            return n
    return None


def stand_in(step: Planned, n: int, device: torch.device) -> Batch:
    """A batch of noise in place of latents, and conditions in place of those of the data."""
    model = step.model
    shape = (n, model.in_channels, *(model.size or ()))
    cond = dict[str, Tensor | Tokens]()
    for name, condition in model.conditions.items():
        if isinstance(condition, Label):
            cond[name] = torch.zeros(n, dtype=torch.int64, device=device)
        elif isinstance(condition, Field):
            cond[name] = torch.zeros(n, len(condition.mean or ()), *shape[2:], device=device)
        elif isinstance(condition, Numbers):
            cond[name] = torch.zeros(n, len(condition.mean or ()), device=device)
        else:
            tokens = step.text_tokens.get(name, TEXT_TOKENS)
            values = torch.zeros(n, tokens, condition.width or 1, device=device)
            exists = torch.ones(n, tokens, dtype=torch.bool, device=device)
            cond[name] = Tokens(values, exists, torch.zeros(n, condition.pooled or 1, device=device))
    return Batch(torch.randn(shape, device=device), cond, torch.arange(n))


class _Living(TorchDispatchMode):
    """Adds up the bytes of all tensors that live at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = set[int]()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return out

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's memory from now on until it is gone."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@dataclass(frozen=True)
class _Bytes:
    """Of all weights, and of what a step needs beside them; where processes share products, in one of them.

    `moments`: of the optimizer, for all weights. `gathered`: weights and gradients that are whole for a while, where
    processes have pieces of them. `peak`: the most of all else, activations and gradients, in both passes.
    """

    weights: int
    moments: int
    gathered: int
    peak: int


def _traced(step: Planned, batch: int, device: torch.device) -> _Bytes:
    with torch.device("meta"):
        model = DiT(step.model)
    weights = sum(p.nbytes for p in model.parameters())
    share_products(model, Sharers(0, step.train.mesh.tensor))
    recompute(model, step.train.recompute)
    with FakeTensorMode():
        for module in model.modules():
            for name, like in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.empty(like.shape, dtype=like.dtype, device=device)))
        with _Living() as living:
            for parameter in model.parameters():
                living.see(parameter)
            here = living.now
            _place_gradients(step, model)
            data = stand_in(step, batch, device)
            noise, t = torch.randn_like(data.x), torch.rand(batch, device=device)
            with (
                using(step.train.attention_backend),
                autocast(device, step.train.bf16),
                some_routed(step.train.routing, model, data.x),
            ):
                loss = step.objective.loss(model, data.x, noise, t, data.cond).mean()
            loss.backward()
        groups = step.train.optimizer.build(dict(model.named_parameters())).param_groups
    moments = sum(_size(group["params"]) * (1 if group.get("parts") else 2) for group in groups)  # Muon has one
    blocks = [_size(block.parameters()) for block in model.blocks]
    # What is in no block stays; of blocks there are two, the next being fetched, and their gradients being summed.
    return _Bytes(weights, moments * weights // here, here - sum(blocks) + 4 * max(blocks), living.peak - here)


def _place_gradients(step: Planned, model: DiT) -> None:
    """Let gradients be there before the backward pass, or leave as they are found, where they do that in training."""
    for parameter in model.parameters():
        if step.train.mesh.splits:  # each process then keeps its rows, which are counted apart
            parameter.register_post_accumulate_grad_hook(_leave)
        elif step.train.accumulate > 1 or step.shared:  # those of earlier pieces, or the buckets of several processes
            parameter.grad = torch.zeros_like(parameter)


def _leave(parameter: Tensor) -> None:
    parameter.grad = None


def _size(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _largest(need: Callable[[int], int], guess: int, free: int) -> int:
    """The largest n with need(n) <= free, nearly: by lines through what a need that grows about evenly was before."""
    need = cache(need)
    a, b = max(1, guess // 2), max(2, guess)
    of_a, of_b, best = need(a), need(b), 0
    for _ in range(TRIES):
        of_one = max(1.0, (of_b - of_a) / (b - a))
        c = max(1, int(b + (free - of_b) / of_one))
        c = min(c, FURTHER * max(a, b))  # where weights are nearly all of it, a line says nothing of what is far away
        of_c = need(c)
        if of_c <= free:
            best = max(best, c)
        if NEAR * free <= of_c <= free or c in (a, b):
            break
        a, of_a, b, of_b = b, of_b, c, of_c
    return best


def _rough(step: Planned) -> int:
    """Bytes of a step, about."""
    tokens = step.train.batch // step.train.accumulate * prod(step.model.grid)
    return _rough_weights(step) + tokens * step.model.depth * step.model.width * ROUGH_BYTES


def _rough_tokens(step: Planned, free: int) -> int:
    """About how many tokens' activations fit beside the weights, in blocks of such a depth and width."""
    return max(0, free - _rough_weights(step)) // (step.model.depth * step.model.width * ROUGH_BYTES)


def _rough_weights(step: Planned) -> int:
    """Bytes of the weights and of what is as large."""
    return ROUGH_COPIES * 4 * cost(step.model).parameters
