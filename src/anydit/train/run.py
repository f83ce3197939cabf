"""A training run under way: its steps, and what is written about them."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

import torch

from anydit.config import Json, to_json
from anydit.data.loader import read_ahead
from anydit.inference.compile import emulates_bf16
from anydit.tensors import Batch
from anydit.train import checkpoint, pictures
from anydit.train.base import Site, Trainable, Work
from anydit.train.checkpoint import Checkpoint
from anydit.train.guards import Interrupted, SkipCounter, StopRequest
from anydit.train.log import Bar, Log, progress_bar, read
from anydit.train.step import Outcome
from anydit.weights import RUN_FILE, identify, read_id, save_tensors, write_config

CHECKPOINTS, LOG_FILE, SAMPLES, LOSS_CURVE = "checkpoints", "log.jsonl", "samples", "loss.png"
PREVIEWS = 50
"""Samples on a sheet, about."""

T = TypeVar("T")


@dataclass
class Run(Generic[T]):
    """A run under way: what is being trained, and what is written about it. `data`: what tells them apart."""

    recipe: Trainable[T]
    work: Work[T]
    data: Json
    site: Site
    id: str | None = None
    done: int = 0
    saved: int = -1
    began: float = field(default_factory=perf_counter)
    pending: list[tuple[int, Outcome, Json]] = field(default_factory=list[tuple[int, Outcome, Json]])

    def __post_init__(self) -> None:
        config = self.recipe.loop
        self.skips = SkipCounter(config.max_skipped)
        if config.bf16 and emulates_bf16(self.site.device):
            self.site.note(
                "This processor has no instructions for bfloat16, which would be slow: products are in float32, as "
                "with --train.bf16 False."
            )

    def resume(self) -> None:
        """Take up the newest whole checkpoint, if there is one; else write the recipe.

        Raises:
            ValueError: the folder holds checkpoints without a recipe, or none that is whole, or of other data.
        """
        root = self.site.out / CHECKPOINTS
        if self.site.processes.first:
            checkpoint.sweep(root)
        frozen = self.work.frozen()
        if (self.site.out / RUN_FILE).is_file():
            # The id that it began with, if there were ids then, although steps and intervals may have changed.
            self.id = read_id(self.site.out / RUN_FILE)
        elif root.is_dir() and any(root.iterdir()):
            raise ValueError(
                f"out: got {self.site.out}, which has checkpoints but no {RUN_FILE}; expected a run or a free folder"
            )
        else:
            self.id = identify(to_json(self.recipe) | self.work.origin, *frozen.values())
        found = checkpoint.newest(root, self.site.note)
        if found is not None:
            self._load(found)
            if self.done >= self.recipe.loop.steps:
                self.site.note(
                    f"Nothing is left to do: the run in {self.site.out} is at step {self.done}, and train.steps is "
                    f"{self.recipe.loop.steps}."
                )
                return
            self.site.note(f"Going on from step {self.done} of {self.recipe.loop.steps} in {self.site.out}.")
            self._compare_rates(found)
        elif root.is_dir() and any(root.iterdir()):
            raise ValueError(f"out: got {self.site.out}, where no checkpoint is whole; move it away to start anew")
        if not self.site.processes.first:
            return
        due = found is None and self.work.first(self.site.out)
        for name, tensors in frozen.items():
            save_tensors(self.site.out / name, tensors, self.id)
        write_config(self.site.out / RUN_FILE, to_json(self.recipe), self.id)
        (self.site.out / SAMPLES).mkdir(exist_ok=True)
        if due:
            self.save()

    def go(self, stop: StopRequest) -> None:
        """Take the steps that are left, if any are."""
        config = self.recipe.loop
        if self.done >= config.steps:
            return
        batches = read_ahead(self.work.samples, self.work.order, self.done, config.workers)
        self.began = perf_counter()
        with self._told() as (log, bar):
            while self.done < config.steps:
                self._one(batches, log, bar)
                if signal := self.site.processes.most(stop.signal or 0):
                    self._flush(log, bar)
                    self.save()
                    raise Interrupted(signal, self.done)
        self.site.note(f"Trained: {self.site.out}.")

    @contextmanager
    def _told(self) -> Iterator[tuple[Log | None, Bar | None]]:
        """The log and the bar, of the first process."""
        if not self.site.processes.first:
            yield None, None
            return
        config = self.recipe.loop
        log = Log(self.site.out / LOG_FILE, self.site.out / "tensorboard" if config.tensorboard else None)
        try:
            with progress_bar(config.steps, self.done) as bar:
                yield log, bar
        finally:
            log.close()

    def _one(self, batches: Iterator[Batch], log: Log | None, bar: Bar | None) -> None:
        """One step, and whatever is due after it."""
        config, step = self.recipe.loop, self.done
        batch = next(batches)
        outcome = self.work.step(batch.to(self.site.device), step)
        ids = self.site.processes.joined(batch.ids)
        entry: Json = {"step": step, "lr": config.rate(step), "ids": zlib.crc32(ids.numpy().tobytes())}
        self.pending.append((step, outcome, entry))
        self.done += 1
        if self.site.processes.first:
            self.work.passed(self.site.out, self.done)
        last = self.done == config.steps
        if self.done % config.log_every == 0 or last:
            self._flush(log, bar)
        if self.done % config.save_every == 0 or last:
            self._flush(log, bar)
            self.save()
        if log is not None and self.done % config.sample_every == 0 and not last:
            self._preview(log)

    def _flush(self, log: Log | None, bar: Bar | None) -> None:
        """Read the pending steps' outcomes off the device, in one wait for all of them."""
        if not self.pending:
            return
        outcomes = [(float(o.loss), float(o.grad_norm), bool(o.applied)) for _, o, _ in self.pending]
        terms = [{name: float(term) for name, term in o.terms.items()} for _, o, _ in self.pending]
        seconds = (perf_counter() - self.began) / len(outcomes)
        rate = self.recipe.loop.batch / seconds
        for (step, _, entry), (loss, norm, applied), told in zip(self.pending, outcomes, terms, strict=True):
            figures = {"loss": loss, "loss_hex": loss.hex(), "grad_norm": norm, "skipped": not applied}
            if log is not None:
                log.step(entry | figures | told | {"seconds": seconds, "samples_per_second": rate})
            if not applied:
                self.site.note(f"Step {step} was skipped: its loss or gradient is not finite.")
        if log is not None and bar is not None:
            log.flush()
            bar.update(self.done, outcomes[-1][0], rate)
        steps = [step for step, _, _ in self.pending]
        self.pending.clear()
        for step, (_, _, applied) in zip(steps, outcomes, strict=True):
            self.skips.see(applied, step)
        self.began = perf_counter()

    def save(self) -> None:
        """Write a checkpoint of this moment, and the averaged weights for `anydit.load`."""
        if self.saved == self.done or not self.site.processes.first:
            return
        info: Json = {
            "step": self.done,
            "lr": self.recipe.loop.rate(self.done - 1),
            "data": self.data,
            "skipped": self.skips.total,
            "processes": self.site.processes.world,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        checkpoint.save(self.site.out / CHECKPOINTS, self.done, self.work.step.state(), info, self.recipe.loop.keep)
        self._export()
        self.saved = self.done

    def _export(self) -> None:
        """Write the averaged weights where `anydit.load` looks for them."""
        for name, tensors in self.work.weights().items():
            save_tensors(self.site.out / name, tensors, self.id)

    def finish(self) -> None:
        """The pictures of a finished run."""
        self.work.finish(self.site.out)
        entries = read(self.site.out / LOG_FILE)
        if entries:
            pictures.loss_curve(entries, self.site.out / LOSS_CURVE)

    def _preview(self, log: Log) -> None:
        """A sheet of samples. One that cannot be drawn or written is no reason to stop training."""
        try:
            image = self.work.sheet(PREVIEWS)
            image.save(self.site.out / SAMPLES / f"step-{self.done:07d}.png")
            log.picture(image, self.done)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            self.site.note(
                f"No sheet of samples at step {self.done} ({type(error).__name__}: {error}); training goes on."
            )

    def _load(self, found: Checkpoint) -> None:
        info = found.info()
        if info["data"] != self.data:
            now, then = (f"{d['samples']} samples, sha256 {d['sha256'][:12]}" for d in (self.data, info["data"]))
            raise ValueError(
                f"data: got {now} from {self.recipe.data}, expected {then}, with which the run in {self.site.out} "
                "began; put the data back, or choose another folder"
            )
        step = self.work.step
        step.load_state({name: found.tensors(name) for name in step.state()}, found.folder)
        self.done = self.saved = int(info["step"])
        if self.site.processes.first:
            self._export()  # a kill may have come between the checkpoint and these
        self.skips.total = int(info["skipped"])
        here = {"processes": self.site.processes.world, "threads": torch.get_num_threads(), "torch": torch.__version__}
        for name, now in here.items():
            if (then := info.get(name, 1)) != now:
                self.site.note(f"The run had {name} {then}, now it is {now}: losses may differ in their last bits.")

    def _compare_rates(self, found: Checkpoint) -> None:
        """Say if the learning rate jumps, because the schedule follows another number of steps than before."""
        config, last = self.recipe.loop, float(found.info()["lr"])
        if last != config.rate(self.done - 1):
            self.site.note(
                f"The learning rate was {last:.3g} at step {self.done - 1}, and goes on with "
                f"{config.rate(self.done):.3g}: its schedule is now over {config.steps} steps."
            )
