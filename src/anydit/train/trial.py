"""A training step on noise, of weights that nobody keeps: what can be measured of a recipe before it is trained."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch

from anydit.codecs import Normalize
from anydit.inference.compile import compile_blocks, product_dtype
from anydit.inference.device import free_bytes
from anydit.model import backend
from anydit.model.backend import Backend
from anydit.model.dit import DiT
from anydit.tensors import Batch
from anydit.train.lora import adapt
from anydit.train.memory import Planned, stand_in
from anydit.train.recompute import recompute
from anydit.train.room import CLEAR
from anydit.train.step import TrainStep

K = TypeVar("K")

REPEATS, ROUNDS = 5, 7

TIMES = ROUNDS + 2
"""How often each backend of attention is tried."""

SCORE_BYTES = 12
"""Of each score that is stored for the backward pass, with its exponential and its gradient."""


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


def backends_to_try(step: Planned, device: torch.device, free: int | None = None) -> list[Backend | None]:
    """By what attention may be computed: PyTorch's choice, and what is another; or what the config says, alone.

    On a CPU not in products whose scores might not fit into so many bytes (None: those that are free).
    """
    train, model = step.train, step.model
    if train.attention_backend is not None:
        return [train.attention_backend]
    if device.type != "cpu":
        return [None, *(name for name in backend.OF.get(device.type, ()) if name != "math")]  # scores take memory
    if prod(model.grid) > backend.SHORT_TOKENS:
        return [None]
    if product_dtype(device, train.bf16) is torch.bfloat16:
        return [None, "flash"]  # unless told otherwise these are products
    scores = train.batch // train.accumulate * model.heads * model.depth * prod(model.grid) ** 2
    there = free_bytes(device) if free is None else free
    return [None, "math"] if there is not None and SCORE_BYTES * scores * CLEAR < there else [None]


def by_backends(
    work: Callable[[], object], backends: Sequence[Backend | None], device: torch.device
) -> tuple[dict[Backend | None, float], dict[Backend | None, str]]:
    """The seconds of `work`, which is not compiled, by what computes its attention; and why others failed.

    None is PyTorch's choice, which must not.
    """

    def by(name: Backend | None) -> Callable[[], object]:
        def run() -> None:
            with backend.using(name):
                work()

        return run

    works: dict[Backend | None, Callable[[], object]] = {name: by(name) for name in backends}
    failed = dict[Backend | None, str]()
    for name in backends:
        try:
            once(works[name], device)
        except Exception as error:  # of whichever library
            if name is None:
                raise
            failed[name] = reason(error)
            del works[name]
    return in_turn(works, device), failed


def reason(error: Exception) -> str:
    """The first line of what it says, for a note."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
