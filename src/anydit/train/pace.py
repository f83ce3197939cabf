"""How a machine trains a recipe fastest: threads, attention's backend, compiled or not. Tried once, and remembered.

Small networks have too little work for many threads, which kernel is the fastest for attention depends on the processor
and the number of tokens, and compiling takes a while before it saves any: none can be known without trying. Tried is a
training step on noise, at the start of a run that is long enough to gain by it.
"""

import gc
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from anydit.config import Json, config, from_json, to_json, write_json
from anydit.data.base import cache_folder
from anydit.inference.device import cores
from anydit.model.backend import Backend, settle, use, used
from anydit.train.base import Note, Site
from anydit.train.checkpoint import told
from anydit.train.config import TrainConfig
from anydit.train.memory import Planned
from anydit.train.run import CHECKPOINTS
from anydit.train.trial import TIMES, backends_to_try, by_backends, by_compiling, by_threads, once, reason, trial
from anydit.weights import write_atomically

FEW = 500
"""A run of fewer steps is over before anything is worth a trial."""

LONG = 600.0
"""Seconds that a run must take for a trial of compiling, which takes ten or more on a CPU, to be a small part."""

SMALL = 0.02
"""The share of a run that the trial of attention's backends may take."""

SILENT = 5.0
"""Seconds that a trial may take without a word."""

FULL = 1.0
"""Seconds of a step that has enough work for all threads, so that fewer need not be tried."""

GAIN = 0.95
"""The share of the time that a step may take at most, compiled or by another backend, to be computed so."""

BUSY = 0.5
"""The share of processors at work, above which what a trial finds is not kept."""

FOLDER = "pace"
DECIDES = (
    "batch", "accumulate", "bf16", "recompute", "adapter", "routing", "profiles", "threads", "kernels",
    "attention_backend",
)  # fmt: skip
"""What of the config a step's time depends on."""


@config
class Pace:
    """What trials found: the threads of the fastest step, its seconds, and those compiled (None: not tried).

    `attention_backend`: by which it is that fast; None is PyTorch's choice. `attention_tried`: whether others were.
    """

    threads: int
    plain: float
    compiled: float | None = None
    attention_backend: Backend | None = None
    attention_tried: bool = False

    @property
    def pays(self) -> bool:
        """Whether compiled steps are faster, and not by chance."""
        return self.compiled is not None and self.compiled <= GAIN * self.plain


@config
class Way:
    """How steps are computed, by the names that checkpoints tell it by."""

    threads: int
    compile: bool = False
    attention_backend: Backend | None = None


def halves(most: int) -> list[int]:
    """So many, half of them, and so on to one."""
    return [most >> n for n in range(most.bit_length())]


def fastest(seconds: Mapping[Backend | None, float]) -> Backend | None:
    """The backend that is so much faster than PyTorch's choice, which is None, that it is not by chance."""
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] <= GAIN * seconds[None] else None


@contextmanager
def own_pace() -> Iterator[None]:
    """Within it threads and attention's backend may be changed; afterwards they are what they were."""
    threads, backend = torch.get_num_threads(), used()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        use(backend)


def paced(step: Planned, site: Site) -> TrainConfig:
    """How `step` is trained in this place: its config with all filled in that it leaves to trials, which is set, too.

    A run that goes on does so as it began, as far as there are so many threads, so that its losses are the same to the
    last bit. What trials found is kept in the cache's folder `pace`, for other runs, where nothing else was at work.
    Of several processes the first tries, alone, and not threads; those that share a model try nothing.
    """
    train, most = step.train, torch.get_num_threads()
    settle(site.device)
    use(train.attention_backend)
    if train.threads is None and most > (may := cores()):
        site.note(f"Training in {_threads(may)} at most: this place gives no more of its {most} processors.")
        most = may
    torch.set_num_threads(most := train.threads or most)
    way = from_json(Way, site.processes.agreed("pace", lambda: to_json(_left_open(step, site, most))))
    threads, backend = train.threads or min(way.threads, most), train.attention_backend or way.attention_backend
    torch.set_num_threads(threads)
    use(backend)
    compiled = way.compile if train.compile is None else train.compile
    return replace(train, threads=threads, compile=compiled, attention_backend=backend)


def _left_open(step: Planned, site: Site, most: int) -> Way:
    """How steps are computed, for what a recipe leaves open, with at most so many threads."""
    train, processes = step.train, site.processes
    before = told(site.out / CHECKPOINTS)
    if before and before.get("device", site.device.type) == site.device.type:
        known = {name: before[name] for name in ("threads", "compile", "attention_backend") if name in before}
        return from_json(Way, {"threads": most} | known)
    if processes.world > 1:
        step = step.of_one(processes.mesh.parts).trained(threads=most)
    threads_are_open = site.device.type == "cpu" and step.train.threads is None and most > 1
    backends = backends_to_try(step, site.device, processes.free)
    if train.steps < FEW or not (train.compile is None or threads_are_open or len(backends) > 1):
        return Way(most)
    if processes.mesh.splits:
        site.note(
            "Processes that share a model try neither compiling nor attention's backends: --train.compile and "
            "--train.attention_backend say them."
        )
        return Way(most)
    return _Trials(step, site.device, site.note, most, backends).way()


@dataclass(frozen=True)
class _Trials:
    """What is found by trying `step` with at most so many threads, or was before on this machine."""

    step: Planned
    device: torch.device
    note: Note
    most: int
    backends: list[Backend | None]

    def way(self) -> Way:
        """The fastest; compiling is tried where the recipe leaves it open and the run is long."""
        pace = self._pace()
        return Way(pace.threads, pace.pays and self._is_long(pace), pace.attention_backend)

    def _pace(self) -> Pace:
        known, at_work = self._known(), busy()
        if known and known.threads < self.most and self.step.train.threads is None:
            self.note(f"Training in {_threads(known.threads)}, which was found to be fastest before.")
        pace = known or self._plain()
        _free(self.device)
        if not pace.attention_tried:
            pace = self._by_backend(pace)
            _free(self.device)
        if self.step.train.compile is None and pace.compiled is None and self._is_long(pace):
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

    def _by_backend(self, pace: Pace) -> Pace:
        """The same with the fastest backend of attention, where there is a choice and trying is a small part of all."""
        train, takes = self.step.train, TIMES * len(self.backends) * pace.plain / self.step.train.accumulate
        if len(self.backends) < 2 or takes > SMALL * train.steps * pace.plain:
            return pace
        torch.set_num_threads(pace.threads)
        if takes > SILENT:
            self.note(f"Trying which kernel computes attention fastest, which takes about {takes:.0f} s.")
        step, batch = trial(self.step.piece, self.device)
        found, failed = by_backends(lambda: step(batch, 0), self.backends, self.device)
        for name, why in failed.items():
            self.note(f"Attention's backend {name} fails here ({why}) and is not used.")
        best, pace = fastest(found), replace(pace, attention_tried=True)
        if best is None:
            return pace
        self.note(
            f"Attention by PyTorch's backend {best}: a step takes {found[best]:.2g} s, and {found[None]:.2g} s "
            "otherwise (--train.attention_backend says which)."
        )
        return replace(pace, plain=pace.plain * found[best] / found[None], attention_backend=best)

    def _compiled(self, pace: Pace) -> Pace:
        """The same with what compiling gives; as it was, where that fails, because training goes on without."""
        torch.set_num_threads(pace.threads)
        use(pace.attention_backend or self.step.train.attention_backend)
        self.note(
            "Trying whether compiled blocks are faster, for ten seconds or more (--train.compile False: not at all)."
        )
        step, batch = trial(self.step, self.device)
        try:
            plain, compiled = by_compiling(step.model, lambda: step(batch, 0), self.device)
        except Exception as error:  # of whichever compiler
            self.note(f"Blocks are not compiled here ({reason(error)}); with --train.compile False that is not tried.")
            return pace
        pace = replace(pace, compiled=pace.plain * compiled / plain)
        verdict = "compiled" if pace.pays else "not compiled"
        self.note(f"A step takes {compiled:.2g} s compiled, {plain:.2g} s otherwise: blocks are {verdict}.")
        return pace

    def _is_long(self, pace: Pace) -> bool:
        return self.step.train.steps * pace.plain >= LONG

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
