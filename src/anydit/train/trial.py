"""A training step on noise, of weights that nobody keeps: what can be measured of a recipe before it is trained."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch

from anydit.codecs import Normalize
from anydit.inference.compile import compile_blocks
from anydit.model import backend
from anydit.model.backend import Backend
from anydit.model.dit import DiT
from anydit.tensors import Batch
from anydit.train.lora import adapt
from anydit.train.memory import Planned, stand_in
from anydit.train.recompute import recompute
from anydit.train.step import TrainStep

K = TypeVar("K")

REPEATS, ROUNDS = 5, 7


def trial(step: Planned, device: torch.device) -> tuple[TrainStep, Batch]:
    """A training step that is not compiled, and a batch of noise for it, always the same."""
    train, model = step.train, DiT(step.model)
    if train.adapter is not None:
        adapt(model, train.adapter, set(), train.seed)
    model.to(device)
    codec = Normalize((0.0,), (1.0,)).build()  # the noise is that of latents
    done = TrainStep(model, codec, step.objective, train, torch.arange(train.batch))
    if train.kernels is not None:
        train.kernels.fuse(model)
    recompute(model, train.recompute)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        return done, stand_in(step, train.batch, device)


def once(work: Callable[[], object], device: torch.device) -> float:
    """The seconds of `work`, the device's queue included."""
    _wait(device)
    began = perf_counter()
    work()
    _wait(device)
    return perf_counter() - began


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The median time of `work`, after one call to warm up."""
    work()
    return median(once(work, device) for _ in range(REPEATS))


def in_turn(works: Mapping[K, Callable[[], object]], device: torch.device) -> dict[K, float]:
    """The least time of each, after one call to warm up; taken in turn, so that other processes trouble all alike."""
    for work in works.values():
        work()
    rounds = [{key: once(work, device) for key, work in works.items()} for _ in range(ROUNDS)]
    return {key: min(each[key] for each in rounds) for key in works}


def by_threads(work: Callable[[], object], counts: Sequence[int]) -> dict[int, float]:
    """The seconds of `work` on a CPU, by the number of threads."""

    def counted(count: int) -> Callable[[], object]:
        def run() -> None:
            torch.set_num_threads(count)
            work()

        return run

    return in_turn({count: counted(count) for count in counts}, torch.device("cpu"))


def by_backends(
    work: Callable[[], object], backends: Sequence[Backend | None], device: torch.device
) -> dict[Backend | None, float]:
    """The seconds of `work`, which is not compiled, by what computes its attention; None is PyTorch's choice."""

    def by(name: Backend | None) -> Callable[[], object]:
        def run() -> None:
            with backend.using(name):
                work()

        return run

    return in_turn({name: by(name) for name in backends}, device)


def by_compiling(model: DiT, work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """The seconds of `work` with the blocks of `model` as they are, and compiled, which they are from then on.

    Raises:
        Exception: they cannot be compiled; of which kind is up to the compiler.
    """
    compile_blocks(model)

    def plain() -> None:
        with torch.compiler.set_stance("force_eager"):
            work()

    found = in_turn({False: plain, True: work}, device)
    return found[False], found[True]


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
