"""What a recipe costs: counted FLOPs and memory, and measured times beside what the machine's matrix products reach."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from anydit.inference.compile import autocast, compile_blocks, product_dtype
from anydit.inference.device import free_bytes
from anydit.model.dit import DiT
from anydit.model.flops import Cost, cost
from anydit.tensors import Batch, select
from anydit.train.memory import needed, stand_in
from anydit.train.recipe import Recipe
from anydit.train.room import MARGIN, largest_batch, largest_grid
from anydit.train.step import TrainStep
from anydit.train.trial import seconds, trial


@dataclass(frozen=True)
class Profile:
    """What one batch costs. Seconds and FLOP/s are medians; activations are what the forward pass keeps."""

    cost: Cost
    batch: int
    device: str
    dtype: str
    parameter_bytes: int
    activation_bytes: int
    forward_seconds: float
    step_seconds: float
    ceiling: float

    @property
    def forward_share(self) -> float:
        """FLOP/s of the forward pass, as a share of the ceiling."""
        return self.cost.forward * self.batch / self.forward_seconds / self.ceiling

    @property
    def step_share(self) -> float:
        """FLOP/s of the whole training step, as a share of the ceiling."""
        return self.cost.training * self.batch / self.step_seconds / self.ceiling


@dataclass(frozen=True)
class Room:
    """The memory that a step needs at its peak, what is free, and what would fit: samples, and patches of one."""

    needed_bytes: int
    free_bytes: int | None
    batch: int | None
    grid: tuple[int, ...] | None


@dataclass(frozen=True)
class Point:
    """The cost of one sample of a size, and the measured seconds of its forward pass in a batch of one."""

    size: tuple[int, ...]
    cost: Cost
    seconds: float


def profile(recipe: Recipe, device: torch.device) -> Profile:
    """Count and measure one batch of a resolved recipe; its weights are random and its data are noise.

    Of several processes it is the batch of one, without what is exchanged.
    """
    planned = recipe.step.of_one(recipe.step.parts)
    config = planned.train
    step, batch = trial(planned, device)
    model = step.model
    kept = _kept_bytes(step, batch)
    if config.compile:
        compile_blocks(model)
    dtype = product_dtype(device, config.bf16)
    return Profile(
        cost=cost(recipe.model, text_tokens=recipe.step.text_tokens),
        batch=config.batch,
        device=_name(device),
        dtype=str(dtype).removeprefix("torch."),
        parameter_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        activation_bytes=kept,
        forward_seconds=seconds(lambda: _forward(recipe, model, batch), device),
        step_seconds=seconds(lambda: step(batch, 0), device),
        ceiling=product_ceiling(device, dtype),
    )


def fits_alone(recipe: Recipe, device: torch.device) -> bool:
    """Whether one process has the memory for its part of a batch and the whole model, where processes share one."""
    free = free_bytes(device) if recipe.train.mesh.splits else None
    return free is None or needed(recipe.step.of_one(recipe.step.parts), device) <= free


def room(recipe: Recipe, device: torch.device) -> Room:
    """The memory that a step of a resolved recipe needs, and the largest ones that fit into what is free."""
    step, free = recipe.step, free_bytes(device)
    need = needed(step, device)
    if free is None:
        return Room(need, None, None, None)
    planned = int(MARGIN * free)
    return Room(need, free, largest_batch(step, planned, device), largest_grid(step, planned, device))


def over_sizes(recipe: Recipe, sizes: Sequence[tuple[int, ...]], device: torch.device) -> list[Point]:
    """The cost of samples of other sizes.

    Raises:
        ValueError: a size that the patch does not divide.
    """
    model, step = DiT(recipe.model).to(device), recipe.step
    points = list[Point]()
    for size in sizes:
        counted = cost(recipe.model, size, step.text_tokens)
        batch = stand_in(replace(step, model=replace(recipe.model, size=size)), 1, device)
        points.append(Point(size, counted, seconds(lambda b=batch: _forward(recipe, model, b), device)))
    return points


def plot(points: Sequence[Point], path: Path) -> None:
    """FLOPs, attention's quadratic part of them, and milliseconds, over the number of tokens."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    tokens = [p.cost.tokens for p in points]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog(tokens, [p.cost.forward / 1e9 for p in points], "o-", label="all")
    left.loglog(tokens, [p.cost.attention / 1e9 for p in points], "s--", label="attention, quadratic part")
    left.set(xlabel="tokens", ylabel="GFLOPs of a forward pass")
    left.legend()
    right.loglog(tokens, [1e3 * p.seconds for p in points], "o-", color="C2")
    right.set(xlabel="tokens", ylabel="milliseconds of a forward pass, batch 1")
    for axes in (left, right):
        axes.grid(visible=True, which="both", linewidth=0.3)
        axes.set_xticks(tokens, [f"{n}\n{'x'.join(map(str, p.size))}" for n, p in zip(tokens, points, strict=True)])
        axes.xaxis.set_minor_locator(NullLocator())
    figure.savefig(path, dpi=120)


def product_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few square matrix products: what a step can be measured against."""
    best = 0.0
    for n in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        best = max(best, 2 * n**3 / seconds(lambda a=a, b=b: a @ b, device))
    return best


def _forward(recipe: Recipe, model: DiT, batch: Batch) -> Tensor:
    with torch.inference_mode(), autocast(batch.x.device, recipe.train.bf16):
        return model(batch.x, torch.full((len(batch.x),), 0.5, device=batch.x.device), batch.cond)


def _kept_bytes(step: TrainStep, batch: Batch) -> int:
    """Bytes of distinct tensors that one forward pass keeps for the backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in step.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    part = batch.x[: len(batch.x) // step.config.accumulate]
    t = torch.full((len(part),), 0.5, device=part.device)
    cond = select(batch.cond, slice(0, len(part)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), autocast(part.device, step.config.bf16):
        output = step.model(part, t, cond)  # held until the count is made, so that no storage is used twice
    total = sum(kept.values())
    del output
    return total


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type
