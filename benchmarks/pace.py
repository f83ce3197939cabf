"""How fast recipes train on a CPU with all threads, half of them and so on, and compiled; and what training chooses.

    python benchmarks/pace.py [RECIPE ...]

Each step is one on noise, as training tries it at the start of a run. Compiling is tried on the fastest number of
threads; training tries it only where all steps take five minutes or more.
"""

import argparse
import os
import tempfile
from math import prod
from time import perf_counter

import torch
from results import publish, table

from anydit.inference.compile import compile_blocks
from anydit.recipes import RECIPES, find
from anydit.train.memory import Step
from anydit.train.pace import GAIN, own_threads
from anydit.train.recipe import Recipe
from anydit.train.trial import seconds, trial

CPU = torch.device("cpu")
USUAL = ("digits", "fashion", "moving-digits", "spoken-digits", "brain", "small-molecules", "weather", "flow-forecast")

BELOW = """\
Milliseconds of a training step. First step: what compiling adds to it. Gain: the speed of the fastest beside that with
all threads, not compiled, which is what PyTorch does unasked."""


def main() -> None:
    """Try the recipes, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of: {', '.join(RECIPES)}")
    most = torch.get_num_threads()
    counts = [most >> n for n in range(most.bit_length())]
    rows = [row(name, counts) for name in parser.parse_args().recipes or USUAL]
    head = ["recipe", "tokens in a batch", *[f"{n} threads" if n > 1 else "1 thread" for n in counts], "compiled",
            "first step s", "fastest", "gain"]  # fmt: skip
    publish("pace", "How many threads, and compiled or not", f"{table(head, rows)}\n\n{BELOW}")


def row(name: str, counts: list[int]) -> list[object]:
    """One recipe, resolved with its data."""
    recipe = find(name)()
    if not isinstance(recipe, Recipe):
        raise TypeError(f"{name}: got {type(recipe).__name__}, expected a Recipe")
    recipe = recipe.resolved(recipe.data.open("train"), lambda _: None, CPU)
    step = Step(recipe.model, recipe.objective, recipe.train)
    with own_threads():
        plain = dict[int, float]()
        work, batch = trial(step, CPU)
        for count in counts:
            torch.set_num_threads(count)
            plain[count] = seconds(lambda: work(batch, 0), CPU)
        best = min(plain, key=lambda count: plain[count])
        torch.set_num_threads(best)
        compile_blocks(work.model)
        began = perf_counter()
        work(batch, 0)
        first = perf_counter() - began
        compiled = seconds(lambda: work(batch, 0), CPU)
    pays = compiled <= GAIN * plain[best]
    fastest = f"{best} thread{'s' if best > 1 else ''}{', compiled' if pays else ''}"
    tokens = recipe.train.batch * prod(recipe.model.grid)
    return [name, tokens, *[1e3 * each for each in plain.values()], 1e3 * compiled, first, fastest,
            plain[counts[0]] / (compiled if pays else plain[best])]  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # what was compiled before is compiled again
        main()
