"""How much memory a training step needs, counted without taking it.

A step is run on tensors that have shapes but no values (PyTorch's FakeTensorMode); what lives at a time is added up.
The processor's and the allocator's own buffers are not counted, nor what Muon needs while it moves matrices, when the
activations are gone. What compiling saves is taken to be a tenth of what blocks keep, as was measured.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anydit.codecs import CodecConfig
from anydit.codecs.base import PLACES_AT_ONCE
from anydit.diffusion.losses import Objective
from anydit.inference.compile import autocast
from anydit.model.backend import using
from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiT, DiTConfig
from anydit.model.flops import TEXT_TOKENS
from anydit.tensors import Batch, Tokens
from anydit.train.config import TrainConfig
from anydit.train.mesh import Mesh
from anydit.train.recompute import recompute
from anydit.train.routing import some_routed
from anydit.train.tensor import Sharers, share_products

COMPILED = 0.1
"""The share of a step's activations that compiling saves, of blocks that keep theirs (benchmarks/memory.py)."""


@dataclass(frozen=True)
class Planned:
    """A training step whose memory is asked for: of which network and loss, and how it is trained.

    `text_tokens`: the most that a text has, by the condition's name, as the recipe's encoders make of it. `codec`: one
    with weights, which are there, too; `encodes`: it encodes each batch. A mesh that is not filled in is taken to have
    one copy of the model.
    """

    model: DiTConfig
    objective: Objective
    train: TrainConfig
    text_tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    codec: CodecConfig | None = None
    encodes: bool = False

    @property
    def parts(self) -> int:
        """Of a batch, one for each process or for those that share its tokens."""
        return self.train.mesh.shard * (self.train.mesh.replicate or 1)

    @property
    def shared(self) -> bool:
        """Whether there are several copies of the model, whose gradients are summed."""
        return (self.train.mesh.replicate or 1) > 1

    @property
    def piece(self) -> "Planned":
        """The step of one piece of the batch, of those that it is cut into."""
        return self.trained(batch=self.train.batch // self.train.accumulate, accumulate=1)

    def of_one(self, parts: int) -> "Planned":
        """The step of one of several processes with the whole model: of one of so many parts of the batch."""
        batch = max(1, self.train.batch // parts)
        return self.trained(batch=batch, accumulate=gcd(self.train.accumulate, batch), mesh=Mesh(1))

    def trained(self, **changes: Any) -> "Planned":
        """The same, with some of how it is trained said anew."""
        return replace(self, train=replace(self.train, **changes))

    def with_(self, batch: int, grid: Sequence[int] | None = None) -> "Planned":
        """The same for another batch, in one piece, and perhaps for another number of patches along each axis."""
        model = self.model
        if grid is not None:
            model = replace(model, size=tuple(n * p for n, p in zip(grid, model.patch, strict=True)))
        return replace(self, model=model).trained(batch=batch, accumulate=1)


def needed(step: Planned, device: torch.device) -> int:
    """Bytes at the peak of a step, in each process where several share it, with the weights and all beside them."""
    train, mesh = step.train, step.train.mesh
    samples = max(1, train.batch // step.parts)
    piece = max(1, samples // train.accumulate)
    counted, coding = _traced(step, piece, device), _coding(step, piece, device)
    averages = 1 + (0 if train.profiles is None else len(train.profiles.lengths))
    beside = (1 + averages) * counted.weights + counted.moments
    # A batch is encoded before there is anything else but gradients of its earlier pieces.
    earlier = counted.weights // mesh.pieces if coding.peak and (step.shared or train.accumulate > 1) else 0
    peak = max(counted.peak // mesh.context, coding.peak + earlier)
    codec = coding.weights + coding.of_sample * samples
    if not mesh.splits:
        # DistributedDataParallel fills buckets of its own with gradients that were found in several pieces.
        buckets = counted.weights if step.shared and train.accumulate > 1 else 0
        return beside + codec + buckets + peak
    whole = counted.weights if device.type == "cpu" else 0  # the average, for samples, which is on the CPU
    own = (beside + counted.weights) // mesh.pieces
    return own + codec + peak + counted.gathered + whole


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
class _Coding:
    """Bytes of a codec: of its weights, of a sample of the data, and the most beside these while a piece is encoded."""

    weights: int = 0
    of_sample: int = 0
    peak: int = 0


def _coding(step: Planned, batch: int, device: torch.device) -> _Coding:
    """Of the step's codec, if it has one with weights."""
    if step.codec is None:
        return _Coding()
    with torch.device("meta"):
        codec = step.codec.build().frozen()
    size = step.codec.data_size(step.model.size or ())
    with FakeTensorMode(), _Living() as living, torch.no_grad():
        _placed(codec, device)
        weights = _size([*codec.parameters(), *codec.buffers()])
        if not step.encodes:
            return _Coding(weights)
        x = torch.empty(batch, step.codec.data_channels(step.model.channels or 1), *size, device=device)
        living.now = living.peak = weights
        for part in x.split(max(1, PLACES_AT_ONCE // prod(size)))[:2]:  # those after them are alike
            codec.encode(part)
    return _Coding(weights, x[0].nbytes, living.peak - weights)


def _placed(module: nn.Module, device: torch.device) -> None:
    """Put tensors of zeros on `device` in place of all of a module's, which are on none."""
    for part in module.modules():
        for name, like in list(part.named_parameters(recurse=False)):
            made = torch.zeros(like.shape, dtype=like.dtype, device=device)
            setattr(part, name, nn.Parameter(made, requires_grad=like.requires_grad))
        for name, like in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.zeros(like.shape, dtype=like.dtype, device=device))


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
        _placed(model, device)
        if step.train.kernels is not None:
            step.train.kernels.fuse(model)
        with _Living() as living:
            for parameter in model.parameters():
                living.see(parameter)
            here = living.now
            _place_gradients(step, model)
            data = stand_in(step, batch, device)
            noise, t = torch.randn_like(data.x), torch.rand(batch, device=device)
            with using(step.train.attention_backend):  # backward, too, where blocks are computed again
                with autocast(device, step.train.bf16), some_routed(step.train.routing, model, data.x):
                    loss = step.objective.loss(model, data.x, noise, t, data.cond).mean()
                loss.backward()
        groups = step.train.optimizer.build(dict(model.named_parameters())).param_groups
    moments = sum(_size(group["params"]) * (1 if group.get("parts") else 2) for group in groups)  # Muon has one
    blocks = [_size(block.parameters()) for block in model.blocks]
    peak = living.peak - here
    if step.train.compile:
        peak = int(peak * (1 - COMPILED * (1 - (step.train.recompute or 0))))
    # What is in no block stays; of blocks there are two, the next being fetched, and their gradients being summed.
    return _Bytes(weights, moments * weights // here, here - sum(blocks) + 4 * max(blocks), peak)


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
