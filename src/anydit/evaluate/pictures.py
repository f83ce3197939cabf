"""What a person looks at beside the figures: samples and real data, nearest neighbours, classes taken for others."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure as Plot
from PIL import Image
from torch import Tensor

from anydit.data.sheet import WIDEST, arranged
from anydit.evaluate.distances import Neighbours
from anydit.evaluate.sets import Sets, spread

SHOWN, PAIRS = 100, 12
"""Samples on a sheet; samples beside their nearest neighbours."""

CLASSES_IN_FULL = 30
"""Classes up to which each has a row and a column of its own."""


def shown(sets: Sets, x: Float[Tensor, "n c *space"], near: Neighbours) -> dict[str, Image.Image]:
    """Sheets of samples, of real data, and of samples over their nearest training neighbours."""
    by_distance = near.distance[: len(x)].argsort()[spread(len(x), PAIRS)]
    pairs = torch.cat([x[by_distance], sets.read_train(near.which[by_distance])])
    distances = [f"{d:.3g}" for d in near.distance[by_distance].tolist()]
    return sheets(sets, x) | {"neighbours": sets.view.picture(pairs, distances * 2, len(by_distance))}


def sheets(sets: Sets, x: Float[Tensor, "n c *space"]) -> dict[str, Image.Image]:
    """Sheets of samples and of real data."""
    rows, columns, captions = _arranged(sets)
    return {
        "samples": sets.view.picture(x[rows], captions, columns),
        "held_out": sets.view.picture(sets.real.x[rows], captions, columns),
    }


def _arranged(sets: Sets) -> tuple[Int[Tensor, " k"], int | None, list[str]]:
    """Which held-out conditions to show, in how many columns, and captions: each class its own where they are few."""
    rows, columns = torch.arange(min(SHOWN, sets.count)), None
    if sets.told:
        said = zip(*sets.real.texts.values(), strict=True)
        return rows, columns, [" / ".join(texts) for texts, _ in zip(said, rows, strict=False)]
    if not sets.asked:
        return rows, columns, []
    labels = sets.labels
    by_class = [torch.nonzero(labels == i)[:, 0] for i in labels.unique().tolist()]
    classes, least = len(by_class), min(map(len, by_class))
    if classes <= WIDEST and least >= 2:
        deep, columns = arranged(min(SHOWN, classes * least), classes)
        each = columns // classes
        rows = torch.cat([ids[: deep * each].reshape(deep, each) for ids in by_class], dim=1).flatten()
    return rows, columns, [sets.classes[i] for i in labels[rows].tolist()]


def confusion_plot(confusion: Int[Tensor, "k k"], held: Int[Tensor, "k k"], classes: Sequence[str]) -> Image.Image:
    """Accuracy by class, samples beside held-out data, and which class was taken for which."""
    share, floor = (_diagonal(table) for table in (confusion, held))
    if len(classes) > CLASSES_IN_FULL:
        return _sorted_accuracies(share, floor)
    plot = Plot(figsize=(11, 4.4), layout="constrained")
    bars, table = plot.subplots(1, 2)
    at = np.arange(len(classes))
    bars.bar(at - 0.2, share, 0.4, label="samples", color="#2a6fbb")
    bars.bar(at + 0.2, floor, 0.4, label="held-out data", color="#c4c9d0")
    bars.set_xticks(at, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    bars.set(ylim=(0, 1.02), ylabel="accuracy")
    bars.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    parts = (confusion / confusion.sum(1, keepdim=True).clamp(min=1)).numpy()
    table.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    table.set_xticks(at, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    table.set_yticks(at, classes)
    table.set(xlabel="class that the classifier sees", ylabel="class asked for", title="Samples, in %")
    for i, j in np.argwhere(parts >= 0.005):
        table.text(j, i, f"{100 * parts[i, j]:.0f}", ha="center", va="center", fontsize=8,
                   color="white" if parts[i, j] > 0.5 else "black")  # fmt: skip
    return rendered(plot)


def _sorted_accuracies(share: np.ndarray, floor: np.ndarray) -> Image.Image:
    plot = Plot(figsize=(8, 4), layout="constrained")
    axes = plot.subplots()
    for values, name, colour in ((share, "samples", "#2a6fbb"), (floor, "held-out data", "#9aa2ad")):
        axes.plot(np.sort(values[~np.isnan(values)]), label=name, color=colour)
    axes.set(ylim=(0, 1.02), xlabel="classes, worst first", ylabel="accuracy")
    axes.legend(loc="lower right")
    return rendered(plot)


def _diagonal(table: Int[Tensor, "k k"]) -> np.ndarray:
    """Each class's accuracy; NaN for a class without samples."""
    return (table.diag() / table.sum(1)).numpy()


def rendered(plot: Plot) -> Image.Image:
    """A plot as pixels."""
    buffer = BytesIO()
    plot.savefig(buffer, format="png", dpi=110)
    return Image.open(buffer).convert("RGB")
