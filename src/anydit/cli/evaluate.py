"""Show how good a run's samples are, beside held-out real data.

anydit evaluate runs/digits
anydit evaluate runs/digits --guidance 2 --steps 10 --samples 744 --out runs/digits/guided
"""

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress, TaskID

from anydit.config import from_json, overridden
from anydit.data import Data
from anydit.evaluate import report as reports
from anydit.evaluate.evaluate import Report, evaluate
from anydit.evaluate.features import Features
from anydit.evaluate.pretrained import KINDS, named
from anydit.inference.config import EXPORT_FILE, RUN_FILE, Sampling
from anydit.inference.pipeline import Pipeline, load
from anydit.recipes import find
from anydit.train.recipe import Recipe
from anydit.weights import read_config


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    if not argv or {"-h", "--help"} & set(argv):
        print(f"{__doc__}\n{parser.format_help()}\n{_SAMPLING_HELP}")
        return 0 if argv else 2
    known, rest = parser.parse_known_args(argv)
    pipeline, data = load(known.run, known.device), _data(known.run, known.recipe)
    sampling = overridden(pipeline.config.sampling, rest, "anydit evaluate", _SAMPLING_HELP)
    if known.steps is not None:
        sampling = replace(sampling, steps=known.steps)
    if known.guidance is not None:
        sampling = replace(sampling, guidance=replace(sampling.guidance, scale=known.guidance))
    features = named(known.features, pipeline.config.view, pipeline.device)
    report = _evaluated(pipeline, data, features, known.samples, sampling, known.seed)
    title, console = f"{known.run}: samples against held-out data", Console()
    console.print(reports.table(report, title))
    for sentence in (reports.summary(report), *report.notes):
        console.print(sentence, highlight=False, soft_wrap=True)
    for path in reports.write(report, known.out or known.run / "report", title, _pictures(known.run)):
        print(f"Wrote {path}")
    return 0


_SAMPLING_HELP = """\
The rest of the saved sampling can be said anew too: --sampler Heun, --sampler DDIM --sampler.eta 1,
--grid Karras, --guidance.interval 0.1 0.9 (anydit sample RUN --help lists it).
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anydit evaluate", usage="%(prog)s RUN [options]", add_help=False, allow_abbrev=False
    )
    parser.add_argument("run", type=Path, help="a run's folder, or an exported folder together with --recipe")
    parser.add_argument("--samples", type=int, metavar="N", help="how many in all (as the held-out, but 2000 or more)")
    parser.add_argument("--steps", type=int, metavar="N", help="of the sampler")
    parser.add_argument("--guidance", type=float, metavar="SCALE", help="of classifier-free guidance; 1 is none")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the samples (0)")
    parser.add_argument("--features", default="classifier", metavar="KIND", help=f"one of {KINDS} (classifier)")
    parser.add_argument("--recipe", metavar="NAME", help="whose data to compare with (the run's own)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for report.html and report.json (RUN/report)")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (the GPU that is there)")
    return parser


def _evaluated(
    pipeline: Pipeline, data: Data, features: Features | None, samples: int | None, sampling: Sampling, seed: int
) -> Report:
    """The report, made behind a progress bar on the terminal, if there is one."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = dict[str, TaskID]()

        def progress(stage: str, done: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=done)

        return evaluate(
            pipeline, data, features=features, samples=samples, sampling=sampling, seed=seed, progress=progress
        )


def _data(folder: Path, recipe: str | None) -> Data:
    """The data of the run, or of the recipe that is named."""
    if recipe is not None:
        return find(recipe)().data
    if not (folder / RUN_FILE).is_file() and (folder / EXPORT_FILE).is_file():
        raise ValueError(
            f"recipe: got none, and {folder} is an exported folder, which does not know its data; "
            "expected --recipe NAME (anydit recipes lists them)"
        )
    content = read_config(folder / RUN_FILE)
    try:
        return from_json(Recipe, content).data
    except ValueError as error:
        raise ValueError(f"{error}; where its data is a class of your own, say --recipe FILE.py:FUNCTION") from None


def _pictures(folder: Path) -> dict[str, Image.Image]:
    """What training left to look at."""
    files = {name: folder / f"{name}.png" for name in ("denoising", "loss")}
    return {name: Image.open(path).convert("RGB") for name, path in files.items() if path.is_file()}
