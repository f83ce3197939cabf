"""Draw samples from a run or an exported folder.

anydit sample runs/digits --label 3 -n 16
anydit sample runs/digits --label 0 1 2 3 -n 4 --guidance 2 --out four.png --out four.gif --out four/
anydit sample runs/digits --sampler Heun --steps 50
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress
from torch import Tensor

from anydit.cli._fields import asks_for_help, page, without_help
from anydit.config import overridden
from anydit.diffusion.samplers import Step
from anydit.inference.conditions import Given, prepared
from anydit.inference.config import PipelineConfig, Sampling, load_config
from anydit.inference.pipeline import Pipeline, find_device, load
from anydit.model.conditioning import Condition, Field, Label

FRAMES = 24
"""Pictures in a GIF of the way from noise to data."""


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
    sampling = overridden(pipeline.config.sampling, rest, f"anydit sample {argv[0]}")
    if known.guidance is not None:
        sampling = overridden(sampling, ["--guidance.scale", str(known.guidance)], "anydit sample")
    if known.device is not None:
        pipeline.to(find_device(known.device))
    cond = {name: getattr(known, name) for name in conditions if getattr(known, name, None) is not None}
    outs: list[Path] = known.out or [Path(argv[0]) / "samples" / f"seed-{known.seed}.png"]
    for written in draw(pipeline, known.n, cond, sampling, known.seed, known.size, outs):
        print(f"Wrote {written}")
    return 0


_SAMPLING_HELP = """\
Everything of the saved sampling can be said anew: --steps 50, --sampler Heun, --sampler DDIM --sampler.eta 1,
--grid Karras, --guidance.interval 0.1 0.9. `anydit sample RUN --help` lists it, with the conditions of that model.
"""


def _parser(conditions: dict[str, Condition]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anydit sample RUN", usage="%(prog)s [options]", add_help=False, allow_abbrev=False
    )
    parser.add_argument("-n", type=int, default=16, help="how many samples (16)")
    parser.add_argument("--seed", type=int, default=0, help="sample i depends on seed, i and condition only (0)")
    parser.add_argument("--guidance", type=float, help="strength of classifier-free guidance; 1 is none")
    parser.add_argument("--size", type=int, nargs="+", help="another size than trained on, one number for each axis")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (the GPU that is there)")
    parser.add_argument(
        "--out", type=Path, action="append", help="FILE.png: a sheet; FILE.gif: the way there; FOLDER: one file each"
    )
    for name, condition in conditions.items():
        if isinstance(condition, Label):
            parser.add_argument(f"--{name}", nargs="+", help=f"class, by index below {condition.classes} or by name")
        elif not isinstance(condition, Field):
            parser.add_argument(f"--{name}", nargs="+", type=float, help=", ".join(condition.names or ()))
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
    animated = any(out.suffix == ".gif" for out in outs)
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
    return [path for out in outs for path in _write(pipeline.config, x, cond, frames, out)]


def _write(config: PipelineConfig, x: Tensor, cond: dict[str, Given], frames: list[Tensor], out: Path) -> list[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".gif":
        config.view.animation(frames, out)
    elif out.suffix:
        config.view.picture(x, captions(config.model.conditions, cond, x)).save(out)
    else:
        out.mkdir(exist_ok=True)
        return config.view.write(x, out)
    return [out]


def captions(conditions: dict[str, Condition], cond: dict[str, Given], x: Tensor) -> list[str]:
    """The classes asked for, by name, one line for each sample; empty where none was asked for."""
    labels = {name: c for name, c in conditions.items() if isinstance(c, Label) and name in cond}
    index = prepared({name: cond[name] for name in labels}, dict(labels), len(x), tuple(x.shape[2:]))
    lines = [""] * len(x)
    for name, label in labels.items():
        chosen = [label.names[i] if label.names else str(i) for i in index[name].tolist()]
        lines = [f"{line} {caption}".strip() for line, caption in zip(lines, chosen, strict=True)]
    return lines if any(lines) else []
