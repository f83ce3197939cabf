"""Show how good a run's samples are, beside held-out real data.

anydit evaluate runs/digits
anydit evaluate runs/digits --guidance 2 --steps 10 --samples 744 --out runs/digits/guided
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress, TaskID

from anydit.cli import Parser
from anydit.codecs import load as load_codec
from anydit.config import TYPE, from_json
from anydit.data import Data
from anydit.evaluate import report as reports
from anydit.evaluate.evaluate import Report, evaluate, evaluate_codec
from anydit.evaluate.pretrained import KINDS, named
from anydit.inference.device import find_device
from anydit.inference.pipeline import load
from anydit.overrides import overridden
from anydit.recipes import data_of, find
from anydit.train.codec import CodecRecipe
from anydit.weights import EXPORT_FILE, RUN_FILE, read_config


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    if not argv or {"-h", "--help"} & set(argv):
        print(f"{__doc__}\n{parser.format_help()}\n{_SAMPLING_HELP}")
        return 0 if argv else 2
    known, rest = parser.parse_known_args(argv)
    codec = _codec_recipe(known.run)
    report, pictures = _of_pipeline(known, rest) if codec is None else (_of_codec(known, rest, codec), {})
    title, console = f"{known.run}: {report.subject} against held-out data", Console()
    console.print(reports.table(report, title))
    for sentence in (reports.summary(report), *report.notes):
        console.print(sentence, highlight=False, soft_wrap=True)
    for path in reports.write(report, known.out or known.run / "report", title, pictures):
        print(f"Wrote {path}")
    return 0


def _of_pipeline(known: argparse.Namespace, rest: list[str]) -> tuple[Report, dict[str, Image.Image]]:
    """The report on a model's samples, and what training left to look at."""
    pipeline, data = load(known.run, known.device), _data(known.run, known.recipe)
    sampling = overridden(pipeline.config.sampling, rest, "anydit evaluate", _parser().flags)
    if known.steps is not None:
        sampling = replace(sampling, steps=known.steps)
    if known.guidance is not None:
        sampling = replace(sampling, guidance=replace(sampling.guidance, scale=known.guidance))
    features = named(known.features, pipeline.config.view, pipeline.device)
    with _bar() as progress:
        report = evaluate(
            pipeline,
            data,
            features=features,
            samples=known.samples,
            sampling=sampling,
            seed=known.seed,
            progress=progress,
        )
    return report, _pictures(known.run)


def _of_codec(known: argparse.Namespace, rest: list[str], recipe: CodecRecipe) -> Report:
    """The report on a codec's reconstructions."""
    given = [*rest, *(f"--{name}" for name in ("steps", "guidance", "recipe") if getattr(known, name) is not None)]
    if given:
        raise ValueError(f"{given[0]}: {known.run} holds a codec, whose reconstructions it does not change")
    device = find_device(known.device)
    codec = load_codec(known.run).to(device)
    features = named(known.features, recipe.view, device)
    with _bar() as progress:
        return evaluate_codec(
            codec, recipe.view, recipe.data, device, features=features, samples=known.samples, progress=progress
        )


def _codec_recipe(folder: Path) -> CodecRecipe | None:
    """The recipe of a codec's run; None where the folder holds something else."""
    content = read_config(folder / RUN_FILE) if (folder / RUN_FILE).is_file() else {}
    return from_json(CodecRecipe, content) if content.get(TYPE) == CodecRecipe.__name__ else None


_SAMPLING_HELP = """\
The rest of the saved sampling can be said anew too: --sampler Heun, --sampler DDIM --sampler.eta 1,
--grid Karras, --guidance.interval 0.1 0.9 (anydit sample RUN --help lists it).
"""


def _parser() -> Parser:
    parser = Parser("anydit evaluate", usage="%(prog)s RUN [options]", add_help=False)
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


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on the terminal, if there is one; told the stage, and which part of it is done."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = dict[str, TaskID]()

        def progress(stage: str, done: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=done)

        yield progress


def _data(folder: Path, recipe: str | None) -> Data:
    """The data of the run, or of the recipe that is named."""
    if recipe is not None:
        return find(recipe)().data
    if not (folder / RUN_FILE).is_file() and (folder / EXPORT_FILE).is_file():
        raise ValueError(
            f"recipe: got none, and {folder} is an exported folder, which does not know its data; "
            "expected --recipe NAME (anydit recipes lists them)"
        )
    return data_of(folder)


def _pictures(folder: Path) -> dict[str, Image.Image]:
    """What training left to look at."""
    files = {name: folder / f"{name}.png" for name in ("denoising", "loss")}
    return {name: Image.open(path).convert("RGB") for name, path in files.items() if path.is_file()}
