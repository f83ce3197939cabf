"""A training step on noise, of weights that nobody keeps: what can be measured of a recipe before it is trained."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

from anydit.codecs import Normalize
from anydit.model.dit import DiT
from anydit.tensors import Batch
from anydit.train.lora import adapt
from anydit.train.memory import Step, stand_in
from anydit.train.recompute import recompute
from anydit.train.step import TrainStep

REPEATS = 5


def trial(step: Step, device: torch.device) -> tuple[TrainStep, Batch]:
    """A training step that is not compiled, and a batch of noise for it, always the same."""
    train, model = step.train, DiT(step.model)
    if train.adapter is not None:
        adapt(model, train.adapter, set(), train.seed)
    model.to(device)
    codec = Normalize((0.0,), (1.0,)).build()  # the noise is that of latents
    done = TrainStep(model, codec, step.objective, train, torch.arange(train.batch))
    recompute(model, train.recompute)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return done, stand_in(step.model, train.batch, device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The median time of `work`, after one call to warm up, the device's queue included."""
    times = list[float]()
    for _ in range(REPEATS + 1):
        _wait(device)
        began = perf_counter()
        work()
        _wait(device)
        times.append(perf_counter() - began)
    return median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
