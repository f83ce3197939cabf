"""What a person looks at while and after training: sheets of samples, the way from noise to data, the loss curve."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from anydit.config import Json
from anydit.data import Samples
from anydit.data.buckets import fullest
from anydit.data.sheet import WIDEST, arranged
from anydit.diffusion.samplers import Step
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Condition, Label
from anydit.model.text import Text
from anydit.tensors import MASK, Tokens


def examples(
    samples: Samples, conditions: dict[str, Condition], n: int, columns: int | None = None
) -> tuple[dict[str, Tensor | Tokens], list[str]]:
    """Conditions for `n` pictures, and captions: classes in turn, everything else as the first samples have it.

    Beside a text, classes are those of the same samples: the two may say the same. `columns`: of a sheet, of which each
    class gets as many of its own.
    """
    samples = fullest(samples)
    first = samples.read(torch.arange(n) % len(samples))
    cond = {k: v for k, v in first.cond.items() if k in conditions or k == MASK}
    captions = [" / ".join(said) for said in zip(*(first.texts[k] for k in cond if k in first.texts), strict=True)]
    captions = captions or [""] * n
    for name, condition in conditions.items():
        if isinstance(condition, Label):
            classes, place = condition.classes or 1, torch.arange(n)
            turn = place % classes if columns is None else place % columns * classes // columns
            cond[name] = index = first.tensor(name) if worded(conditions) else turn
            names = condition.names or tuple(map(str, range(classes)))
            captions = [f"{caption} {names[i]}".strip() for caption, i in zip(captions, index.tolist(), strict=True)]
    return cond, captions if any(captions) else []


def worded(conditions: dict[str, Condition]) -> bool:
    """Whether a text is among the conditions."""
    return any(isinstance(condition, Text) for condition in conditions.values())


def sheet(pipeline: Pipeline, samples: Samples, n: int, seed: int = 0) -> Image.Image:
    """About `n` samples on one sheet; where there is one kind of label and few classes, each has columns of its own.

    Of `samples` of several sizes they have the one that most have.
    """
    config, columns = pipeline.config, None
    labels = [c.classes for c in config.model.conditions.values() if isinstance(c, Label) and c.classes]
    if len(labels) == 1 and not worded(config.model.conditions) and 1 < labels[0] <= min(n, WIDEST):
        rows, columns = arranged(n, labels[0])
        n = rows * columns
    cond, captions = examples(samples, config.model.conditions, n, columns)
    x = pipeline.sample(n, cond, seed=seed, size=fullest(samples).facts.size)
    return config.view.picture(x, captions, columns)


def trajectory(
    pipeline: Pipeline, cond: Mapping[str, Tensor | Tokens], n: int, shown: int, seed: int = 0
) -> list[Float[Tensor, "n c *space"]]:
    """`n` samples at about `shown` times on their way from noise to data, the finished ones last."""
    steps = pipeline.config.sampling.steps
    every = max(1, ceil(steps / shown))
    frames = list[Tensor]()

    def keep(step: Step) -> None:
        if (step.steps - 1 - step.index) % every == 0:
            frames.append(pipeline.decode(step.xt))

    x = pipeline.sample(n, cond, seed=seed, batch=n, on_step=keep)
    if pipeline.config.change_of is not None:
        frames = [frame + (x - frames[-1]) for frame in frames]
    return [frame.where(~x.isnan(), x) for frame in frames]


def strip(pipeline: Pipeline, frames: Sequence[Float[Tensor, "n c *space"]]) -> Image.Image:
    """A row for each sample, a column for each frame."""
    in_rows = torch.stack(list(frames), dim=1).flatten(0, 1)
    return pipeline.config.view.picture(in_rows, columns=len(frames))


def loss_curve(entries: Sequence[Json], path: Path) -> None:
    """The loss of every step and its running mean, as a PNG; of no step none."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    if not entries:
        return
    steps = np.array([entry["step"] + 1 for entry in entries])
    loss = np.array([entry["loss"] for entry in entries], dtype=float)
    window = max(1, len(loss) // 50)
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
    figure = Figure(figsize=(6, 4))  # with margins of its own, since finding them takes as long as drawing
    axes = figure.subplots(gridspec_kw={"left": 0.16, "right": 0.97, "bottom": 0.13, "top": 0.96})
    axes.plot(steps, loss, color="0.8", linewidth=0.6, label="each step")
    axes.plot(steps[window - 1 :], smooth, color="C0", label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")  # powers of ten take as long to set as all else to draw
    axes.yaxis.minorticks_off()
    axes.grid(visible=True, linewidth=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
