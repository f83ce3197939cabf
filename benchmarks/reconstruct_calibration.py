"""How often the truth lies in the intervals that samples of a reconstruction tell.

    python benchmarks/reconstruct_calibration.py [--runs FOLDER] [--only PROBLEM ...] [--again METHOD ...]

The prior and the slices are those of benchmarks/reconstruct.py.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import cast

import results
import torch
from matplotlib.figure import Figure
from modality import trained
from reconstruct import PRIOR, PROBLEMS, SIGMA, held_out, posed
from results import Kept, options, publish, table
from torch import Tensor

from anydit.evaluate.pictures import rendered
from anydit.inference.pipeline import Pipeline
from anydit.inverse.corrections import DAPS, AnyCorrection, MomentMatching
from anydit.inverse.reconstruct import Reconstruction, reconstruct
from anydit.recipes.slices import brain_slices

COUNT, SAMPLES = 8, 39
"""Held-out slices, and samples of each, which tell intervals up to that of 95 %."""

LEVELS = (0.5, 0.8, 0.95)
"""Intervals whose coverage is in the table."""

CURVE = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Intervals whose coverage is drawn, in which those of the table are."""

BRAIN = 10
"""Of a slice's values of 0 to 255, above which there is a body."""

COSTLY = ("MRI x4", "MRI x8", "MRI x4, 4 coils", "CT, 30 views", "inpainting 70 %", "super-resolution x4")
"""Problems on which moment matching is tried, which takes several times as long as DAPS."""

CASES: tuple[tuple[str, AnyCorrection], ...] = (
    *((name, MomentMatching()) for name in COSTLY), *((name, DAPS()) for name in PROBLEMS)
)  # fmt: skip

ABOUT = f"""\
How often the truth lies in intervals of so many percent by {SAMPLES} samples, in the brain, of {COUNT} slices that no
training saw. Widened: a slice's interval is as many times as wide as those of the {COUNT - 1} others had to be to hold
their truth so often (`Reconstruction.widening`), so no slice tells of itself. The prior is the recipe `brain-slices`,
trained for {{minutes:.0f}} minutes of one thread beside other work."""

PICTURE = "What was said (across) and how often it was so (up); below the diagonal a model is too sure."

HEAD = ["problem", "method", *(f"{100 * level:g} %{kind}" for kind in ("", ", widened") for level in LEVELS)]


def coverage(pipeline: Pipeline, truth: Tensor, name: str, how: AnyCorrection) -> list[object]:
    """The percentages within intervals of the curve as they are, and as wide as other slices ask for."""
    measured = posed(pipeline, truth, name, PROBLEMS[name]).measured
    found = reconstruct(pipeline, measured.y, measured.physics, how=how, samples=SAMPLES, sigma=SIGMA)
    there = truth > BRAIN
    plain = [100 * float(found.coverage(truth, level)[there].mean()) for level in CURVE]
    wider = [100 * widened(found, truth, there, level) for level in CURVE]
    shown = " ".join(f"{plain[i]:.1f} {wider[i]:.1f}" for i in map(CURVE.index, LEVELS))
    print(name, type(how).__name__, shown, sep=" | ", flush=True)
    return [plain, wider]


def widened(found: Reconstruction, truth: Tensor, there: Tensor, level: float) -> float:
    """The share within, each slice by intervals that were widened by what the others' truth asked for."""
    inside = list[Tensor]()
    for i in range(len(truth)):
        others = there.clone()
        others[i] = False
        inside.append(found.coverage(truth, level, found.widening(truth, level, others))[i][there[i]])
    return float(torch.cat(inside).mean())


def shown(row: Sequence[object]) -> list[object]:
    """A row of the table, of one with the curves."""
    name, how, *curves = row
    return [name, how, *(curve[CURVE.index(level)] for curve in cast("list[list[float]]", curves) for level in LEVELS)]


def picture(rows: Sequence[Sequence[object]]) -> str:
    """The curves, as they are and widened, beside the page."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    colours = {name: f"C{i}" for i, name in enumerate(PROBLEMS)}
    panels = figure.subplots(1, 2, sharey=True)
    percent = [100 * level for level in CURVE]
    for axes, which, title in zip(panels, (2, 3), ("as samples tell", "widened by other slices"), strict=True):
        axes.plot([0, 100], [0, 100], color="black", linewidth=0.5)
        for row in rows:
            look = "-" if row[1] == MomentMatching.__name__ else "--"
            axes.plot(percent, row[which], look, color=colours[str(row[0])], label=f"{row[0]}, {row[1]}")
        axes.set(title=title, xlabel="interval, %", xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axes.grid(visible=True, linewidth=0.3)
    panels[0].set_ylabel("truth within it, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return results.picture("reconstruct_calibration", rendered(figure), "calibration curves")


def main() -> None:
    """The page, of rows that were found before and of those that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--only", nargs="+", choices=[*PROBLEMS], default=[*PROBLEMS], metavar="PROBLEM")
    known, recipe = parser.parse_args(), brain_slices()
    done = trained(recipe, known.runs / PRIOR)
    truth, kept = held_out(recipe.data, COUNT), Kept.of(known.runs / "reconstruct-curves.json", known.again)
    rows = [
        kept.row(name, type(how).__name__, partial(coverage, done.pipeline, truth, name, how))
        for name, how in CASES
        if name in known.only
    ]
    parts = ABOUT.format(minutes=done.minutes), table(HEAD, [shown(row) for row in rows]), PICTURE, picture(rows)
    publish("reconstruct_calibration", "How sure reconstructions are", "\n\n".join(parts))


if __name__ == "__main__":
    main()
