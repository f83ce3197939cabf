"""Slices of a volume, each reconstructed for itself: how much neighbours differ, beside how much they should.

    python benchmarks/reconstruct_volume.py [--runs FOLDER] [--again METHOD ...]

The prior is that of benchmarks/reconstruct.py.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial

import torch
from modality import trained
from reconstruct import PRIOR, PROBLEMS, SIGMA
from results import Kept, options, publish, table
from torch import Tensor

from anydit.data import Slices
from anydit.inference.pipeline import Pipeline
from anydit.inverse.corrections import DAPS, AnyCorrection, MomentMatching
from anydit.inverse.scan.solve import Way, solve
from anydit.inverse.scan.task import Job, Task, of_samples
from anydit.recipes.slices import brain_slices

COUNT, SAMPLES = 6, 4
"""Slices that follow each other in a held-out band, and samples of each."""

CASES = tuple((name, how) for name in ("MRI x4", "super-resolution x4") for how in (MomentMatching(), DAPS()))

HEAD = ["problem", "method", "jump, mean", "jump, truth", "jump, off", "error", "seconds"]

ABOUT = f"""\
{COUNT} slices, 1 mm from each other, in a band that no training saw, are reconstructed one by one, each from noise of
its own or all from the same, as `anydit reconstruct` does with slices of a volume. Jump: by how much neighbours differ,
of the mean of {SAMPLES} samples and of the truth, and by how much these two do. Error: that of the mean. All are root
mean squares in hundredths of white; seconds are of a slice."""


@dataclass(frozen=True)
class Volume:
    """True slices in a row, and the model that reconstructs them."""

    pipeline: Pipeline
    truth: Tensor

    def figures(self, name: str, how: AnyCorrection, same: bool) -> list[object]:
        """Of slices that are drawn from the same noise, or each from its own."""
        measured = of_samples(self.pipeline, self.truth, PROBLEMS[name], SIGMA, None)
        (job,) = measured.jobs
        apart = [Job(y, job.physics, x) for y, x in zip(job.y.split(1), self.truth.split(1), strict=True)]
        task = Task(apart, SIGMA, slices=same)
        began = time.perf_counter()
        mean = solve(self.pipeline, task, Way(how, self.pipeline.config.sampling, SAMPLES), {}, lambda *_: None).mean
        seconds = (time.perf_counter() - began) / len(self.truth)
        off = mean - self.truth
        found = jump(mean), jump(self.truth), jump(off), off.square().mean().sqrt()
        cells: list[object] = [*(100 / 255 * float(each) for each in found), seconds]
        print(name, type(how).__name__, same, *(f"{cell:.4g}" for cell in cells), sep=" | ", flush=True)
        return cells


def jump(x: Tensor) -> Tensor:
    """How much slices differ from those before."""
    return x.diff(dim=0).square().mean().sqrt()


def in_a_row(data: Slices) -> Tensor:
    """Slices of the middle of a held-out band, one after the other."""
    samples = data.open("held_out")
    indices = [place[2] for place in samples.places]  # pyright: ignore[reportAttributeAccessIssue]
    middle = len(indices) // 2
    first = next(
        i for i in range(middle, len(indices)) if indices[i : i + COUNT] == [*range(indices[i], indices[i] + COUNT)]
    )
    return samples.read(torch.arange(first, first + COUNT)).x


def main() -> None:
    """The page, of rows that were found before and of those that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    known, recipe = parser.parse_args(), brain_slices()
    assert isinstance(recipe.data, Slices)
    volume = Volume(trained(recipe, known.runs / PRIOR).pipeline, in_a_row(recipe.data))
    kept, rows = Kept.of(known.runs / "reconstruct-volume.json", known.again), list[list[object]]()
    for name, how in CASES:
        for same, kind in ((False, "each slice its own noise"), (True, "the same noise")):
            method = f"{type(how).__name__}, {kind}"
            rows.append(kept.row(name, method, partial(volume.figures, name, how, same)))
    publish("reconstruct_volume", "Slices of a volume", f"{ABOUT}\n\n{table(HEAD, rows)}")


if __name__ == "__main__":
    main()
