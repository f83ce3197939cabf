"""Reconstruct what was measured, with a run as the prior.

anydit reconstruct runs/digits --physics inpainting --known 0.4
anydit reconstruct runs/brain-slices scan.nii.gz --physics mri --acceleration 4 --samples 8 --out recon.nii.gz
anydit reconstruct runs/brain-slices file1000001.h5 --physics mri --acceleration 8 --slices 10 14
anydit reconstruct runs/brain-slices sinogram.npy --measured --physics ct --views 60 --sigma 0.01
anydit reconstruct runs/flow sensors.nc --sigma 0.05 --cond numbers=100 --out flow.nc
"""

import argparse
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import Progress

from anydit.cli import Parser
from anydit.cli._fields import asks_for_help, page, without_help
from anydit.config import check_at_least, config
from anydit.inference.conditions import Given
from anydit.inference.config import PipelineConfig, Sampling, load_config
from anydit.inference.pipeline import load
from anydit.inverse.corrections import AnyCorrection, MomentMatching
from anydit.inverse.measured import MEASURED, trained_on, usual
from anydit.inverse.operators import CT, MRI, AnyOperator, Deblurring, Inpainting, Sensors, SuperResolution
from anydit.inverse.scan import comparison
from anydit.inverse.scan.own import endings
from anydit.model.conditioning import Field, Label, Numbers, Text
from anydit.overrides import overridden
from anydit.recipes import data_of
from anydit.tensors import Batch
from anydit.weights import RUN_FILE, read_config

if TYPE_CHECKING:
    from anydit.inverse.scan.task import Task

PHYSICS: dict[str, AnyOperator] = {
    "mri": MRI(),
    "ct": CT(),
    "inpainting": Inpainting(),
    "super-resolution": SuperResolution(),
    "deblurring": Deblurring(),
    "sensors": Sensors(),
}


@config
class Asked:
    """What measures, how what was measured is taken in, and how samples are drawn."""

    physics: AnyOperator
    how: AnyCorrection = MomentMatching()
    sampling: Sampling = Sampling()


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if not argv or argv[0].startswith("-"):
        print(f"{__doc__}\n{_parser().format_help()}")
        return 0 if asks_for_help(argv) else 2
    known, rest = _parser().parse_known_args(without_help(argv))
    saved = load_config(known.run)
    if known.physics is None and known.scan is not None and endings(saved.view):
        known.physics = "sensors"
    if asks_for_help(argv):
        asked = _asked(saved, known.physics or "mri", rest)
        print(f"{_parser().format_help()}\n{page(asked)}")
        return 0
    if known.physics is None:
        raise ValueError(f"physics: got none, expected --physics with one of: {', '.join(PHYSICS)}")
    _reconstruct(known, _asked(saved, known.physics, rest))
    return 0


def _reconstruct(known: argparse.Namespace, asked: Asked) -> None:
    """Read, solve, print and write."""
    from anydit.inverse.scan.solve import Way, solve
    from anydit.inverse.scan.source import Source, opened
    from anydit.inverse.scan.written import check_out, end_of, write

    pipeline = load(known.run, known.device)
    view, cond = pipeline.config.view, _conditions(pipeline.config, known.cond or [])
    out: Path = known.out or known.run / f"reconstruction{end_of(view, known.scan)}"
    inputs = [path for path in (known.scan, known.mask, known.coil_maps) if path is not None]
    check_out(out, len(pipeline.config.model.size or ()), inputs, view)
    recipe = read_config(known.run / RUN_FILE) if (known.run / RUN_FILE).is_file() else {}
    told = trained_on(recipe, view.bounds, asked.physics)
    source = Source(known.scan, known.measured, known.sigma, known.scale, known.mask, known.coil_maps, known.slices)
    held = None if known.scan else _held_out(known.run, known.n)
    task, origin = opened(pipeline, source, asked.physics, held and held.x)
    task = task if held is None else _told(task, held, pipeline.config, cond)
    way = Way(asked.how, asked.sampling, known.samples, known.seed)
    with _bar() as progress:
        solution = solve(pipeline, task, way, cond, progress)
    console = Console()
    title = f"{known.scan.name if known.scan else 'held-out data'}: {known.physics}, {len(solution.mean)} reconstructed"
    console.print(comparison.table(solution, view.bounds, title))
    for note in filter(None, (comparison.covered(solution), comparison.fit(solution), *task.notes, told)):
        console.print(f"{note[:1].upper()}{note[1:]}.", highlight=False, soft_wrap=True)
    print(f"{solution.calls} calls of the network for each sample, {solution.seconds:.1f} s in all.")
    for path in write(solution, view, origin, comparison.sheet(view, solution), out):
        print(f"Wrote {path}")


def _asked(saved: PipelineConfig, physics: str, rest: Sequence[str]) -> Asked:
    """The physics by its name, and every other flag where its field is."""
    if physics not in PHYSICS:
        raise ValueError(f"physics: got {physics!r}, expected one of: {', '.join(PHYSICS)}")
    operator = PHYSICS[physics]
    own = {f.name for f in fields(operator)}
    drawn = {f.name for f in fields(Sampling)}
    words = list[str]()
    for word in rest:
        name = word.removeprefix("--").partition("=")[0].partition(".")[0].replace("-", "_")
        place = "physics" if name in own else "sampling" if name in drawn else ""
        words.append(f"--{place}.{word[2:]}" if word.startswith("--") and place else word)
    asked = Asked(operator, usual(saved.model.conditions), saved.sampling)
    return overridden(asked, words, "anydit reconstruct", _parser().flags)


def _conditions(saved: PipelineConfig, told: Sequence[str]) -> dict[str, Given]:
    """`NAME=VALUE` by name; the same for all that is reconstructed."""
    known, cond = saved.model.conditions, dict[str, Given]()
    for each in told:
        name, equals, value = each.partition("=")
        if name not in known or not equals or isinstance(known[name], Field):
            names = [n for n, c in known.items() if isinstance(c, Label | Numbers | Text)]
            raise ValueError(f"cond: got {each!r}, expected NAME=VALUE with a name of: {', '.join(names) or 'none'}")
        if not isinstance(known[name], Numbers):
            cond[name] = value
            continue
        try:
            numbers = [float(number) for number in value.split(",")]
        except ValueError:
            raise ValueError(f"cond: got {each!r}, expected numbers after {name}=, with commas between") from None
        cond[name] = numbers[0] if len(numbers) == 1 else torch.tensor([numbers])
    return cond


def _told(task: "Task", held: Batch, saved: PipelineConfig, cond: Collection[str]) -> "Task":
    """Held-out data told of what a model has to be told of and nobody has said: their own conditions."""
    own = [name for name, c in saved.model.conditions.items() if not c.dropout and name not in {*cond, MEASURED}]
    own = [name for name in own if name in held.texts or isinstance(held.cond.get(name), torch.Tensor)]
    each = {name: list(held.texts[name]) if name in held.texts else held.tensor(name) for name in own}
    note = f"each is told of its own {' and '.join(own)}"
    return replace(task, jobs=[replace(job, cond=each) for job in task.jobs], notes=(*task.notes, note if own else ""))


def _held_out(folder: Path, n: int) -> Batch:
    """Some of the run's own samples that it was not trained on."""
    if not (folder / RUN_FILE).is_file():
        raise ValueError(f"scan: got none, and {folder} is no run, which has data of its own; expected a file")
    check_at_least("n", n, 1)
    samples = data_of(folder).open("held_out")
    ids = torch.linspace(0, len(samples) - 1, min(n, len(samples))).round().long()
    return samples.read(ids)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on the terminal, if there is one."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reconstruct", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _parser() -> Parser:
    parser = Parser("anydit reconstruct", usage="%(prog)s RUN [SCAN] --physics NAME [options]", add_help=False)
    add = parser.add_argument
    add("run", type=Path, help="a run's folder, or an exported one")
    add(
        "scan",
        type=Path,
        nargs="?",
        help="NIfTI, DICOM, image, array, .h5 of fastMRI or ISMRMRD, fields, NaN where unknown (held-out data)",
    )
    add("--physics", metavar="NAME", help=f"{', '.join(PHYSICS)} (of files for models of fields: sensors)")
    add("--measured", action="store_true", help="the file holds a measurement; else an image that is to be measured")
    add(
        "--sigma",
        type=float,
        help="the noise's deviation, of 1 from black to white; without these in the data's unit (found, or 0.02)",
    )
    add("--samples", type=int, default=8, help="drawn of each: their mean is the result, their deviation its doubt (8)")
    add("--slices", type=int, nargs="+", metavar="N", help="first and last slice of a volume, or one (all)")
    add("-n", type=int, default=4, help="how many of the held-out data, where no file is given (4)")
    add("--scale", type=float, help="what the file's values are multiplied by to come to the model's")
    add(
        "--mask",
        type=Path,
        metavar="FILE.npy",
        help="not 0 where k-space, or an array, is measured (where it is not 0)",
    )
    add("--coil-maps", type=Path, metavar="FILE.npy", help="complex [n coils h w] (from the middle of k-space)")
    add("--cond", nargs="+", metavar="NAME=VALUE", help="what else is known, as label=3")
    add("--seed", type=int, default=0, help="of the samples (0)")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 (the GPU that is there)")
    add("--out", type=Path, help=".nii.gz, .npy, .nc, .png or a folder (RUN/reconstruction.npy, fields as they came)")
    parser.epilog = (
        "Of the physics, the sampler and --how: anydit reconstruct RUN --physics mri --help lists all flags."
    )
    return parser
