"""`make demo` with three seeds, and what few steps cost.

    python benchmarks/digits.py

Every figure is for samples without guidance, beside its floor: the same figure of held-out digits. The Fréchet distance
is that of the classifier's features, of as many samples as there are held-out digits, against all training digits.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from results import publish, table

from anydit.diffusion.guidance import Guidance
from anydit.diffusion.multistep import DPMSolverPP, UniPC
from anydit.diffusion.samplers import DDPM, Heun
from anydit.evaluate.evaluate import Report, evaluate
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.recipes.digits import digits
from anydit.train.loop import train

FEW = (
    Sampling(sampler=DPMSolverPP(), steps=10),
    Sampling(sampler=UniPC(), steps=10),
    Sampling(sampler=DPMSolverPP(), steps=25),
    Sampling(sampler=Heun(), steps=100),
    Sampling(sampler=DDPM(), steps=250),
)


def demo(seed: int, out: Path) -> tuple[Pipeline, list[object]]:
    """Train the recipe and report, as `make demo` does; a row of the first table."""
    recipe = digits()
    recipe = replace(recipe, train=replace(recipe.train, seed=seed))
    began = time.perf_counter()
    pipeline = train(recipe, out)
    trained = time.perf_counter()
    report = evaluate(pipeline, recipe.data, sampling=replace(recipe.sampling, guidance=Guidance()), seed=seed)
    return pipeline, [seed, trained - began, time.perf_counter() - trained, *_figures(report)]


def _figures(report: Report) -> list[object]:
    accuracy, distance, nearest = (report.figures[n] for n in ("accuracy", "frechet", "nearest"))
    return [accuracy.samples, accuracy.floor, distance.samples, distance.floor, distance.ratio, nearest.ratio]


def main() -> None:
    """Both tables, on one page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--draws", type=int, default=8, help="draws of samples that the second table averages over")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [demo(seed, Path(folder) / str(seed)) for seed in arguments.seeds]
    head = ["seed", "training s", "report s", "accuracy", "real", "Fréchet", "real", "ratio", "nearest ratio"]
    first = table(head, [row for _, row in runs])
    pipeline, data = runs[0][0], digits().data
    held_out = len(data.open("held_out"))
    rows: list[list[object]] = []
    for sampling in FEW:
        report = evaluate(pipeline, data, samples=arguments.draws * held_out, sampling=sampling)
        figure, seconds = report.figures["frechet"], report.seconds["samples"]
        calls = sampling.sampler.calls(sampling.steps)
        rows.append([type(sampling.sampler).__name__, sampling.steps, calls, figure.samples, figure.error or 0.0,
                     report.figures["accuracy"].samples, seconds / arguments.draws])  # fmt: skip
    second = table(["sampler", "steps", "calls", "Fréchet", "standard error", "accuracy", f"s for {held_out}"], rows)
    note = f"Few steps, seed {arguments.seeds[0]}, mean of {arguments.draws} draws of {held_out} samples:"
    publish("digits", "Handwritten digits: the demo", f"{first}\n\n{note}\n\n{second}")


if __name__ == "__main__":
    main()
