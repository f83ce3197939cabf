"""What a person looks at while and after training: sheets of samples, the way from noise to data, the loss curve."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from anydit.config import Json
from anydit.data import Samples
from anydit.diffusion.samplers import Step
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Condition, Label


def examples(samples: Samples, conditions: dict[str, Condition], n: int) -> tuple[dict[str, Tensor], list[str]]:
    """Conditions for `n` pictures, and captions: classes in turn, everything else as the first samples have it."""
    cond = {k: v for k, v in samples.read(torch.arange(n) % len(samples)).cond.items() if k in conditions}
    captions = [""] * n
    for name, condition in conditions.items():
        if isinstance(condition, Label):
            cond[name] = torch.arange(n) % (condition.classes or 1)
            names = condition.names or tuple(map(str, range(condition.classes or 1)))
            captions = [
                f"{caption} {names[i]}".strip() for caption, i in zip(captions, cond[name].tolist(), strict=True)
            ]
    return cond, captions if any(captions) else []


def columns(conditions: dict[str, Condition], n: int) -> int | None:
    """Columns of a sheet: one for each class where there is one kind of label and few classes."""
    labels = [c.classes for c in conditions.values() if isinstance(c, Label) and c.classes]
    return labels[0] if len(labels) == 1 and 1 < labels[0] <= min(n, 16) else None


def sheet(pipeline: Pipeline, cond: dict[str, Tensor], captions: Sequence[str], n: int, seed: int = 0) -> Image.Image:
    """`n` samples on one sheet."""
    x = pipeline.sample(n, cond, seed=seed)
    return pipeline.config.view.picture(x, captions, columns(pipeline.config.model.conditions, n))


def trajectory(
    pipeline: Pipeline, cond: dict[str, Tensor], n: int, shown: int, seed: int = 0
) -> list[Float[Tensor, "n c *space"]]:
    """`n` samples at about `shown` times on their way from noise to data, the finished ones last."""
    steps = pipeline.config.sampling.steps
    every = max(1, ceil(steps / shown))
    frames = list[Tensor]()

    def keep(step: Step) -> None:
        if (step.steps - 1 - step.index) % every == 0:
            frames.append(pipeline.decode(step.xt))

    pipeline.sample(n, cond, seed=seed, batch=n, on_step=keep)
    return frames


def strip(pipeline: Pipeline, frames: Sequence[Float[Tensor, "n c *space"]]) -> Image.Image:
    """A row for each sample, a column for each frame."""
    in_rows = torch.stack(list(frames), dim=1).flatten(0, 1)
    return pipeline.config.view.picture(in_rows, columns=len(frames))


def loss_curve(entries: Sequence[Json], path: Path) -> None:
    """The loss of every step and its running mean, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    steps = np.array([entry["step"] + 1 for entry in entries])
    loss = np.array([entry["loss"] for entry in entries], dtype=float)
    window = max(1, len(loss) // 50)
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(steps, loss, color="0.8", linewidth=0.6, label="each step")
    axes.plot(steps[window - 1 :], smooth, color="C0", label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.grid(visible=True, which="both", linewidth=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
