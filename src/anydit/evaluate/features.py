"""Features in which sets of samples are compared: whatever maps samples on the data's own scale to vectors."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
"""Layers by the number of a sample's axes."""

AT_ONCE = 256
"""Samples that go through a feature network in one call."""


@runtime_checkable
class Features(Protocol):
    """Anything that is called with samples on the data's own scale and returns a vector for each.

    `name` says what it is, for the report.
    """

    name: str

    def __call__(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d"]:
        """The features of each sample, on the CPU."""
        ...


def in_parts(features: Features, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d"]:
    """The features of many samples."""
    return torch.cat([features(part) for part in x.split(AT_ONCE)])


class PrincipalComponents:
    """A fixed random linear map of the standardised samples to `dim` numbers: sees every value, knows nothing.

    What is left where there are neither labels to learn from nor trained networks.
    """

    def __init__(self, x: Float[Tensor, "n c *space"], dim: int = 64, seed: int = 0) -> None:
        flat = x.flatten(1).double()
        dim = min(dim, flat.shape[1], len(flat) - 1)
        self.name = f"the {dim} leading principal components of the training data (no labels, no trained network)"
        self.mean = flat.mean(0)
        self.basis = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:dim].T

    def __call__(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d"]:
        return ((x.flatten(1).double() - self.mean) @ self.basis).float()
