"""What a training step costs as work grows: tokens, width, batch, beside the law of each; and many GPUs, on paper.

python benchmarks/cost.py [--tokens 256 1024 4096 16384 65536]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from time import perf_counter

import torch
from PIL import Image
from results import PAGES, publish, table

from anydit.codecs import Normalize
from anydit.data import Digits
from anydit.diffusion.predictions import V
from anydit.inference.device import find_device
from anydit.model.dit import DiT, DiTConfig
from anydit.model.flops import cost
from anydit.model.presets import preset
from anydit.train.memory import needed, stand_in
from anydit.train.profile import product_ceiling
from anydit.train.recipe import Recipe, TrainConfig
from anydit.train.step import TrainStep

HEAD = ["", "GFLOPs a step", "attention's share", "ms", "by the law", "of the fastest product", "memory MiB"]

GPUS = (1, 8, 64, 1024)
IN_A_MACHINE, PARALLEL_LINKS = 8, 50e9
"""GPUs in a machine, and bytes a second that each sends to others: a network card of 400 Gbit/s for each."""

INSIDE = 450e9
"""Bytes a second between the GPUs of a machine (NVLink 4, one way)."""

LONG = 20.0
"""Seconds of a step that needs no other before it: what is done once in it does not count beside the rest."""


@dataclass(frozen=True)
class Case:
    """One training step: so many tokens of so wide a network, in such a batch."""

    tokens: int = 256
    width: int = 128
    batch: int = 4
    depth: int = 2

    def recipe(self) -> Recipe:
        edge = 2 * isqrt(self.tokens)
        model = DiTConfig(self.width, self.depth, max(1, self.width // 64), (2, 2), channels=4, size=(edge, edge))
        return Recipe(model=model, prediction=V(), data=Digits(), train=TrainConfig(batch=self.batch))


@dataclass(frozen=True)
class Found:
    """What it took."""

    flops: float
    share: float
    seconds: float
    bytes: int


def measured(case: Case, device: torch.device) -> Found:
    """The faster of two steps after one; of the longest only one is taken."""
    recipe = case.recipe()
    model = DiT(recipe.model).to(device)
    codec = Normalize((0.0,), (1.0,)).build()
    step = TrainStep(model, codec, recipe.objective, recipe.train, torch.arange(case.batch))
    data, times = stand_in(recipe.step, case.batch, device), list[float]()
    while len(times) < 3 and max(times, default=0.0) < LONG:
        began = perf_counter()
        float(step(data, len(times)).loss)
        times.append(perf_counter() - began)
    of_one = cost(recipe.model, text_tokens=recipe.step.text_tokens)
    peak = needed(recipe.step, device)
    return Found(of_one.training * case.batch, of_one.attention / of_one.forward, min(times[1:] or times), peak)


def grown(name: str, cases: dict[int, Case], ceiling: float, device: torch.device) -> tuple[str, list[Found]]:
    """The table of one way in which work grows. The law: time grows as counted operations do, from the first row."""
    found = [measured(case, device) for case in cases.values()]
    first = found[0].seconds / found[0].flops
    rows = [[f"{n:,} {name}", f.flops / 1e9, f"{f.share:.0%}", 1000 * f.seconds, 1000 * first * f.flops,
             f.flops / f.seconds / ceiling, f.bytes / 2**20] for n, f in zip(cases, found, strict=True)]  # fmt: skip
    return table(HEAD, rows), found


def plot(ways: dict[str, tuple[Sequence[int], list[Found]]], file: Path) -> str:
    """Time and memory over each, with the law."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(4 * len(ways), 6), layout="constrained")
    axes = figure.subplots(2, len(ways), squeeze=False)
    for column, (name, (numbers, found)) in enumerate(ways.items()):
        first = found[0].seconds / found[0].flops
        above, below = axes[0][column], axes[1][column]
        above.loglog(numbers, [f.seconds for f in found], "o-", label="measured")
        above.loglog(numbers, [first * f.flops for f in found], "--", label="as its operations")
        above.set(ylabel="seconds of a step")
        above.legend()
        below.loglog(numbers, [f.bytes / 2**20 for f in found], "s-", color="C2")
        below.set(xlabel=name, ylabel="MiB at the peak")
        for one in (above, below):
            one.grid(visible=True, which="both", linewidth=0.3)
            one.set_xticks(numbers, [f"{n:,}" for n in numbers], fontsize=8)
            one.xaxis.set_minor_locator(NullLocator())
    figure.savefig(file, dpi=100)
    Image.open(file).verify()
    return f"![time and memory as work grows]({file.name})"


def on_paper(step_seconds: float, batch: int) -> str:
    """Weak scaling of DiT-XL/2: each GPU's batch stays; the exchange is hidden behind the backward pass, or not."""
    gradient = 4 * cost(preset("XL", 2, channels=4, size=(32, 32))).parameters
    rows = list[list[object]]()
    for n in GPUS:
        inside = min(n, IN_A_MACHINE)
        # Reduce-scatter and all-gather within a machine; between machines each GPU exchanges its piece by a ring.
        machines = n // inside
        within = 2 * (inside - 1) / inside * gradient / INSIDE
        between = 2 * (machines - 1) / machines * gradient / inside / PARALLEL_LINKS
        exchange, backward = within + between, step_seconds * 0.6
        for hidden in (True, False):
            seconds = step_seconds + (max(0.0, exchange - backward) if hidden else exchange)
            rows.append([f"{n:,}", "hidden" if hidden else "after it", 1000 * exchange, 1000 * seconds,
                         f"{step_seconds / seconds:.1%}", f"{n * batch / seconds:,.0f}"])  # fmt: skip
    head = ["GPUs", "exchange", "ms of it", "ms a step", "of one GPU's efficiency", "images a second"]
    return (
        f"On paper: DiT-XL/2, {batch} images on each GPU, {1000 * step_seconds:g} ms a step on one (given, not "
        f"measured here), {gradient / 2**30:.2f} GiB of gradients in float32, whole copies. Within machines of "
        f"{IN_A_MACHINE} GPUs {INSIDE / 1e9:g} GB/s, between them {PARALLEL_LINKS / 1e9:g} GB/s a GPU, both at their "
        "whole rate; no time for latency, slow members or reading data, nor for what processes say of each step, which "
        "is exchanged while the next one is computed. Hidden is what fits into the backward pass, three fifths of a "
        "step. What was measured between processes of one machine: [parallel](parallel.md).\n\n" + table(head, rows)
    )


def main() -> None:
    """The page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device")
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096, 16384, 65536])
    parser.add_argument("--step-ms", type=float, default=235.0, help="of DiT-XL/2 on one GPU, for the part on paper")
    parser.add_argument("--step-batch", type=int, default=128, help="images in that step")
    given = parser.parse_args()
    device = find_device(given.device)
    ceiling = product_ceiling(device, torch.float32)
    cases = {
        "tokens": {n: Case(tokens=n, batch=1) for n in given.tokens},
        "width": {n: Case(width=n) for n in (64, 128, 256, 512)},
        "samples": {n: Case(batch=n) for n in (1, 4, 16, 64)},
    }
    parts, ways = list[str](), dict[str, tuple[Sequence[int], list[Found]]]()
    for name, some in cases.items():
        text, found = grown(name, some, ceiling, device)
        parts.append(text)
        ways[name] = list(some), found
    about = (
        "Two blocks, in float32; unless said otherwise 256 tokens, width 128, 4 samples (1 for tokens). By the law a "
        "step takes as its operations say, from the first row on, in which small products do not fill the processor. "
        f"Fastest product: {ceiling / 1e9:.0f} GFLOP/s."
    )
    gpu = "-gpu" if device.type == "cuda" else ""
    picture = plot(ways, PAGES / f"cost{gpu}.png")
    paper = on_paper(given.step_ms / 1000, given.step_batch)
    publish(f"cost{gpu}", "What a step costs as work grows", "\n\n".join([about, *parts, picture, paper]))


if __name__ == "__main__":
    main()
