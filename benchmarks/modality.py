"""What the table over all modalities has in each row; benchmarks/modalities_NAME.py makes the rows of one modality.

Such a file has a function `rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]`: rows as `Trained.row` makes
them, and Markdown that stands below the table (figures by lead time, ...), or nothing. `runs`: where it keeps its runs;
those that are there already are gone on with, or looked at as they are where they are finished.
The table over all modalities takes them from the pages.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from types import MappingProxyType

import torch
from results import publish, table

from anydit.data.loader import Order, read_ahead
from anydit.inference.compile import emulates_bf16
from anydit.inference.pipeline import Pipeline
from anydit.train.checkpoint import told
from anydit.train.log import LOG_FILE, read
from anydit.train.loop import train
from anydit.train.profile import product_ceiling
from anydit.train.recipe import Recipe
from anydit.train.run import CHECKPOINTS

HEAD = ["modality", "data", "tokens", "parameters", "minutes", "reading", "figure", "samples", "held-out", "trivial",
        "which is"]  # fmt: skip
"""`-` is where there is no such figure. `reading`: how long a batch takes to be read, as a share of a training step.

Batches are read ahead in a thread, so that training waits for data only where that share nears the whole."""

THREADS: set[int] = set()
"""In how many each of the runs that were trained or opened learned."""

BATCHES = 20
"""Batches that are read to time the reader."""


@dataclass(frozen=True)
class Trained:
    """A recipe's pipeline, how long its training took, and the share of a step that reading its batch takes."""

    recipe: Recipe
    pipeline: Pipeline
    minutes: float
    reading: float

    def row(
        self, modality: str, data: str, figure: str, samples: float, held_out: object, trivial: float, which: str
    ) -> list[object]:
        """Of the table over all modalities: a figure of samples, of held-out data, and of what is trivial to make."""
        parameters = sum(p.numel() for p in self.pipeline.model.parameters())
        return [modality, data, prod(self.pipeline.config.model.grid), f"{parameters / 1e6:.1f} M", self.minutes,
                f"{100 * self.reading:.2g} %", figure, samples, held_out, trivial, which]  # fmt: skip


Rows = Callable[[bool, Path], tuple[list[list[object]], str]]


def asked(about: str | None) -> argparse.ArgumentParser:
    """The options that the benchmarks of all modalities have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="the recipes' sizes for a GPU")
    parser.add_argument("--runs", type=Path, default=Path("runs/modalities"), help="keep runs here, go on with them")
    return parser


def page(
    name: str,
    title: str,
    about: str | None,
    rows: Rows,
    parts: Mapping[str, Rows] = MappingProxyType({}),
    gpu: Sequence[str] = (),
) -> None:
    """One modality's rows, on a page of their own.

    `parts`: some of them, by the name that asks for these only; `gpu`: those that have a size for a GPU, too.
    """
    parser = asked(about)
    if parts:
        parser.add_argument("--only", choices=[*parts], help="only these rows")
    given = parser.parse_args()
    only: str | None = getattr(given, "only", None)
    if only is not None:
        if given.gpu and only not in gpu:
            parser.error(f"--gpu: got it with --only {only}, which has no size for a GPU")
        name, title, rows = f"{name}-{only}", f"{title} ({only})", parts[only]
    of_all, below = rows(given.gpu, given.runs)
    body = "\n\n".join(part for part in (table(HEAD, of_all), below, machine(THREADS)) if part)
    publish(page_of(name, given.gpu), title, body)


def minutes(out: Path) -> float:
    """How long all steps of the run in a folder take, each at the median: where it was stopped does not count."""
    entries = list(read(out / LOG_FILE))
    return len(entries) * median(entry["seconds"] for entry in entries) / 60


def machine(threads: set[int]) -> str:
    """A sentence on what the minutes are of, how busy and how fast the machine is; nothing where it has a GPU."""
    if torch.cuda.is_available():
        return ""
    load = os.getloadavg()[2]  # of the last quarter of an hour
    which = "without" if emulates_bf16(torch.device("cpu")) else "with"
    busy = f"{load:.1f} processes were at work on its {os.cpu_count()} cores"
    speed = product_ceiling(torch.device("cpu"), torch.float32) / 1e9
    fast = f"a product of matrices ran at {speed:.0f} GFLOP/s in {_in_words({torch.get_num_threads()})} beside them"
    return (
        f"The minutes are of all steps at the median of them, in {_in_words(threads)} on a machine {which} bfloat16; "
        f"as this was written, {busy}, and {fast}."
    )


def _in_words(threads: set[int]) -> str:
    return "one thread" if threads == {1} else f"{' or '.join(map(str, sorted(threads)))} threads"


def page_of(name: str, gpu: bool) -> str:
    """The name of a page, by where it was made."""
    return f"{name}-gpu" if gpu else name


def trained(recipe: Recipe, out: Path) -> Trained:
    """Train a recipe in a folder, or go on with what is there; minutes are those of its steps."""
    samples = recipe.data.open("train")
    pipeline = train(recipe, out)
    THREADS.add(int(told(out / CHECKPOINTS)["threads"]))
    rates = sorted(entry["samples_per_second"] for entry in read(out / LOG_FILE) if entry["step"] > BATCHES)
    step = recipe.train.batch / rates[len(rates) // 2]
    batches = read_ahead(samples, Order(len(samples), recipe.train.batch, recipe.train.seed), 0)
    next(batches)
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return Trained(recipe, pipeline, minutes(out), (time.perf_counter() - began) / BATCHES / step)
