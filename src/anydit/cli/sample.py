"""Draw samples from a run or an exported folder.

anydit sample runs/digits --label 3 -n 16
anydit sample runs/digits --label 0 1 2 3 -n 4 --guidance 2 --out four.png --out four.gif --out four/
anydit sample runs/digits --sampler Heun --steps 50
anydit sample runs/pairs --text "a seven to the left of a two" --out seven.png
anydit sample runs/moving-digits-next --known first.npy --out next/
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from anydit.cli._fields import asks_for_help, page, without_help
from anydit.config import overridden
from anydit.data.known import KNOWN, told
from anydit.diffusion.samplers import Step
from anydit.inference.conditions import Given, prepared
from anydit.inference.config import PipelineConfig, Sampling, load_config
from anydit.inference.device import find_device
from anydit.inference.lengths import LENGTH
from anydit.inference.pipeline import Pipeline, load
from anydit.model.conditioning import Condition, Field, Label, Numbers, Text

FRAMES = 24
"""Pictures in a GIF of the way from noise to data."""

SHEET, FILM = (".png", ".jpg", ".jpeg", ".webp"), ".gif"
"""What a file for all samples together, and one for their way from noise to data, may be named."""

OWN = ("n", "seed", "guidance", "size", "length", "device", "out", "help")
TAKEN = frozenset({*OWN, *(f.name for f in fields(Sampling))})
"""Names of this command's own options, which stay these options where a condition has such a name too."""


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if not argv or argv[0].startswith("-"):
        print(f"{__doc__}\n{_parser({}).format_help()}\n{_SAMPLING_HELP}")
        return 0 if asks_for_help(argv) else 2
    if asks_for_help(argv):
        config = load_config(Path(argv[0]))
        parser = _parser(config.model.conditions)
        _, rest = parser.parse_known_args(without_help(argv[1:]))
        print(f"{parser.format_help()}\n{page(overridden(config.sampling, rest, 'anydit sample'))}")
        return 0
    pipeline = load(argv[0])
    conditions = pipeline.config.model.conditions
    known, rest = _parser(conditions).parse_known_args(argv[1:])
    outs: list[Path] = known.out or [Path(argv[0]) / "samples" / f"seed-{known.seed}.png"]
    for out in outs:
        _check_out(out)
    sampling = overridden(pipeline.config.sampling, rest, f"anydit sample {argv[0]}")
    if known.guidance is not None:
        sampling = overridden(sampling, ["--guidance.scale", str(known.guidance)], "anydit sample")
    if known.device is not None:
        pipeline.to(find_device(known.device))
    given = {name: getattr(known, f"cond.{name}", None) for name in conditions}
    some = {name: value for name, value in given.items() if value is not None}
    cond: dict[str, Given] = {name: _rows(conditions[name], value) for name, value in some.items()}
    n = _told(known, conditions, cond)
    negative = {name: getattr(known, f"negative.{name}", None) for name in conditions}
    negative = {name: text for name, text in negative.items() if text is not None}
    if negative and not sampling.guidance.acts:
        raise ValueError(f"negative-{next(iter(negative))}: got a text without guidance, expected --guidance above 1")
    if negative:
        sampling = replace(sampling, guidance=replace(sampling.guidance, negative=negative))
    if known.length:
        cond[LENGTH] = [pipeline.config.view.places(each) for each in known.length]
    for written in draw(pipeline, n, cond, sampling, known.seed, known.size, outs):
        print(f"Wrote {written}")
    return 0


def _rows(condition: Condition, values: list[Any]) -> list[Any]:
    """Values as they are; of several numbers that belong together those of each sample."""
    count = len(condition.names or ()) if isinstance(condition, Numbers) else 1
    if count < 2 or len(values) % count:
        return values
    return [values[i : i + count] for i in range(0, len(values), count)]


def _told(known: argparse.Namespace, conditions: dict[str, Condition], cond: dict[str, Given]) -> int:
    """Put what files say into `cond`; returns how many samples to draw: one of each text or field, if not said."""
    n = known.n
    for name, condition in conditions.items():
        if isinstance(condition, Field) and name in cond:
            cond[name] = values = _values(name, condition, Path(str(cast("list[str]", cond[name])[0])))
            n = len(values) if n is None else n
        file: Path | None = getattr(known, f"file.{name}", None)
        if file is None:
            continue
        if name in cond:
            raise ValueError(f"{name}-file: got {file} beside --{name}, expected one of them")
        texts = _lines(name, file)
        cond[name], n = texts, len(texts) if n is None else n
    return 16 if n is None else n


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


def _values(name: str, condition: Field, file: Path) -> Tensor:
    """What a NumPy file tells of samples; of values that are known in part, which are is told by NaN where none is."""
    try:
        with file.open("rb") as stream:
            values = torch.from_numpy(np.lib.format.read_array(stream, allow_pickle=False)).float()
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name}: got {file}, which cannot be read as an array of NumPy ({error})") from None
    if values.ndim < 3:
        raise ValueError(f"{name}: got an array of shape {tuple(values.shape)}, expected [n, channels, *size]")
    if name == KNOWN and 2 * values.shape[1] == condition.channels:
        return told(values, ~values.isnan(), (condition.mean or ())[: values.shape[1]])
    return values


_SAMPLING_HELP = """\
Everything of the saved sampling can be said anew: --steps 50, --sampler Heun, --sampler DDIM --sampler.eta 1,
--grid Karras, --guidance.interval 0.1 0.9. `anydit sample RUN --help` lists it, with the conditions of that model.
"""


def _parser(conditions: dict[str, Condition]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anydit sample RUN", usage="%(prog)s [options]", add_help=False, allow_abbrev=False
    )
    parser.add_argument("-n", type=int, help="how many samples (16, or one of each text in a file)")
    parser.add_argument("--seed", type=int, default=0, help="sample i depends on seed, i and condition only (0)")
    parser.add_argument("--guidance", type=float, help="strength of classifier-free guidance; 1 is none")
    parser.add_argument("--size", type=int, nargs="+", help="another size than trained on, one number for each axis")
    parser.add_argument(
        "--length", nargs="+", help="how much of a sample exists, where that varies: places, or as 0.5s of audio"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (the GPU that is there)")
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
            unknown = "; NaN where nothing is known" if name == KNOWN else ""
            conditioned.add_argument(*flags, dest=f"cond.{name}", nargs=1, metavar="FILE.npy",
                                     help=f"an array [n, channels, *size], one for each sample{unknown}")  # fmt: skip
        elif isinstance(condition, Text):
            add(help='a text in quotes, or one for each sample; "" is the empty text')
            other = conditioned.add_argument
            other(f"--{name}-file", dest=f"file.{name}", type=Path, metavar="FILE", help="texts, one on each line")
            other(f"--negative-{name}", dest=f"negative.{name}", metavar="TEXT", help="what to guide away from")
    return parser


def draw(
    pipeline: Pipeline,
    n: int,
    cond: dict[str, Given],
    sampling: Sampling,
    seed: int,
    size: Sequence[int] | None,
    outs: Sequence[Path],
) -> list[Path]:
    """Sample with a progress bar and write every output; returns what was written."""
    frames = list[Tensor]()
    animated = any(map(_is_film, outs))
    every = max(1, -(-sampling.steps // FRAMES))
    with Progress(transient=True) as progress:
        task = progress.add_task("sample", total=None)

        def on_step(step: Step) -> None:
            progress.update(task, total=step.steps, completed=step.index + 1)
            if animated and (step.steps - 1 - step.index) % every == 0:
                frames.append(pipeline.decode(step.xt))

        batch = max(n, 1) if animated else None
        x = pipeline.sample(
            n, cond, seed=seed, size=tuple(size) if size else None, batch=batch, sampling=sampling, on_step=on_step
        )
    frames = [frame.where(~x.isnan(), x) for frame in frames]
    return [path for out in outs for path in _write(pipeline.config, x, cond, frames, out)]


def _write(config: PipelineConfig, x: Tensor, cond: dict[str, Given], frames: list[Tensor], out: Path) -> list[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    if _is_folder(out):
        out.mkdir(exist_ok=True)
        return config.view.write(x, out)
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
