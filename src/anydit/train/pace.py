"""How a machine trains a recipe fastest: with how many threads, and compiled or not. Tried once, and remembered.

Small networks have too little work for many threads, and compiling takes a while before it saves any: neither can be
known without trying. Tried is a training step on noise, at the start of a run that is long enough to gain by it.
"""

import gc
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from anydit.config import Json, config, from_json, to_json, write_json
from anydit.data.base import cache_folder
from anydit.inference.compile import compile_blocks
from anydit.inference.device import cores
from anydit.model.dit import DiT
from anydit.train.base import Note, Site
from anydit.train.checkpoint import told
from anydit.train.config import TrainConfig
from anydit.train.memory import Planned
from anydit.train.run import CHECKPOINTS
from anydit.train.trial import in_turn, once, trial
from anydit.weights import write_atomically

FEW = 500
"""A run of fewer steps is over before anything is worth a trial."""

LONG = 1200.0
"""Seconds that a run must take for a trial of compiling, which takes half a minute on a CPU, to be a small part."""

FULL = 1.0
"""Seconds of a step that has enough work for all threads, so that fewer need not be tried."""

GAIN = 0.95
"""The share of the time that a step may take at most, compiled, to be compiled."""

BUSY = 0.5
"""The share of processors at work, above which what a trial finds is not kept."""

FOLDER = "pace"
DECIDES = ("batch", "accumulate", "bf16", "recompute", "adapter", "routing", "profiles", "threads", "kernels")
"""What of the config a step's time depends on."""


@config
class Pace:
    """What trials found: the threads of the fastest step, its seconds, and those compiled (None: not tried)."""

    threads: int
    plain: float
    compiled: float | None = None

    @property
    def pays(self) -> bool:
        """Whether compiled steps are faster, and not by chance."""
        return self.compiled is not None and self.compiled <= GAIN * self.plain


def halves(most: int) -> list[int]:
    """So many, half of them, and so on to one."""
    return [most >> n for n in range(most.bit_length())]


def by_threads(work: Callable[[], object], counts: Sequence[int]) -> dict[int, float]:
    """The seconds of `work` on a CPU, by the number of threads."""

    def counted(count: int) -> Callable[[], object]:
        def run() -> None:
            torch.set_num_threads(count)
            work()

        return run

    return in_turn({count: counted(count) for count in counts}, torch.device("cpu"))


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


@contextmanager
def own_threads() -> Iterator[None]:
    """Within it the number of threads may be changed; afterwards it is what it was."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def paced(step: Planned, site: Site) -> TrainConfig:
    """How `step` is trained in this place: its config with `threads` and `compile` filled in, and so many threads set.

    A run that goes on does so as it began, as far as there are so many threads, so that its losses are the same to the
    last bit. What trials found is kept in the cache's folder `pace`, for other runs, where nothing else was at work.
    Several processes try nothing.
    """
    train = step.train
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    threads, compiled = _left_open(step, site)
    threads = train.threads or threads
    torch.set_num_threads(threads)
    return replace(train, threads=threads, compile=compiled if train.compile is None else train.compile)


def _left_open(step: Planned, site: Site) -> tuple[int, bool]:
    """The threads, and whether blocks are compiled, for a recipe that leaves these open."""
    train, most = step.train, torch.get_num_threads()
    if train.threads is None and most > (may := cores()):
        site.note(f"Training in {_threads(may)} at most: this place gives no more of its {most} processors.")
        torch.set_num_threads(most := may)
    threads_are_open = site.device.type == "cpu" and train.threads is None and most > 1
    if site.processes.world > 1 and train.compile is None and train.steps >= FEW:
        site.note("Several processes do not try whether compiling pays; --train.compile True does it.")
    if site.processes.world > 1 or train.steps < FEW or not (train.compile is None or threads_are_open):
        return most, False
    if before := told(site.out / CHECKPOINTS):
        return min(int(before.get("threads", most)), most), bool(before.get("compile", False))
    pace = _Trials(step, site.device, site.note, most).pace()
    return pace.threads, pace.pays and _is_long(train, pace)


def _is_long(train: TrainConfig, pace: Pace) -> bool:
    return train.steps * pace.plain >= LONG


@dataclass(frozen=True)
class _Trials:
    """What is found by trying `step` with at most so many threads, or was before on this machine."""

    step: Planned
    device: torch.device
    note: Note
    most: int

    def pace(self) -> Pace:
        """The fastest way; compiling is tried where the recipe leaves it open and the run is long."""
        known, at_work = self._known(), busy()
        if known and known.threads < self.most and self.step.train.threads is None:
            self.note(f"Training in {_threads(known.threads)}, which was found to be fastest before.")
        pace = known or self._plain()
        _free(self.device)
        if self.step.train.compile is None and pace.compiled is None and _is_long(self.step.train, pace):
            pace = self._compiled(pace)
            _free(self.device)
        if pace != known and not at_work:
            self._keep(pace)
        return pace

    def _plain(self) -> Pace:
        """Not compiled, with all threads, half of them, a quarter, and so on."""
        most, free = self.most, self.device.type == "cpu" and self.step.train.threads is None
        step, batch = trial(self.step, self.device)
        first = once(lambda: step(batch, 0), self.device)
        if first > FULL or not free:
            return Pace(most, min(first, once(lambda: step(batch, 0), self.device)))
        found = by_threads(lambda: step(batch, 0), halves(most))
        best = min(found, key=lambda count: found[count])
        if best != most:
            self.note(
                f"Training in {_threads(best)}: a step takes {found[best]:.2g} s, and {found[most]:.2g} s in "
                f"{_threads(most)} (--train.threads {most} asks for them)."
            )
        return Pace(best, found[best])

    def _compiled(self, pace: Pace) -> Pace:
        """The same with what compiling gives; as it was, where that fails, because training goes on without."""
        torch.set_num_threads(pace.threads)
        self.note(
            "Trying whether compiled blocks are faster, which takes half a minute (--train.compile False: not at all)."
        )
        step, batch = trial(self.step, self.device)
        try:
            plain, compiled = by_compiling(step.model, lambda: step(batch, 0), self.device)
        except Exception as error:  # of whichever compiler
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.note(f"Blocks are not compiled here ({reason}); with --train.compile False that is not tried.")
            return pace
        pace = replace(pace, compiled=pace.plain * compiled / plain)
        verdict = "compiled" if pace.pays else "not compiled"
        self.note(f"A step takes {compiled:.2g} s compiled, {plain:.2g} s otherwise: blocks are {verdict}.")
        return pace

    @property
    def _file(self) -> Path:
        """Of this machine, this PyTorch, and all that a step's time depends on."""
        train: Json = to_json(self.step.train)
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        of = [
            [gpu, platform.node(), platform.machine(), os.cpu_count(), self.most, torch.__version__],
            [to_json(self.step.model), [train[name] for name in DECIDES], type(self.step.train.optimizer).__name__],
        ]
        return cache_folder() / FOLDER / f"{hashlib.sha256(json.dumps(of).encode()).hexdigest()}.json"

    def _known(self) -> Pace | None:
        with suppress(OSError, ValueError):  # none, or a damaged one
            return from_json(Pace, json.loads(self._file.read_text(encoding="utf-8")))
        return None

    def _keep(self, pace: Pace) -> None:
        with suppress(OSError):  # a cache that cannot be written costs a trial each time
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, lambda path: write_json(path, to_json(pace)))


def busy() -> bool:
    """Whether others have kept this machine so busy for a minute that what a trial finds is true only while they do."""
    return os.getloadavg()[0] > BUSY * cores()


def _free(device: torch.device) -> None:
    """Give back what a trial took: a step is in cycles of references, which Python clears when it likes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"
