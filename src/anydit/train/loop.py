"""One training run in one folder: start it, or go on where its newest whole checkpoint left off."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

import torch

from anydit.config import Json, differences, from_json, to_json
from anydit.data.base import digest
from anydit.data.loader import read_ahead
from anydit.inference.compile import emulates_bf16
from anydit.inference.device import find_device
from anydit.tensors import Batch
from anydit.train import checkpoint, pictures
from anydit.train.base import Note, Trainable, Work
from anydit.train.checkpoint import Checkpoint
from anydit.train.config import RESUMABLE
from anydit.train.guards import Interrupted, SkipCounter, StopRequest, locked, make_writable
from anydit.train.log import Bar, Log, progress_bar, read
from anydit.train.start import Start
from anydit.train.step import Outcome
from anydit.weights import RUN_FILE, identify, read_config, read_id, save_tensors, write_config

CHECKPOINTS, LOG_FILE, SAMPLES, LOSS_CURVE = "checkpoints", "log.jsonl", "samples", "loss.png"
PREVIEWS = 50
"""Samples on a sheet, about."""

T = TypeVar("T")


def train(
    recipe: Trainable[T],
    out: Path | str,
    device: torch.device | str | None = None,
    note: Note = print,
    start: Start | None = None,
) -> T:
    """Train `recipe` in the folder `out`, or go on with what is there; returns what it makes, with averaged weights.

    Of a `Recipe` that is a `Pipeline`, of a `CodecRecipe` a codec.

    `start`: weights to begin with, for a recipe that `anydit.train.start.begun` has fitted to them. A run that began
    with some goes on without them.

    Raises:
        ValueError: the recipe cannot be built, contradicts its data or the run in `out`, or `out` is in use; the run
            began otherwise than with `start`.
        Interrupted: Ctrl-C or SIGTERM; everything is saved, and the same call goes on.
        NotFinite: the loss or the gradient stopped being finite.
    """
    out, device = Path(out), find_device(device)
    if device.type == "mps":
        raise ValueError(
            "device: got mps, expected cpu or cuda: PyTorch's fused AdamW for Apple's GPUs ignores the switch that "
            "skips a step whose gradient is not finite, so that one such step would spoil the run"
        )
    recipe.refuse_unbuildable()
    make_writable(out)
    with locked(out):
        run = _begun(recipe, out, device, note, start)
        run.resume()
        with StopRequest().listening() as stop:  # before and after, nothing is lost, and Ctrl-C acts at once
            run.go(stop)
        run.finish()
        return run.work.result


def _begun(recipe: Trainable[T], out: Path, device: torch.device, note: Note, start: Start | None) -> "Run[T]":
    """The run before its next step.

    Raises:
        ValueError: the folder is of another recipe.
    """
    begins = recipe.beginning(out, start)
    samples = recipe.data.open("train")
    before = _before(out / RUN_FILE, type(recipe)) if (out / RUN_FILE).is_file() else None
    whole: Trainable[T] = begins.settled(recipe.resolved(samples, note, device, before))
    if before is not None:
        _refuse_differences(before, to_json(whole), out)
    data: Json = {"samples": len(samples), "sha256": digest(samples)}
    return Run(whole, whole.begin(samples, out, device, note, begins.start), data, out, device, note)


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


@dataclass
class Run(Generic[T]):
    """A run under way: what is being trained, and what is written about it. `data`: what tells them apart."""

    recipe: Trainable[T]
    work: Work[T]
    data: Json
    out: Path
    device: torch.device
    note: Note
    id: str | None = None
    done: int = 0
    saved: int = -1
    began: float = field(default_factory=perf_counter)
    pending: list[tuple[int, Outcome, Json]] = field(default_factory=list[tuple[int, Outcome, Json]])

    def __post_init__(self) -> None:
        config = self.recipe.loop
        self.skips = SkipCounter(config.max_skipped)
        if config.bf16 and emulates_bf16(self.device):
            self.note(
                "This processor has no instructions for bfloat16, which would be slow: products are in float32, as "
                "with --train.bf16 False."
            )

    def resume(self) -> None:
        """Take up the newest whole checkpoint, if there is one; else write the recipe.

        Raises:
            ValueError: the folder holds checkpoints without a recipe, or none that is whole, or of other data.
        """
        root = self.out / CHECKPOINTS
        checkpoint.sweep(root)
        frozen = self.work.frozen()
        if (self.out / RUN_FILE).is_file():
            # The id that it began with, if there were ids then, although steps and intervals may have changed.
            self.id = read_id(self.out / RUN_FILE)
        elif root.is_dir() and any(root.iterdir()):
            raise ValueError(
                f"out: got {self.out}, which has checkpoints but no {RUN_FILE}; expected a run or a free folder"
            )
        else:
            self.id = identify(to_json(self.recipe) | self.work.origin, *frozen.values())
        found = checkpoint.newest(root, self.note)
        if found is not None:
            self._load(found)
            if self.done >= self.recipe.loop.steps:
                self.note(
                    f"Nothing is left to do: the run in {self.out} is at step {self.done}, and train.steps is "
                    f"{self.recipe.loop.steps}."
                )
                return
            self.note(f"Going on from step {self.done} of {self.recipe.loop.steps} in {self.out}.")
            self._compare_rates(found)
        elif root.is_dir() and any(root.iterdir()):
            raise ValueError(f"out: got {self.out}, where no checkpoint is whole; move it away to start anew")
        due = found is None and self.work.first(self.out)
        for name, tensors in frozen.items():
            save_tensors(self.out / name, tensors, self.id)
        write_config(self.out / RUN_FILE, to_json(self.recipe), self.id)
        (self.out / SAMPLES).mkdir(exist_ok=True)
        if due:
            self.save()

    def go(self, stop: StopRequest) -> None:
        """Take the steps that are left, if any are."""
        config = self.recipe.loop
        if self.done >= config.steps:
            return
        log = Log(self.out / LOG_FILE, self.out / "tensorboard" if config.tensorboard else None)
        batches = read_ahead(self.work.samples, self.work.order, self.done, config.workers)
        self.began = perf_counter()
        try:
            with progress_bar(config.steps, self.done) as bar:
                while self.done < config.steps:
                    self._one(batches, log, bar)
                    if stop.signal is not None:
                        self._flush(log, bar)
                        self.save()
                        raise Interrupted(stop.signal, self.done)
        finally:
            log.close()
        self.note(f"Trained: {self.out}.")

    def _one(self, batches: Iterator[Batch], log: Log, bar: Bar) -> None:
        """One step, and whatever is due after it."""
        config, step = self.recipe.loop, self.done
        batch = next(batches)
        outcome = self.work.step(batch.to(self.device), step)
        entry: Json = {"step": step, "lr": config.rate(step), "ids": zlib.crc32(batch.ids.numpy().tobytes())}
        self.pending.append((step, outcome, entry))
        self.done += 1
        last = self.done == config.steps
        if self.done % config.log_every == 0 or last:
            self._flush(log, bar)
        if self.done % config.save_every == 0 or last:
            self._flush(log, bar)
            self.save()
        if self.done % config.sample_every == 0 and not last:
            self._preview(log)

    def _flush(self, log: Log, bar: Bar) -> None:
        """Read the pending steps' outcomes off the device, in one wait for all of them."""
        if not self.pending:
            return
        outcomes = [(float(o.loss), float(o.grad_norm), bool(o.applied)) for _, o, _ in self.pending]
        terms = [{name: float(term) for name, term in o.terms.items()} for _, o, _ in self.pending]
        seconds = (perf_counter() - self.began) / len(outcomes)
        rate = self.recipe.loop.batch / seconds
        for (step, _, entry), (loss, norm, applied), told in zip(self.pending, outcomes, terms, strict=True):
            figures = {"loss": loss, "loss_hex": loss.hex(), "grad_norm": norm, "skipped": not applied}
            log.step(entry | figures | told | {"seconds": seconds, "samples_per_second": rate})
            if not applied:
                self.note(f"Step {step} was skipped: its loss or gradient is not finite.")
        log.flush()
        bar.update(self.done, outcomes[-1][0], rate)
        steps = [step for step, _, _ in self.pending]
        self.pending.clear()
        for step, (_, _, applied) in zip(steps, outcomes, strict=True):
            self.skips.see(applied, step)
        self.began = perf_counter()

    def save(self) -> None:
        """Write a checkpoint of this moment, and the averaged weights for `anydit.load`."""
        if self.saved == self.done:
            return
        info: Json = {
            "step": self.done,
            "lr": self.recipe.loop.rate(self.done - 1),
            "data": self.data,
            "skipped": self.skips.total,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        checkpoint.save(self.out / CHECKPOINTS, self.done, self.work.step.state(), info, self.recipe.loop.keep)
        self._export()
        self.saved = self.done

    def _export(self) -> None:
        """Write the averaged weights where `anydit.load` looks for them."""
        for name, tensors in self.work.weights().items():
            save_tensors(self.out / name, tensors, self.id)

    def finish(self) -> None:
        """The pictures of a finished run."""
        self.work.finish(self.out)
        entries = read(self.out / LOG_FILE)
        if entries:
            pictures.loss_curve(entries, self.out / LOSS_CURVE)

    def _preview(self, log: Log) -> None:
        """A sheet of samples. One that cannot be drawn or written is no reason to stop training."""
        try:
            image = self.work.sheet(PREVIEWS)
            image.save(self.out / SAMPLES / f"step-{self.done:07d}.png")
            log.picture(image, self.done)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            self.note(f"No sheet of samples at step {self.done} ({type(error).__name__}: {error}); training goes on.")

    def _load(self, found: Checkpoint) -> None:
        info = found.info()
        if info["data"] != self.data:
            now, then = (f"{d['samples']} samples, sha256 {d['sha256'][:12]}" for d in (self.data, info["data"]))
            raise ValueError(
                f"data: got {now} from {self.recipe.data}, expected {then}, with which the run in {self.out} began; "
                "put the data back, or choose another folder"
            )
        step = self.work.step
        step.load_state({name: found.tensors(name) for name in step.state()}, found.folder)
        self.done = self.saved = int(info["step"])
        self._export()  # a kill may have come between the checkpoint and these
        self.skips.total = int(info["skipped"])
        for name, now in (("threads", torch.get_num_threads()), ("torch", torch.__version__)):
            if info[name] != now:
                self.note(f"The run had {name} {info[name]}, now it is {now}: losses may differ in their last bits.")

    def _compare_rates(self, found: Checkpoint) -> None:
        """Say if the learning rate jumps, because the schedule follows another number of steps than before."""
        config, last = self.recipe.loop, float(found.info()["lr"])
        if last != config.rate(self.done - 1):
            self.note(
                f"The learning rate was {last:.3g} at step {self.done - 1}, and goes on with "
                f"{config.rate(self.done):.3g}: its schedule is now over {config.steps} steps."
            )
