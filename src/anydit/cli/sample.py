"""Draw samples from a run or an exported folder.

anydit sample runs/digits --label 3 -n 16
anydit sample runs/digits --label 0 1 2 3 -n 4 --guidance 2 --out four.png --out four.gif --out four/
anydit sample runs/digits --sampler Heun --steps 50
anydit sample runs/pairs --text "a seven to the left of a two" --out seven.png
anydit sample runs/moving-digits-next --known clip.mp4 --length 5s --out next/
anydit sample runs/flow-forecast --past past.nc --numbers 150 --states 20 --out ahead/
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from rich.progress import Progress
from torch import Tensor

from anydit.cli import Parser
from anydit.cli._fields import asks_for_help, page, without_help
from anydit.data import Images, View
from anydit.data.known import KNOWN
from anydit.data.reading import NPY
from anydit.diffusion.samplers import Step
from anydit.inference.conditions import Given, prepared
from anydit.inference.config import PipelineConfig, Sampling, load_config
from anydit.inference.device import find_device
from anydit.inference.drawing import Asked, Drawn, completed, drawn
from anydit.inference.files import FromFiles
from anydit.inference.lengths import LENGTH
from anydit.inference.pipeline import Pipeline, load
from anydit.inference.replay import replay
from anydit.model.conditioning import Condition, Field, Label, Numbers, Text
from anydit.overrides import overridden

FRAMES = 24
"""Pictures in a GIF of the way from noise to data."""

SHEET, FILM = (".png", ".jpg", ".jpeg", ".webp"), ".gif"
"""What a file for all samples together, and one for their way from noise to data, may be named."""

OWN = ("n", "seed", "guidance", "size", "length", "states", "device", "replay", "out", "help")
TAKEN = frozenset({*OWN, *(f.name for f in fields(Sampling))})
"""Names of this command's own options, which stay these options where a condition has such a name too."""


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if not argv or argv[0].startswith("-"):
        print(f"{__doc__}\n{_parser({}, Images()).format_help()}\n{_SAMPLING_HELP}")
        return 0 if asks_for_help(argv) else 2
    if asks_for_help(argv):
        config = load_config(Path(argv[0]))
        parser = _parser(config.model.conditions, config.view)
        _, rest = parser.parse_known_args(without_help(argv[1:]))
        print(f"{parser.format_help()}\n{page(overridden(config.sampling, rest, 'anydit sample'))}")
        return 0
    pipeline = load(argv[0])
    parser = _parser(pipeline.config.model.conditions, pipeline.config.view)
    known, rest = parser.parse_known_args(argv[1:])
    outs: list[Path] = known.out or [Path(argv[0]) / "samples" / f"seed-{known.seed}.png"]
    for out in outs:
        _check_out(out)
    sampling = overridden(pipeline.config.sampling, rest, f"anydit sample {argv[0]}", parser.flags)
    sampling = _sampling(pipeline.config, known, sampling)
    if known.device is not None:
        pipeline.to(find_device(known.device))
    if known.replay:
        replay(pipeline)
    for written in draw(pipeline, _asked(pipeline, known, sampling), outs):
        print(f"Wrote {written}")
    return 0


def _sampling(config: PipelineConfig, known: argparse.Namespace, sampling: Sampling) -> Sampling:
    """With the guidance and the negative texts that are given."""
    if known.guidance is not None:
        sampling = overridden(sampling, ["--guidance.scale", str(known.guidance)], "anydit sample")
    negative = {name: getattr(known, f"negative.{name}", None) for name in config.model.conditions}
    negative = {name: text for name, text in negative.items() if text is not None}
    if negative and not sampling.guidance.acts:
        raise ValueError(f"negative-{next(iter(negative))}: got a text without guidance, expected --guidance above 1")
    return replace(sampling, guidance=replace(sampling.guidance, negative=negative)) if negative else sampling


def _asked(pipeline: Pipeline, known: argparse.Namespace, sampling: Sampling) -> Asked:
    """What to draw; files are read."""
    config = pipeline.config
    given = {name: getattr(known, f"cond.{name}", None) for name in config.model.conditions}
    some = {name: value for name, value in given.items() if value is not None}
    size = tuple(known.size or config.data_size)
    files = tuple(
        FromFiles(pipeline, name, tuple(map(Path, some.pop(name))), size)
        for name, condition in config.model.conditions.items()
        if isinstance(condition, Field) and name in some
    )
    texts = _texts_in_files(known, config.model.conditions)
    cond: dict[str, Given] = {name: _rows(config.model.conditions[name], value) for name, value in some.items()}
    cond |= texts
    counts = [len(next(iter(texts.values())))] if texts else [len(each.loaded) for each in files]
    n: int = max(counts, default=16) if known.n is None else known.n
    asked = Asked(n, cond, files, sampling, known.seed, tuple(known.size) if known.size else None, states=known.states)
    places = [config.view.places(each) for each in known.length or ()]
    if not places or config.lengths is not None:
        return replace(asked, cond=cond | {LENGTH: places}) if places else asked
    if len(places) > 1:
        raise ValueError(f"length: got {len(places)}, expected one for all that go on from what is known")
    return replace(asked, length=places[0])


def _rows(condition: Condition, values: list[Any]) -> list[Any]:
    """Values as they are; of several numbers that belong together those of each sample."""
    count = len(condition.names or ()) if isinstance(condition, Numbers) else 1
    if count < 2 or len(values) % count:
        return values
    return [values[i : i + count] for i in range(0, len(values), count)]


def _texts_in_files(known: argparse.Namespace, conditions: dict[str, Condition]) -> dict[str, list[str]]:
    """The texts in files, by the condition's name."""
    files = {name: file for name in conditions if (file := getattr(known, f"file.{name}", None)) is not None}
    for name, file in files.items():
        if getattr(known, f"cond.{name}") is not None:
            raise ValueError(f"{name}-file: got {file} beside --{name}, expected one of them")
    return {name: _lines(name, file) for name, file in files.items()}


def _lines(name: str, file: Path) -> list[str]:
    """The texts in a file, one on each line that is not blank."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}-file: got {file}, which cannot be read as text ({error})") from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"{name}-file: got {file} without a text, expected one on each line")
    return texts


_PARTS = (
    "; how a sample begins, or all of it with NaN or empty cells where nothing is known; of a longer file the last "
    "places, as many as in training"
)

_SAMPLING_HELP = """\
Everything of the saved sampling can be said anew: --steps 50, --sampler Heun, --sampler DDIM --sampler.eta 1,
--grid Karras, --guidance.interval 0.1 0.9. `anydit sample RUN --help` lists it, with the conditions of that model.
"""


def _parser(conditions: dict[str, Condition], view: View) -> Parser:
    parser = Parser("anydit sample RUN", usage="%(prog)s [options]", add_help=False)
    parser.add_argument("-n", type=int, help="how many samples (16, or one of each text or file)")
    parser.add_argument("--seed", type=int, default=0, help="sample i depends on seed, i and condition only (0)")
    parser.add_argument("--guidance", type=float, help="strength of classifier-free guidance; 1 is none")
    parser.add_argument("--size", type=int, nargs="+", help="another size than trained on, one number for each axis")
    parser.add_argument(
        "--length",
        nargs="+",
        help="where it varies, how much of a sample exists; beside --known, how far it goes on: places, or as 0.5s, 3h",
    )
    parser.add_argument(
        "--states", type=int, help="beside --past, how many states follow, each drawn from those before"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (the GPU that is there)")
    parser.add_argument("--replay", action="store_true", help="on a GPU, as a CUDA graph: faster for few samples")
    parser.add_argument(
        "--out",
        type=Path,
        action="append",
        help="FILE.png: a sheet; FILE.gif: the way there; FOLDER: one file each (RUN/samples/seed-SEED.png)",
    )
    conditioned = parser.add_argument_group(
        "conditions", "one value for all samples or one for each; --cond.NAME, or --NAME where that is no other option"
    )
    for name, condition in conditions.items():
        flags = [f"--cond.{name}"] if name in TAKEN else [f"--{name}", f"--cond.{name}"]
        add = partial(conditioned.add_argument, *flags, dest=f"cond.{name}", metavar=name.upper(), nargs="+")
        if isinstance(condition, Label):
            add(help=f"class, by index below {condition.classes} or by name")
        elif isinstance(condition, Numbers):
            add(type=float, help=", ".join(condition.names or ()))
        elif isinstance(condition, Field):
            kinds = ", ".join(dict.fromkeys((*(view.suffixes if view.reader(name) else ()), NPY)))
            add(metavar="FILE", help=f"one for all or one for each: {kinds}{_PARTS if name == KNOWN else ''}")
        elif isinstance(condition, Text):
            add(help='a text in quotes, or one for each sample; "" is the empty text')
            other = conditioned.add_argument
            other(f"--{name}-file", dest=f"file.{name}", type=Path, metavar="FILE", help="texts, one on each line")
            other(f"--negative-{name}", dest=f"negative.{name}", metavar="TEXT", help="what to guide away from")
    return parser


def draw(pipeline: Pipeline, asked: Asked, outs: Sequence[Path]) -> list[Path]:
    """Sample with a progress bar and write every output; returns what was written."""
    frames = list[Tensor]()
    films = [out for out in outs if _is_film(out)]
    if films and (asked.length or asked.states):
        raise ValueError(
            f"out: got {films[0]}, which would show the way there, expected a folder or a sheet: there are several"
        )
    steps = (asked.sampling or pipeline.config.sampling).steps
    every, known = max(1, -(-steps // FRAMES)), asked.told(KNOWN)
    _say(asked)
    with Progress(transient=True) as progress:
        task = progress.add_task("sample", total=None)

        def on_step(step: Step) -> None:
            progress.update(task, total=step.steps, completed=step.index + 1)
            if films and (step.steps - 1 - step.index) % every == 0:
                frames.append(pipeline.decode(step.xt))

        result = drawn(pipeline, replace(asked, batch=max(asked.n, 1) if films else None), on_step)
    frames = [frame.where(~result.x.isnan(), result.x) for frame in frames]
    if known is not None and known.partial:
        frames = [completed(frame, known) for frame in frames]
    return [path for out in outs for path in _write(pipeline.config, result, asked.cond, frames, out)]


def _say(asked: Asked) -> None:
    """What becomes of files that are not as long as a sample."""
    known = asked.told(KNOWN)
    if known is not None and known.partial and asked.length is None:
        for note in dict.fromkeys(window.note for window in known.windows if window.note):
            print(note, file=sys.stderr)


def _write(
    config: PipelineConfig, result: Drawn, cond: dict[str, Given], frames: list[Tensor], out: Path
) -> list[Path]:
    x, views = result
    out.parent.mkdir(parents=True, exist_ok=True)
    if _is_folder(out):
        out.mkdir(exist_ok=True)
        return [view.save(one, out / f"sample-{i:05d}") for i, (one, view) in enumerate(zip(x, views, strict=True))]
    if _is_film(out):
        config.view.animation(frames, out)
    else:
        config.view.picture(x, captions(config.model.conditions, cond, x)).save(out)
    return [out]


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _is_film(out: Path) -> bool:
    return out.suffix.lower() == FILM and not out.is_dir()


def _check_out(out: Path) -> None:
    """Refuse what could not be written, before anything is drawn.

    Raises:
        ValueError: a name that is none of a sheet, a film and a folder, or a place where nothing can be written.
    """
    if not _is_folder(out) and out.suffix.lower() not in {*SHEET, FILM}:
        kinds = f"FILE{SHEET[0]} (a sheet; {', '.join(SHEET[1:])} too), FILE{FILM} (the way there)"
        raise ValueError(f"out: got {out}, expected {kinds}, or a folder for one file each")
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if there.is_dir() is not (there != out or _is_folder(out)) or not os.access(there, os.W_OK):
        raise ValueError(f"out: got {out}, which cannot be written because of {there}; expected a place that can")


def captions(conditions: dict[str, Condition], cond: dict[str, Given], x: Tensor) -> list[str]:
    """The classes asked for, by name, and the texts, for each sample; empty where none was asked for."""
    labels = {name: c for name, c in conditions.items() if isinstance(c, Label) and name in cond}
    index = prepared({name: cond[name] for name in labels}, dict(labels), len(x), tuple(x.shape[2:]))
    lines = [""] * len(x)
    for name, label in labels.items():
        chosen = [label.names[i] if label.names else str(i) for i in cast("Tensor", index[name]).tolist()]
        lines = [f"{line} {caption}".strip() for line, caption in zip(lines, chosen, strict=True)]
    for name, value in cond.items():
        if isinstance(conditions.get(name), Text):
            texts = cast("list[str]", value)
            chosen = texts * len(x) if len(texts) == 1 else texts
            lines = [f"{line} {text}".strip() for line, text in zip(lines, chosen, strict=True)]
    return lines if any(lines) else []
