"""The figures: samples and held-out data, each against training data, in features and in data space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.codecs.quality import psnr, ssim
from anydit.data import Samples
from anydit.evaluate import distances
from anydit.evaluate.distances import Neighbours
from anydit.evaluate.features import See, as_it_is
from anydit.evaluate.sets import spread

READ_AT_ONCE = 1024
"""Training samples that are in memory at one time while neighbours are looked for."""

LEAST_NEAR = 0.01
"""The part of held-out data that counts as unusually near to training data."""


@dataclass(frozen=True)
class Figure:
    """A figure of the samples beside its floor, the same figure of held-out real data, where those have one.

    `error`, `floor_error`: standard errors, where known. `meaning`: what it says, and which way is good.
    """

    title: str
    samples: float
    floor: float | None
    error: float | None
    meaning: str
    floor_error: float | None = None

    @property
    def ratio(self) -> float | None:
        """The samples' figure as a multiple of the floor, where that has a meaning: a floor apart from 0."""
        if self.floor is None or self.floor <= 2 * (self.floor_error or 0):
            return None
        return self.samples / self.floor


def in_features(
    drawn: Sequence[Float[Tensor, "_ d"]], held: Float[Tensor, "n d"], train: Float[Tensor, "m d"]
) -> dict[str, Figure]:
    """Fréchet and kernel distance, precision and recall: of draws of as many samples as there are held-out ones.

    One less, in some draws, makes no difference that anyone would see.
    """
    few = train[spread(len(train), len(held))]
    # The kernel has an origin, so published values are those of the features as they are.
    kernel, kernel_floor = distances.kernel_distance(torch.cat(list(drawn)), few), distances.kernel_distance(held, few)
    # The others have none, and differences of large numbers are inexact.
    centre = train.mean(0)
    drawn, held, train, few = [f - centre for f in drawn], held - centre, train - centre, few - centre
    reference = distances.moments(train)
    frechet = [distances.frechet(distances.moments(f), reference) for f in drawn]
    frechet_floor = distances.frechet(distances.moments(held), reference)
    covered = [distances.precision_recall(few, f) for f in drawn]
    covered_floor = distances.precision_recall(few, held)
    precision, recall = [c.precision for c in covered], [c.recall for c in covered]
    return {
        "frechet": Figure(
            "Fréchet distance", *_mean(frechet, frechet_floor), "Gaussians fitted to both; small is good"
        ),
        "kernel": Figure(
            "Kernel distance",
            kernel.value,
            kernel_floor.value,
            kernel.error,
            "0 on average for equal distributions",
            kernel_floor.error,
        ),
        "precision": Figure(
            "Precision", *_mean(precision, covered_floor.precision), "share of samples that look like training data"
        ),
        "recall": Figure(
            "Recall", *_mean(recall, covered_floor.recall), "share of training data that samples come near to"
        ),
    }


def reconstruction(
    y: Float[Tensor, "n c *space"], x: Float[Tensor, "n c *space"], bounds: tuple[float, float] | None
) -> dict[str, Figure]:
    """How near reconstructions `y` are to `x`; the data's extent is that of `bounds`, or else of `x`."""
    extent = float(x.max() - x.min()) if bounds is None else bounds[1] - bounds[0]
    near, alike = psnr(y, x, extent), ssim(y, x, extent)
    figures = {"psnr": Figure("PSNR, dB", near, None, None, "peak signal to noise of reconstructions; large is good")}
    if alike is not None:
        figures["ssim"] = Figure("SSIM", alike, None, None, "structural similarity; 1 is the same")
    return figures


def accuracy(
    asked: Int[Tensor, " n"], seen: Int[Tensor, " n"], held_asked: Int[Tensor, " m"], held_seen: Int[Tensor, " m"]
) -> Figure:
    """How often a classifier sees the class that was asked for."""
    share, floor = (float((a == b).double().mean()) for a, b in ((asked, seen), (held_asked, held_seen)))
    error = sqrt(share * (1 - share) / len(asked))
    return Figure("Conditional accuracy", share, floor, error, "share in which a classifier sees the class asked for")


def memorisation(drawn: Float[Tensor, " n"], held: Float[Tensor, " m"]) -> dict[str, Figure]:
    """Figures of the distances to the nearest training sample."""
    limit = held.quantile(LEAST_NEAR)
    return {
        "nearest": Figure(
            "Nearest training sample",
            float(drawn.median()),
            float(held.median()),
            None,
            "median distance in data space; far below the floor: copies, far above: not like the data",
        ),
        "copies": Figure(
            "Unusually near",
            float((drawn < limit).double().mean()),
            float((held < limit).double().mean()),
            None,
            "share nearer to a training sample than the nearest 1 % of held-out data",
        ),
    }


def nearest(
    queries: Float[Tensor, "n c *space"],
    train: Samples,
    progress: Callable[[float], None],
    see: See = as_it_is,
) -> Neighbours:
    """The nearest training sample of each query, in Euclidean distance of what is seen of both."""

    def looked(x: Float[Tensor, "m c *space"]) -> Float[Tensor, "m d"]:
        return see(x).flatten(1)

    # Distances by matrix products lose the digits that all samples share: without centring, fields of 300 K that vary
    # by 0.1 K are all equally far, and a copy goes unseen.
    centre = looked(train.read(spread(len(train), READ_AT_ONCE)).x).mean(0)
    flat, best = torch.cat([looked(some) for some in queries.split(READ_AT_ONCE)]), None
    for ids in torch.arange(len(train)).split(READ_AT_ONCE):
        best = distances.merge_nearest(best, flat - centre, looked(train.read(ids).x) - centre, int(ids[0]))
        progress((int(ids[-1]) + 1) / len(train))
    assert best is not None, "there are training samples"
    # Distances by matrix products are inexact where they are small, just where a copy shows.
    exact = [
        (q - looked(train.read(i).x)).double().norm(dim=1).float()
        for q, i in zip(flat.split(READ_AT_ONCE), best.which.split(READ_AT_ONCE), strict=True)
    ]
    return Neighbours(torch.cat(exact), best.which)


def confusion(asked: Int[Tensor, " n"], seen: Int[Tensor, " n"], classes: int) -> Int[Tensor, "k k"]:
    """How many samples of each class (row) were taken for each class (column)."""
    return (asked * classes + seen).bincount(minlength=classes**2).reshape(classes, classes)


def _mean(values: Sequence[float], floor: float) -> tuple[float, float, float | None]:
    """The draws' mean, the floor, and the mean's standard error."""
    return fmean(values), floor, stdev(values) / sqrt(len(values)) if len(values) > 1 else None
