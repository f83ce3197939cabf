"""Show how good a run's samples are, beside held-out real data.

anydit evaluate runs/digits
anydit evaluate runs/digits --guidance 2 --steps 10 --samples 744 --out runs/digits/report-10-steps
"""

import argparse
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress

import anydit.recipes  # noqa: F401  (makes every kind of data known by name)
from anydit.config import from_json, overridden
from anydit.data import Data
from anydit.evaluate import report as reports
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.pretrained import KINDS, named
from anydit.inference.config import RUN_FILE
from anydit.inference.pipeline import load
from anydit.recipes import find
from anydit.train.recipe import Recipe
from anydit.weights import read_config


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    if not argv or {"-h", "--help"} & set(argv):
        print(f"{__doc__}\n{parser.format_help()}")
        return 0 if argv else 2
    known, rest = parser.parse_known_args(argv)
    data = _data(known.run, known.recipe)
    pipeline = load(known.run, known.device)
    sampling = overridden(pipeline.config.sampling, rest, "anydit evaluate")
    if known.guidance is not None:
        sampling = overridden(sampling, ["--guidance.scale", str(known.guidance)], "anydit evaluate")
    features = named(known.features, pipeline.config.view, pipeline.device)
    with Progress(transient=True) as bar:
        tasks = {}

        def progress(stage: str, done: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=done)

        report = evaluate(
            pipeline,
            data,
            features=features,
            samples=known.samples,
            sampling=sampling,
            seed=known.seed,
            progress=progress,
        )
    title = f"{known.run}: samples against held-out data"
    console = Console()
    console.print(reports.table(report, title))
    for sentence in (reports.summary(report), *report.notes):
        console.print(sentence, highlight=False, soft_wrap=True)
    for path in reports.write(report, known.out or known.run / "report", title, _pictures(known.run)):
        print(f"Wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("anydit evaluate", usage="%(prog)s RUN [options]", add_help=False)
    parser.add_argument("run", type=Path, help="a run's folder, or an exported folder together with --recipe")
    parser.add_argument("--samples", type=int, help="how many in all (as many as held-out ones, at least 2000)")
    parser.add_argument("--guidance", type=float, help="strength of classifier-free guidance; 1 is none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", default="classifier", help=f"what to compare in: {KINDS} (classifier)")
    parser.add_argument("--recipe", help="whose data to compare with (the run's own)")
    parser.add_argument("--out", type=Path, help="folder for report.html and report.json (RUN/report)")
    parser.add_argument("--device")
    return parser


def _data(folder: Path, recipe: str | None) -> Data:
    if recipe is not None:
        return find(recipe)().data
    return from_json(Recipe, read_config(folder / RUN_FILE)).data


def _pictures(folder: Path) -> dict[str, Image.Image]:
    """What training left to look at."""
    files = {name: folder / f"{name}.png" for name in ("denoising", "loss")}
    return {name: Image.open(path).convert("RGB") for name, path in files.items() if path.is_file()}
