"""A small training on the handwritten digits, watched: its cost, and its loss on held-out digits as it goes on.

What a step costs is this process's time on one core, by the median of rounds in which all that are compared take turns:
on a machine that others use, too, the clock on the wall says little. Losses are of the averaged weights.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from anydit.data.loader import read_ahead
from anydit.model.dit import DiT
from anydit.recipes.digits import digits
from anydit.tensors import Batch
from anydit.train.base import Site
from anydit.train.config import TrainConfig
from anydit.train.diffusion import DiffusionWork
from anydit.train.draws import Draws
from anydit.train.optim import LinearDecay
from anydit.train.recipe import Recipe

CPU = torch.device("cpu")

Curve = list[tuple[int, float]]
"""Steps taken, and the loss then."""

DRAWN = 4
"""Draws of times and noise for each held-out digit; the same for all that are compared."""


def small(width: int, depth: int, patch: int, steps: int) -> Recipe:
    """The recipe of the demo, smaller."""
    recipe = digits()
    model = replace(recipe.model, width=width, depth=depth, heads=width // 32, patch=(patch, patch))
    train = replace(recipe.train, steps=steps, batch=64, schedule=LinearDecay(50, 0.5), ema_decay=0.99, bf16=False)
    return replace(recipe, model=model, train=train)


def with_train(recipe: Recipe, **train: object) -> Recipe:
    """A recipe, trained otherwise."""
    return replace(recipe, train=replace(recipe.train, **train))


def begun(recipe: Recipe) -> DiffusionWork:
    """Its work before the first step."""
    samples = recipe.data.open("train")
    whole = recipe.resolved(samples, lambda _: None, CPU)
    with TemporaryDirectory() as folder:
        work = whole.begin(samples, Site(Path(folder), CPU, lambda _: None))
    assert isinstance(work, DiffusionWork)
    return work


def followed(recipe: Recipe, every: int, seen: Callable[[DiffusionWork, int], None] = lambda work, step: None) -> Curve:
    """Train it; the loss on held-out digits after every so many steps and at the end. `seen`: called after each."""
    work, curve = begun(recipe), Curve()
    batches = read_ahead(work.samples, work.order, 0, 0)
    for step in range(recipe.train.steps):
        work.step(next(batches), step)
        seen(work, step)
        if (step + 1) % every == 0 or step + 1 == recipe.train.steps:
            curve.append((step + 1, held_out_loss(work)))
    print(f"  {recipe.train.optimizer} seed {recipe.train.seed}: {curve[-1][1]:.4f}", flush=True)
    return curve


@torch.no_grad()
def held_out_loss(work: DiffusionWork, model: DiT | None = None) -> float:
    """The mean loss of held-out digits, of the averaged weights or those of another `model`."""
    batch = _held_out()
    model, objective = model or work.step.ema.module, work.step.objective
    x0, total = work.pipeline.codec.encode(batch.x), 0.0
    places = torch.arange(len(x0))
    draws = Draws(TrainConfig(batch=len(x0), seed=12345, times=work.train.times), {})
    for turn in range(DRAWN):
        noise, t = draws.noise(turn, places, tuple(x0.shape[1:])), draws.times(turn, places)
        total += float(objective.loss(model, x0, noise, t, batch.cond).mean()) / DRAWN
    return total


@cache
def _held_out() -> Batch:
    samples = digits().data.open("held_out")
    return samples.read(torch.arange(len(samples)))


def costs(recipes: Mapping[str, Recipe], rounds: int = 5, steps: int = 6) -> dict[str, float]:
    """Seconds of one core that a step takes."""
    works = {name: begun(recipe) for name, recipe in recipes.items()}
    batches = {name: [*_first(work, 2 + steps)] for name, work in works.items()}
    for name, work in works.items():
        for step in range(2):
            work.step(batches[name][step], step)
    taken: dict[str, list[float]] = {name: [] for name in recipes}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.process_time()
            for step in range(2, 2 + steps):
                work.step(batches[name][step], step)
            taken[name].append((time.process_time() - began) / steps)
    return {name: median(some) for name, some in taken.items()}


def _first(work: DiffusionWork, count: int) -> list[Batch]:
    batches = read_ahead(work.samples, work.order, 0, 0)
    return [next(batches) for _ in range(count)]
