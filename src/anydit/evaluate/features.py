"""Features in which sets of samples are compared: whatever maps samples on the data's own scale to vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anydit.data import View

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MEAN_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
"""Layers by the number of a sample's axes."""

AT_ONCE = 256
"""Samples that go through a feature network in one call."""


@runtime_checkable
class Features(Protocol):
    """Anything that is called with samples on the data's own scale and returns a vector for each, on the CPU.

    `name` says what it is, for the report.
    """

    @property
    def name(self) -> str:
        """What these features are, in words that complete "samples are compared in ..."."""
        ...

    def __call__(self, x: Float[Tensor, "b c *space"], /) -> Float[Tensor, "b d"]:
        """The features of each sample."""
        ...


See = Callable[[Float[Tensor, "n c *space"]], Float[Tensor, "n c_seen *space_seen"]]
"""What networks that judge samples, and distances between them, are shown of samples without NaN."""


def as_it_is(x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
    """The samples themselves."""
    return x


@singledispatch
def seen(view: View) -> See:
    """How a modality's samples are looked at, where that is not as they are: its file in `own` registers it."""
    return as_it_is


@dataclass(frozen=True)
class Through:
    """Features of what is seen of samples."""

    see: See
    features: Features

    @property
    def name(self) -> str:
        """That of the features."""
        return self.features.name

    def __call__(self, x: Float[Tensor, "b c *space"], /) -> Float[Tensor, "b d"]:
        return self.features(self.see(x))


class RandomNetwork:
    """Averages over two layers of fixed random convolutions, in units of their typical deviation over training data.

    What is left where there are no labels to learn from. It tells noise, blur, wrong texture and wrong contrast from
    real data far better than principal components or a network trained on photographs do, but knows nothing of content.
    """

    name = "64 features of a fixed random convolutional network"

    def __init__(self, x: Float[Tensor, "n c *space"], device: torch.device) -> None:
        rank, width = x.ndim - 2, 32
        refuse_rank(rank)
        self.device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [CONV[rank](c, width, 3, padding=1, padding_mode="replicate") for c in (x.shape[1], width)]
        self.first, self.second = (layer.to(device).requires_grad_(False) for layer in layers)
        self.halve = MEAN_POOL[rank]([2 if s > 1 else 1 for s in x.shape[2:]])
        axes = (0, *range(2, x.ndim))
        self.shift, scale = x.mean(axes, keepdim=True), x.std(axes, keepdim=True)
        self.scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        self.unit = torch.ones(1)
        # One unit for all: a feature that is all but dead on training data must not become a loud one.
        self.unit = in_parts(self, x).var(0).mean().sqrt().clamp(min=1e-12)

    def __call__(self, x: Float[Tensor, "b c *space"], /) -> Float[Tensor, "b d"]:
        h = self.first(((x - self.shift) / self.scale).to(self.device)).relu()
        averages = [h.flatten(2).mean(2), self.second(self.halve(h)).relu().flatten(2).mean(2)]
        return torch.cat(averages, dim=1).cpu() / self.unit


class OverFrames:
    """Features of every frame of a video: their mean, and how much they change from frame to frame on average."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.name = f"{features.name}, of frames and of their changes"

    def __call__(self, x: Float[Tensor, "b c t *space"], /) -> Float[Tensor, "b d"]:
        frames = in_parts(self.features, x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
        changes = frames.diff(dim=1).abs() if frames.shape[1] > 1 else torch.zeros_like(frames)
        return torch.cat([frames.mean(1), changes.mean(1)], dim=1)


def in_parts(features: Features, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d"]:
    """The features of many samples."""
    return torch.cat([features(part) for part in x.split(AT_ONCE)])


def refuse_rank(rank: int) -> None:
    """Say that there is no convolution over so many axes."""
    if rank not in CONV:
        raise ValueError(
            f"features: got samples with {rank} axes, expected 1 to 3; give evaluate() features of your own"
        )
