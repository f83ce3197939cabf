"""Volumes: how real their slices look, what values they have, and how these change from voxel to voxel."""

from collections.abc import Sequence
from statistics import fmean

import torch
from jaxtyping import Float
from matplotlib.figure import Figure as Plot
from PIL.Image import Image
from torch import Tensor

from anydit.data import Images, VolumeView
from anydit.evaluate import distances
from anydit.evaluate.compare import Figure
from anydit.evaluate.features import Features, RandomNetwork, in_parts
from anydit.evaluate.own import Own, own
from anydit.evaluate.pictures import rendered
from anydit.evaluate.pretrained import ImageNet
from anydit.evaluate.sets import Sets, spread

REFERENCE = 512
"""Volumes that are looked at, at most: each has many values."""

PLANES = (2, 3, 4)
BINS = 50


@own.register
def _(view: VolumeView, x: Float[Tensor, "n c i j k"], sets: Sets) -> Own:
    train = sets.read_train(spread(len(sets.train), REFERENCE))
    parts = [x[spread(len(x), REFERENCE)], sets.real.x[spread(sets.count, REFERENCE)], train]
    names = view.names or tuple(f"channel {c}" for c in range(x.shape[1]))
    figures = {"slices": slices(parts)}
    for c, name in enumerate(names):
        of_channel = [part[:, c] for part in parts]
        deviation = distances.units(of_channel[2].std())
        apart = [distances.wasserstein(some / deviation, of_channel[2] / deviation) for some in of_channel]
        figures[f"values_{name}".replace(" ", "_")] = Figure(
            f"Values of {name}", apart[0], apart[1], None, "distance between distributions, in deviations"
        )
    steps = [torch.cat([some.diff(dim=axis).flatten(2) for axis in PLANES], 2).transpose(0, 1) for some in parts]
    units = distances.units(steps[2].flatten(1).std(1))[:, None, None]
    rough = [fmean(map(distances.wasserstein, some / units, steps[2] / units)) for some in steps]
    figures["steps"] = Figure(
        "Steps between voxels", rough[0], rough[1], None, "distance between distributions; blur and noise raise it"
    )
    return Own(figures, {"Values, by channel": histograms(parts, names)})


def slices(parts: Sequence[Float[Tensor, "_ c i j k"]]) -> Figure:
    """The Fréchet distance of slices through the middle, mean of the three directions, of channels in grey or colours.

    `parts`: samples, held-out data, training data.
    """
    channels = 3 if parts[0].shape[1] == 3 else 1
    by_plane = [[some[:, :channels].select(p, some.shape[p] // 2) for some in parts] for p in PLANES]
    space = slice_features(by_plane[0][2], float(parts[2].min()), float(parts[2].max()))
    values = [0.0, 0.0]
    for some in by_plane:
        seen = [distances.moments(in_parts(space, part)) for part in some]
        for i in (0, 1):
            values[i] += distances.frechet(seen[i], seen[2]) / len(PLANES)
    return Figure("Fréchet distance of slices", values[0], values[1], None, f"in {space.name}; small is good")


def slice_features(x: Float[Tensor, "n c h w"], low: float, high: float) -> Features:
    """Those of a network trained on photographs where it is installed, else of a random one fitted to slices `x`."""
    try:
        return ImageNet(Images(low, max(high, low + 1e-6)), torch.device("cpu"))
    except ValueError:
        return RandomNetwork(x, torch.device("cpu"))


def histograms(parts: Sequence[Float[Tensor, "_ c i j k"]], names: Sequence[str]) -> Image:
    """The share of voxels at each value, of samples, held-out and training data."""
    plot = Plot(figsize=(4 * len(names), 3), layout="constrained")
    panels = plot.subplots(1, len(names), squeeze=False)[0]
    for c, (axes, name) in enumerate(zip(panels, names, strict=True)):
        low, high = float(parts[2][:, c].min()), float(parts[2][:, c].max())
        for some, of, style in zip(parts, ("samples", "held-out data", "training data"), ("-", "--", ":"), strict=True):
            counts = torch.histc(some[:, c].clamp(low, high), BINS, low, high)
            axes.semilogy(torch.linspace(low, high, BINS).numpy(), (counts / counts.sum()).numpy(), style, label=of)
        axes.set(xlabel=name, ylabel="share of voxels")
    panels[-1].legend()
    return rendered(plot)
