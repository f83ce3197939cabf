"""How often the truth lies in the intervals that samples of a reconstruction tell.

    python benchmarks/reconstruct_calibration.py [--runs FOLDER] [--again METHOD ...]

The prior and the slices are those of benchmarks/reconstruct.py.
"""

import argparse
from functools import partial

import torch
from modality import trained
from reconstruct import PRIOR, SIGMA, held_out, posed
from results import Kept, options, publish, table
from torch import Tensor

from anydit.inference.pipeline import Pipeline
from anydit.inverse.corrections import DAPS, AnyCorrection, MomentMatching
from anydit.inverse.reconstruct import Reconstruction, reconstruct
from anydit.recipes.slices import brain_slices

COUNT, SAMPLES = 8, 39
"""Held-out slices, and samples of each, which tell intervals up to that of 95 %."""

LEVELS = (0.5, 0.8, 0.95)
"""Intervals whose coverage is counted."""

BRAIN = 10
"""Of a slice's values of 0 to 255, above which there is a body."""

CASES = (("MRI x4", MomentMatching()), ("MRI x4", DAPS()), ("inpainting 70 %", MomentMatching()))

ABOUT = f"""\
How often the truth lies in intervals of so many percent by {SAMPLES} samples, in the brain, of {COUNT} slices that no
training saw. Widened: a slice's interval is as many times as wide as those of the {COUNT - 1} others had to be to hold
their truth so often (`Reconstruction.widening`), so no slice tells of itself. The prior is the recipe `brain-slices`,
trained for {{minutes:.0f}} minutes of one thread beside other work."""

HEAD = ["problem", "method", *(f"{100 * level:g} %{kind}" for kind in ("", ", widened") for level in LEVELS)]


def coverage(pipeline: Pipeline, truth: Tensor, name: str, how: AnyCorrection) -> list[object]:
    """The shares within intervals as they are, and as wide as other slices ask for."""
    measured = posed(pipeline, truth, name).measured
    found = reconstruct(pipeline, measured.y, measured.physics, how=how, samples=SAMPLES, sigma=SIGMA)
    there = truth > BRAIN
    plain = [100 * float(found.coverage(truth, level)[there].mean()) for level in LEVELS]
    return [*plain, *(100 * widened(found, truth, there, level) for level in LEVELS)]


def widened(found: Reconstruction, truth: Tensor, there: Tensor, level: float) -> float:
    """The share within, each slice by intervals that were widened by what the others' truth asked for."""
    inside = list[Tensor]()
    for i in range(len(truth)):
        others = there.clone()
        others[i] = False
        inside.append(found.coverage(truth, level, found.widening(truth, level, others))[i][there[i]])
    return float(torch.cat(inside).mean())


def main() -> None:
    """The page, of rows that were found before and of those that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    known, recipe = parser.parse_args(), brain_slices()
    done = trained(recipe, known.runs / PRIOR)
    truth, kept = held_out(recipe.data, COUNT), Kept.of(known.runs / "reconstruct-calibration.json", known.again)
    rows = [
        kept.row(name, type(how).__name__, partial(coverage, done.pipeline, truth, name, how)) for name, how in CASES
    ]
    about = ABOUT.format(minutes=done.minutes)
    publish("reconstruct_calibration", "How sure reconstructions are", f"{about}\n\n{table(HEAD, rows)}")


if __name__ == "__main__":
    main()
