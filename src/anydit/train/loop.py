"""One training run in one folder: start it, or go on where its newest whole checkpoint left off."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from anydit.config import Json, differences, from_json, to_json
from anydit.data.base import digest
from anydit.inference.device import find_device
from anydit.train.base import Note, Site, Trainable
from anydit.train.config import RESUMABLE
from anydit.train.guards import StopRequest, locked, make_writable
from anydit.train.pace import own_pace
from anydit.train.parallel import Processes, together
from anydit.train.resolve import check_there
from anydit.train.run import Run
from anydit.train.start import Start
from anydit.weights import RUN_FILE, read_config

T = TypeVar("T")


def train(
    recipe: Trainable[T],
    out: Path | str,
    device: torch.device | str | None = None,
    note: Note = print,
    start: Start | None = None,
    asked: Collection[str] = (),
) -> T:
    """Train `recipe` in the folder `out`, or go on with what is there; returns what it makes, with averaged weights.

    Of a `Recipe` that is a `Pipeline`, of a `CodecRecipe` a codec; on the CPU where processes have parts of a model.

    `start`: weights to begin with, for a recipe that `anydit.train.start.begun` has fitted to them. A run that began
    with some goes on without them. `asked`: conditions that the data must have; others that the recipe leaves open are
    left out where it has none.

    Raises:
        ValueError: the recipe cannot be built, contradicts its data or the run in `out`, or `out` is in use; the run
            began otherwise than with `start`.
        Interrupted: Ctrl-C or SIGTERM; everything is saved, and the same call goes on.
        NotFinite: the loss or the gradient stopped being finite.
        Spiked: gradients out of all proportion, again after going back to a checkpoint.
    """
    out, device = Path(out), find_device(device)
    if device.type == "mps":
        raise ValueError(
            "device: got mps, expected cpu or cuda: PyTorch's fused AdamW for Apple's GPUs ignores the switch that "
            "skips a step whose gradient is not finite, so that one such step would spoil the run"
        )
    recipe.refuse_unbuildable()
    shared = together(device, recipe.loop.timeout, recipe.loop.mesh)
    with own_pace(), shared as (processes, device), _held(out, processes):
        recipe.loop.check_device(device)
        note = note if processes.first else _silent
        with processes.first_before_others():
            run = _begun(recipe, Site(out, device, note, processes), start, asked)
            run.resume()
        run.agree()
        with StopRequest().listening() as stop:  # before and after, nothing is lost, and Ctrl-C acts at once
            run.go(stop)
        if processes.first:
            run.finish()
        return run.work.result


@contextmanager
def _held(out: Path, processes: Processes) -> Iterator[None]:
    """Hold the run's folder, for all of these processes."""
    if not processes.first:
        yield
        return
    make_writable(out)
    with locked(out):
        yield


def _silent(_: str) -> None:
    """What the first process has said is not said again."""


def _begun(recipe: Trainable[T], site: Site, start: Start | None, asked: Collection[str]) -> "Run[T]":
    """The run before its next step.

    Raises:
        ValueError: the folder is of another recipe, or the data lacks what is asked for.
    """
    begins, file = recipe.beginning(site.out, start), site.out / RUN_FILE
    samples = recipe.data.open("train")
    check_there(asked, samples.facts)
    before = _before(file, type(recipe)) if file.is_file() else None
    whole: Trainable[T] = begins.settled(recipe.resolved(samples, site.note, site.device, before))
    if before is not None:
        _refuse_differences(before, to_json(whole), site.out)
    data: Json = {"samples": len(samples), "sha256": digest(samples)}
    return Run(whole, whole.begin(samples, site, begins.start), data, site)


def _before(file: Path, kind: type[Trainable[T]]) -> Json:
    """The recipe in a run's file; options that have come since then are as if they had not."""
    content = read_config(file)
    try:
        return to_json(from_json(kind, content))
    except ValueError:  # of another kind, or with options that are no more: the differences say so
        return content


def _refuse_differences(before: Json, now: Json, out: Path) -> None:
    changed = [d for d in differences(before, now) if not f"{d[0]}.".startswith(RESUMABLE)]
    if changed:
        what = "; ".join(f"{name}: was {old!r}, is {new!r}" for name, old, new in changed[:8])
        raise ValueError(f"out: {out} holds a run of another recipe ({what}); choose another folder or the same recipe")
