"""How fast recipes train on a CPU with all threads, half of them and so on, and compiled; and what training chooses.

    python benchmarks/pace.py [RECIPE ...]

And how fast by each of PyTorch's backends for attention, over the number of tokens; and beside another thread that
waits, with helpers of its own and without.

Each step is one on noise, as training tries it at the start of a run. Compiling is tried on the fastest number of
threads; training tries it only where all steps take ten minutes or more.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from statistics import median
from threading import Event, Thread
from time import perf_counter

import torch
from results import publish, table

from anydit.inference.compile import product_dtype
from anydit.model.dit import DiTConfig
from anydit.recipes import RECIPES, find
from anydit.train.memory import Planned
from anydit.train.pace import Pace, fastest, halves, own_pace
from anydit.train.recipe import Recipe
from anydit.train.trial import by_backends, by_compiling, by_threads, seconds, trial

CPU = torch.device("cpu")
USUAL = (
    "digits", "moving-digits", "moving-digits-text", "moving-digits-next", "spoken-digits", "spoken-digits-text",
    "spoken-digits-wave", "brain", "small-molecules", "weather", "flow", "flow-fine", "flow-forecast",
)  # fmt: skip

BESIDE = "flow-forecast"
"""The recipe whose step is measured beside other threads."""

ROUNDS = 8

BELOW = """\
Milliseconds of a training step. The numbers of threads are measured in turn, and then, in the fastest number, compiled
and not compiled: only what was measured in turn compares, because machines are not equally fast all the time. Tried in
is how long the latter takes, compiling included. Gain: the speed of the fastest beside all threads, not compiled, as
the product of both comparisons: all threads are what PyTorch takes unasked. Minutes: of all steps of the recipe at the
fastest, without samples, checkpoints and reading."""

BELOW_BESIDE = """\
A thread that reads batches ahead, as one does in training, is one without helpers: PyTorch's threads would else be more
than there are cores, and then they go to sleep after each operation."""

TOKENS = (16, 64, 256, 576, 1024)
"""Of a sample, for attention's backends; a batch has 4096."""

BELOW_ATTENTION = """\
Milliseconds of a training step of width 384, 6 heads and depth 2, with 4096 tokens in a batch, taken in turn.
PyTorch's: what is done where nothing was tried, which on a CPU is plain products for short sequences in bfloat16, and
else its kernel."""

OTHERS = {"alone": None, "beside an idle thread": 1, "beside an idle thread with a helper": 2}


def main() -> None:
    """Try the recipes, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of: {', '.join(RECIPES)}")
    counts = halves(torch.get_num_threads())
    rows = [row(name, counts) for name in parser.parse_args().recipes or USUAL]
    head = ["recipe", "tokens in a batch", *[f"{n} threads" if n > 1 else "1 thread" for n in counts], "not compiled",
            "compiled", "tried in s", "fastest", "gain", "steps", "minutes"]  # fmt: skip
    beside = table([BESIDE, "milliseconds of a step"], [[name, 1e3 * each] for name, each in beside_others().items()])
    names = ["tokens", "products in", "PyTorch's", "flash", "math", "chosen"]
    attention = table(names, [by_attention(tokens, bf16) for bf16 in (False, True) for tokens in TOKENS])
    body = "\n\n".join((table(head, rows), BELOW, attention, BELOW_ATTENTION, beside, BELOW_BESIDE))
    publish("pace", "How many threads, and compiled or not", body)


def by_attention(tokens: int, bf16: bool) -> list[object]:
    """The milliseconds of a step by each backend of attention, and which a run would choose."""
    _, step = opened(BESIDE)
    model = DiTConfig(width=384, heads=6, depth=2, patch=(1,), channels=4, size=(tokens,))
    train = replace(step.train, batch=4096 // tokens, bf16=bf16, accumulate=1, routing=None)
    once, batch = trial(replace(step, model=model, train=train), CPU)
    found, _ = by_backends(lambda: once(batch, 0), [None, "flash", "math"], CPU)
    kind = str(product_dtype(CPU, bf16)).removeprefix("torch.")
    return [tokens, kind, *(1e3 * each for each in found.values()), fastest(found) or "PyTorch's"]


def beside_others() -> dict[str, float]:
    """The seconds of a step, the median of rounds taken in turn: alone, and beside an idle thread of either kind."""
    _, step = opened(BESIDE)
    once, batch = trial(step, CPU)
    own, found = torch.get_num_threads(), {name: list[float]() for name in OTHERS}
    for _ in range(ROUNDS):
        for name, helpers in OTHERS.items():
            with idle(helpers):
                torch.set_num_threads(own)
                found[name].append(seconds(lambda: once(batch, 0), CPU))
    return {name: median(each) for name, each in found.items()}


@contextmanager
def idle(threads: int | None) -> Iterator[None]:
    """Within it there is a thread that has worked with so many threads, and waits; None: there is none."""
    ready, done = Event(), Event()

    def work(count: int) -> None:
        torch.set_num_threads(count)
        torch.randn(2**20).add_(1)  # enough for helpers
        ready.set()
        done.wait()

    thread = None if threads is None else Thread(target=work, args=(threads,))
    if thread is not None:
        thread.start()
        ready.wait()
    yield
    done.set()
    if thread is not None:
        thread.join()


def opened(name: str) -> tuple[Recipe, Planned]:
    """A recipe resolved with its data, and its step."""
    recipe = find(name)()
    if not isinstance(recipe, Recipe):
        raise TypeError(f"{name}: got {type(recipe).__name__}, expected a Recipe")
    recipe = recipe.resolved(recipe.data.open("train"), lambda _: None, CPU)
    return recipe, recipe.step


def row(name: str, counts: list[int]) -> list[object]:
    """One recipe's times, and which is fastest."""
    recipe, step = opened(name)
    with own_pace():
        once, batch = trial(step, CPU)
        plain = by_threads(lambda: once(batch, 0), counts)
        best = min(plain, key=lambda count: plain[count])
        torch.set_num_threads(best)
        torch.compiler.reset()  # code of an earlier row may serve
        began = perf_counter()
        beside, compiled = by_compiling(once.model, lambda: once(batch, 0), CPU)
        trying = perf_counter() - began
    pays = Pace(best, beside, compiled).pays
    fastest = f"{best} thread{'s' if best > 1 else ''}{', compiled' if pays else ''}"
    gain = plain[counts[0]] / plain[best] * (beside / compiled if pays else 1)
    times = [1e3 * each for each in (*plain.values(), beside, compiled)]
    steps = recipe.train.steps
    minutes = steps * (compiled if pays else plain[best]) / 60
    tokens = recipe.train.batch * prod(recipe.model.grid)
    return [name, tokens, *times, trying, fastest, gain, steps, minutes]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # what was compiled before is compiled again
        main()
