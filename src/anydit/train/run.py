"""A training run under way: its steps, and what is written about them."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

import torch
from torch import Tensor

from anydit.config import Json, to_json
from anydit.data.loader import read_ahead
from anydit.inference.compile import emulates_bf16
from anydit.tensors import Batch
from anydit.train import checkpoint, pictures
from anydit.train.base import Site, Trainable, Work
from anydit.train.checkpoint import Checkpoint
from anydit.train.guards import Interrupted, SkipCounter, Spiked, StopRequest
from anydit.train.log import LOG_FILE, Bar, Log, read, telling
from anydit.train.parallel import Word
from anydit.train.pending import Pending, taken
from anydit.train.saving import Saver, copied
from anydit.weights import RUN_FILE, identify, read_id, save_tensors, sweep, write_config

CHECKPOINTS, SAMPLES, LOSS_CURVE = "checkpoints", "samples", "loss.png"
PREVIEWS = 50
"""Samples on a sheet, about."""

T = TypeVar("T")


@dataclass
class Run(Generic[T]):
    """A run under way: what is being trained, and what is written about it. `data`: what tells its data again.

    `passed`: batches that were passed over because of spikes; `returned`: the step to which the run last went back.
    `word`: of the last step, the ids that each process has read, and the signal that asks it to stop.
    """

    recipe: Trainable[T]
    work: Work[T]
    data: Json
    site: Site
    id: str | None = None
    done: int = 0
    saved: int = -1
    due: bool = False
    passed: int = 0
    returned: int = -1
    began: float = field(default_factory=perf_counter)
    pending: list[Pending] = field(default_factory=list[Pending])
    word: Word | None = None

    def __post_init__(self) -> None:
        config = self.recipe.loop
        self.skips = SkipCounter(config.max_skipped, config.spikes)
        self.saver = Saver(self.site.out / CHECKPOINTS, config.keep, self.site.processes)
        if config.bf16 and emulates_bf16(self.site.device):
            self.site.note("This processor is slow in bfloat16: products are in float32, as with --train.bf16 False.")

    def resume(self) -> None:
        """Take up the newest whole checkpoint, if there is one; write the recipe, if steps are left.

        Raises:
            ValueError: the folder holds checkpoints without a recipe, or none that is whole, or of other data.
        """
        root, frozen = self.site.out / CHECKPOINTS, self.work.frozen()
        if self.site.processes.first:
            checkpoint.sweep(root)
            sweep(self.site.out)
        self.id = self._identity(root, frozen)
        found = checkpoint.newest(root, self.site.note)
        if found is not None:
            self._load(found)
            self._say(found)
        elif any(root.glob("*")):
            raise ValueError(f"out: got {self.site.out}, where no checkpoint is whole; move it away to start anew")
        if self.site.processes.first and self.done < self.recipe.loop.steps:
            self.due = found is None and self.work.first(self.site.out)
            for name, tensors in frozen.items():
                save_tensors(self.site.out / name, tensors, self.id)
            write_config(self.site.out / RUN_FILE, to_json(self.recipe), self.id)
            (self.site.out / SAMPLES).mkdir(exist_ok=True)

    def _identity(self, root: Path, frozen: Mapping[str, Mapping[str, Tensor]]) -> str | None:
        """The id that the run began with, if there were ids then, although steps and intervals may have changed."""
        if (self.site.out / RUN_FILE).is_file():
            return read_id(self.site.out / RUN_FILE)
        if any(root.glob("*")):
            got = f"{self.site.out}, which has checkpoints but no {RUN_FILE}"
            raise ValueError(f"out: got {got}; expected a run or a free folder")
        return identify(to_json(self.recipe) | self.work.origin, *frozen.values())

    def _say(self, found: Checkpoint) -> None:
        """From where the run goes on, or that it is over."""
        steps, out, note = self.recipe.loop.steps, self.site.out, self.site.note
        if self.done >= steps:
            note(f"Nothing is left to do: the run in {out} is at step {self.done}, and train.steps is {steps}.")
            return
        note(f"Going on from step {self.done} of {steps} in {out}.")
        if jump := self.recipe.loop.jump(self.done, float(found.info()["lr"])):
            note(jump)

    def agree(self) -> None:
        """What all processes do together before the first step.

        Raises:
            ValueError: they do not see the same folder.
        """
        processes = self.site.processes
        if (most := processes.most(self.done)) != self.done:
            raise ValueError(
                f"out: got {self.site.out} with a checkpoint of step {self.done}, and another process sees one of step "
                f"{most}; expected a folder that all of them share"
            )
        if self.done:
            self._publish()  # a kill may have come between the checkpoint and these
        if processes.most(self.due):
            self.save()

    def go(self, stop: StopRequest) -> None:
        """Take the steps that are left, if any are."""
        config = self.recipe.loop
        if self.done >= config.steps:
            return
        out = self.site.out if self.site.processes.first else None
        with telling(out, config.steps, self.done, config.tensorboard) as (log, bar), closing(self.saver):
            while self.done < config.steps:
                try:
                    self._on(stop, log, bar)
                except Spiked as spiked:
                    self._go_back(spiked)
            self.saver.wait()
        self.site.note(f"Trained: {self.site.out}.")

    def _on(self, stop: StopRequest, log: Log | None, bar: Bar | None) -> None:
        """Step after step to the last."""
        config = self.recipe.loop
        first, pinned = self.done + self.passed, self.site.device.type == "cuda"
        batches = read_ahead(self.work.samples, self.work.order, first, config.workers, pinned=pinned)
        self.began = perf_counter()
        while self.done < config.steps:
            before = self.word
            self._one(batches, stop, log, bar)
            self.saver.check()
            if signal := self._asked(stop, before):
                self._flush(log, bar)
                self.save()
                self.saver.wait()
                raise Interrupted(signal, self.done)

    def _asked(self, stop: StopRequest, before: Word | None) -> int:
        """The signal that asks to stop, or 0; of several processes as they said a step ago, but for the last step."""
        if self.site.processes.world == 1:
            return stop.signal or 0
        word = self.word if self.done == self.recipe.loop.steps else before
        return int(word.heard()[:, -1].max()) if word else 0

    def _go_back(self, spiked: Spiked) -> None:
        """Take up the newest checkpoint from before a row of spikes, and go on with the batch after them.

        Raises:
            Spiked: there is none, or the run has gone back to it before.
        """
        root = self.site.out / CHECKPOINTS
        with self.site.processes.first_before_others():
            self.saver.wait()  # the first's thread puts a checkpoint into its place, whoever has written its parts
            found = checkpoint.newest(root, self.site.note, spiked.first)
        if found is None or found.step <= self.returned:
            raise spiked
        batch, skipped = spiked.last + 1 + self.passed, self.skips.total
        self._load(found)
        self._publish()
        if self.site.processes.first:
            checkpoint.forget(root, found.step)
            self.work.undone(self.site.out, found.step)
        self.returned, self.passed, self.skips.total = found.step, batch - found.step, skipped
        self.site.note(
            f"Going back to step {found.step}, because the steps {spiked.first} to {spiked.last} were skipped; their "
            "batches, and those that led to them, are passed over."
        )

    def _one(self, batches: Iterator[Batch], stop: StopRequest, log: Log | None, bar: Bar | None) -> None:
        """One step, and whatever is due after it."""
        config, step = self.recipe.loop, self.done
        batch = next(batches)
        outcome = self.work.step(batch.to(self.site.device), step)
        self.word = self.site.processes.said(torch.cat([batch.ids, torch.tensor([stop.signal or 0])]))
        self.pending.append(Pending(step, outcome, config.rate(step), self.word))
        self.done += 1
        if self.site.processes.first:
            self.work.passed(self.site.out, self.done)
        last = self.done == config.steps
        if self.done % config.log_every == 0 or last:
            self._flush(log, bar)
        if self.done % config.save_every == 0 or last:
            self._flush(log, bar)
            self.save()
        if self.done % config.sample_every == 0 and not last:
            self.work.step.gather()
            if log is not None:
                self._preview(log)
            self.site.processes.meet()

    def _flush(self, log: Log | None, bar: Bar | None) -> None:
        """Read the pending steps' outcomes off the device, in one wait for all of them."""
        if not self.pending:
            return
        steps, self.pending = taken(self.pending, self.site.processes.mesh.per_part), []
        seconds = (perf_counter() - self.began) / len(steps)
        rate = self.recipe.loop.batch / seconds
        for each in steps:
            if log is not None:
                log.step(each.told | {"seconds": seconds, "samples_per_second": rate})
            if not each.applied:
                self.site.note(f"Step {each.step} was skipped: its {each.why}.")
        if log is not None and bar is not None:
            log.flush()
            bar.update(self.done, steps[-1].loss, rate)
        for each in steps:
            self.skips.see(each.step, applied=each.applied, finite=each.finite)
        self.began = perf_counter()

    def save(self) -> None:
        """Begin to write a checkpoint of this moment, and then the averaged weights for `anydit.load`."""
        if self.saved == self.done:
            return
        step = self.work.step
        step.gather()
        info: Json = {
            "step": self.done,
            "lr": self.recipe.loop.rate(self.done - 1),
            "data": self.data,
            "skipped": self.skips.total,
            "skipped_in_a_row": self.skips.in_a_row,
            "passed": self.passed,
            **self._told,
        }
        whole = self.work.weights() if self.site.processes.first else {}
        after = partial(self._export, {name: copied(tensors) for name, tensors in whole.items()})
        self.saver.save(self.done, step.state(), info, step.share, after)
        self.saved = self.done

    def _publish(self) -> None:
        """Write the averaged weights as they are now; all processes must ask."""
        self.work.step.gather()
        if self.site.processes.first:
            self._export(self.work.weights())

    def _export(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write the averaged weights where `anydit.load` looks for them."""
        for name, tensors in weights.items():
            save_tensors(self.site.out / name, tensors, self.id)

    def finish(self) -> None:
        """The pictures of a finished run."""
        try:
            with self.work.step.shown():
                self.work.finish(self.site.out)
        except torch.OutOfMemoryError as error:
            self.site.note(f"No pictures of the finished run ({error}); its weights are in {self.site.out}.")
        pictures.loss_curve(read(self.site.out / LOG_FILE), self.site.out / LOSS_CURVE)

    def _preview(self, log: Log) -> None:
        """A sheet of samples. One that cannot be drawn or written is no reason to stop training."""
        try:
            with self.work.step.shown():
                image = self.work.sheet(PREVIEWS)
            image.save(self.site.out / SAMPLES / f"step-{self.done:07d}.png")
            log.picture(image, self.done)
        except MemoryError:
            raise
        except Exception as e:
            self.site.note(f"No sheet of samples at step {self.done} ({type(e).__name__}: {e}); training goes on.")

    @property
    def _told(self) -> Json:
        return self.site.told | self.work.told

    def _load(self, found: Checkpoint) -> None:
        info = found.info()
        if info["data"] != self.data:
            now, then = (f"{d['samples']} samples, sha256 {d['sha256'][:12]}" for d in (self.data, info["data"]))
            raise ValueError(
                f"data: got {now} from {self.recipe.data}, expected {then}, with which the run in {self.site.out} "
                "began; put the data back, or choose another folder"
            )
        step = self.work.step
        groups = (name for name in step.state() if found.has(name))
        step.load_state({name: found.tensors(name, step.share.pieces) for name in groups}, found.folder)
        self.done = self.saved = int(info["step"])
        self.skips.total, self.skips.in_a_row = int(info["skipped"]), int(info.get("skipped_in_a_row", 0))
        self.passed = int(info.get("passed", 0))
        for name, now in self._told.items():
            if (then := info.get(name, now)) != now:
                self.site.note(f"The run had {name} {then}, now it is {now}: losses may differ in their last bits.")
