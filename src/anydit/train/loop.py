"""One training run in one folder: start it, or go on where its newest whole checkpoint left off."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch

from anydit.config import Json, to_json
from anydit.data import Samples
from anydit.data.base import digest
from anydit.data.loader import Order, read_ahead
from anydit.inference.adapter import ADAPTER_WEIGHTS
from anydit.inference.compile import compile_blocks, emulates_bf16
from anydit.inference.config import RUN_FILE
from anydit.inference.folder import save_weights
from anydit.inference.pipeline import Pipeline, find_device, load
from anydit.model.dit import DiT
from anydit.tensors import Batch
from anydit.train import checkpoint, pictures
from anydit.train.checkpoint import Checkpoint
from anydit.train.fit import KEPT
from anydit.train.guards import Interrupted, SkipCounter, StopRequest, locked, make_writable
from anydit.train.log import Bar, Log, progress_bar, read
from anydit.train.lora import adapt, share, trained
from anydit.train.recipe import Recipe, refuse_differences, refuse_unbuildable, resolved
from anydit.train.start import (
    INIT_FILE,
    Start,
    beginning,
    refuse_another,
    report,
    settled,
    take_over,
    write_start,
)
from anydit.train.step import Outcome, TrainStep
from anydit.weights import identify, read_config, read_id, write_config

CHECKPOINTS, LOG_FILE, SAMPLES, LOSS_CURVE, STRIP, FINAL, TRAJECTORY = (
    "checkpoints", "log.jsonl", "samples", "loss.png", "denoising.png", "samples.png", "denoising.gif",
)  # fmt: skip
PREVIEWS = 50
"""Samples on a sheet, about."""

Note = Callable[[str], None]


def train(
    recipe: Recipe,
    out: Path | str,
    device: torch.device | str | None = None,
    note: Note = print,
    start: Start | None = None,
) -> Pipeline:
    """Train `recipe` in the folder `out`, or go on with what is there; returns the pipeline of the averaged weights.

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
    refuse_unbuildable(recipe)
    make_writable(out)
    with locked(out):
        start, origin = beginning(recipe, out, start)
        samples = recipe.data.open("train")
        recipe = resolved(recipe, samples, note)
        recipe = recipe if origin is None else settled(recipe, origin)
        run = Run(recipe, out, samples, device, note, start)
        run.resume()
        with StopRequest().listening() as stop:  # before and after, nothing is lost, and Ctrl-C acts at once
            run.go(stop)
        run.finish()
        return run.pipeline


@dataclass
class Run:
    """A run under way: its state, and what is written about it."""

    recipe: Recipe
    out: Path
    samples: Samples
    device: torch.device
    note: Note
    start: Start | None = None
    id: str | None = None
    done: int = 0
    saved: int = -1
    began: float = field(default_factory=perf_counter)
    pending: list[tuple[int, Outcome, Json]] = field(default_factory=list[tuple[int, Outcome, Json]])

    def __post_init__(self) -> None:
        config = self.recipe.train
        codec = self.recipe.codec.build().to(self.device)
        model = DiT(self.recipe.model, config.seed)
        self.fitted = [] if self.start is None else take_over(self.start, model)
        if config.adapter is not None:
            adapt(model, config.adapter, {row.name for row in self.fitted if row.how != KEPT}, config.seed)
            self.note(share(model))
        model.to(self.device)
        self.order = Order(len(self.samples), config.batch, config.seed)
        self.step = TrainStep(model, codec, self.recipe.objective, config, self.order.positions)
        self.pipeline = Pipeline(self.recipe, self.step.ema.module, codec)
        self.skips = SkipCounter(config.max_skipped)
        self.data: Json = {"samples": len(self.samples), "sha256": digest(self.samples)}
        if config.compile:
            compile_blocks(model)
        if config.bf16 and emulates_bf16(self.device):
            self.note("This processor has no instructions for bfloat16: --train.bf16 False is faster here.")

    def resume(self) -> None:
        """Take up the newest whole checkpoint, if the folder is of this same recipe; else begin and write the recipe.

        Raises:
            ValueError: the folder is of another recipe, or holds checkpoints without one.
        """
        root = self.out / CHECKPOINTS
        checkpoint.sweep(root)
        if (self.out / RUN_FILE).is_file():
            # The id that it began with, if there were ids then, although steps and intervals may have changed.
            self.id = read_id(self.out / RUN_FILE)
            refuse_another(self.out, self.start)
            refuse_differences(read_config(self.out / RUN_FILE), self.recipe, self.out)
        elif root.is_dir() and any(root.iterdir()):
            raise ValueError(
                f"out: got {self.out}, which has checkpoints but no {RUN_FILE}; expected a run or a free folder"
            )
        else:
            began = {} if self.start is None else {"init": self.start.origin.sha256}
            self.id = identify(to_json(self.recipe) | began, self.step.codec.state_dict())
        found = checkpoint.newest(root, self.note)
        if found is not None:
            self._load(found)
            if self.done >= self.recipe.train.steps:
                self.note(
                    f"Nothing is left to do: the run in {self.out} is at step {self.done}, and train.steps is "
                    f"{self.recipe.train.steps}."
                )
                return
            self.note(f"Going on from step {self.done} of {self.recipe.train.steps} in {self.out}.")
            self._compare_rates(found)
        elif root.is_dir() and any(root.iterdir()):
            raise ValueError(f"out: got {self.out}, where no checkpoint is whole; move it away to start anew")
        elif self.start is not None:
            self.note(report(self.start.origin, self.fitted, self.recipe))
            write_start(self.out, self.start, self.fitted, self.recipe.train.adapter)
        elif (self.out / INIT_FILE).is_file():
            raise ValueError(f"init: got none, expected it again: {self.out} was stopped before its first checkpoint")
        write_config(self.out / RUN_FILE, to_json(self.recipe), self.id)
        (self.out / SAMPLES).mkdir(exist_ok=True)
        if self.start is not None and found is None:
            self.save()  # from here on the run needs nobody else's weights

    def go(self, stop: StopRequest) -> None:
        """Take the steps that are left, if any are."""
        config = self.recipe.train
        if self.done >= config.steps:
            return
        log = Log(self.out / LOG_FILE, self.out / "tensorboard" if config.tensorboard else None)
        batches = read_ahead(self.samples, self.order, self.done, config.workers)
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
        config, step = self.recipe.train, self.done
        batch = next(batches)
        outcome = self.step(batch.to(self.device), step)
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
        seconds = (perf_counter() - self.began) / len(outcomes)
        rate = self.recipe.train.batch / seconds
        for (step, _, entry), (loss, norm, applied) in zip(self.pending, outcomes, strict=True):
            figures = {"loss": loss, "loss_hex": loss.hex(), "grad_norm": norm, "skipped": not applied}
            log.step(entry | figures | {"seconds": seconds, "samples_per_second": rate})
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
            "lr": self.recipe.train.rate(self.done - 1),
            "data": self.data,
            "skipped": self.skips.total,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        checkpoint.save(self.out / CHECKPOINTS, self.done, self.step.state(), info, self.recipe.train.keep)
        self._export()
        self.saved = self.done

    def _export(self) -> None:
        """Write the averaged weights where `anydit.load` looks for them."""
        average, codec = self.step.ema.module, self.step.codec.state_dict()
        if self.recipe.train.adapter is None:
            save_weights(self.out, average.state_dict(), codec, self.id)
        else:
            save_weights(self.out, trained(self.step.model, average), codec, self.id, ADAPTER_WEIGHTS)

    def finish(self) -> None:
        """The pictures of a finished run."""
        pictures.sheet(self.pipeline, self.samples, 2 * PREVIEWS).save(self.out / FINAL)
        cond, _ = pictures.examples(self.samples, self.recipe.model.conditions, 10)
        frames = pictures.trajectory(self.pipeline, cond, 10, shown=10)
        pictures.strip(self.pipeline, frames).save(self.out / STRIP)
        self.recipe.view.animation(frames, self.out / TRAJECTORY)
        entries = read(self.out / LOG_FILE)
        if entries:
            pictures.loss_curve(entries, self.out / LOSS_CURVE)
        if self.recipe.train.adapter is not None:
            self.pipeline = load(self.out, self.device)  # merged, a plain network again

    def _preview(self, log: Log) -> None:
        """A sheet of samples. One that cannot be drawn or written is no reason to stop training."""
        try:
            image = pictures.sheet(self.pipeline, self.samples, PREVIEWS)
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
        self.step.load_state({name: found.tensors(name) for name in self.step.state()}, found.folder)
        self.done = self.saved = int(info["step"])
        self._export()  # a kill may have come between the checkpoint and these
        self.skips.total = int(info["skipped"])
        for name, now in (("threads", torch.get_num_threads()), ("torch", torch.__version__)):
            if info[name] != now:
                self.note(f"The run had {name} {info[name]}, now it is {now}: losses may differ in their last bits.")

    def _compare_rates(self, found: Checkpoint) -> None:
        """Say if the learning rate jumps, because the schedule follows another number of steps than before."""
        config, last = self.recipe.train, float(found.info()["lr"])
        if last != config.rate(self.done - 1):
            self.note(
                f"The learning rate was {last:.3g} at step {self.done - 1}, and goes on with "
                f"{config.rate(self.done):.3g}: its schedule is now over {config.steps} steps."
            )
