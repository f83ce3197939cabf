"""One learning rate for all widths (muP: Yang 2022, arXiv 2203.03466; of diffusion transformers arXiv 2505.15270).

What a model of a base width learns best with is what wider ones do, if two things go with the width:
- a product whose inputs are more than the base's begins with weights, and learns at a rate, that are smaller by it;
- what has as many inputs at any width (embeddings, classes, times) begins as the base does, and learns at its rate.
Which is which, and by how much, is told by the shapes of the same model of the base width. Modulation and output begin
at zero, as in any DiT. Heads have to be of one size: `heads` is to grow with the width.
"""

from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor, nn

from anydit.config import check_at_least, config
from anydit.model.dit import DiT, DiTConfig


@config
class Width:
    """Begin and learn as a model of the width `base` does, with which the learning rate was found."""

    base: int = 256

    def __post_init__(self) -> None:
        check_at_least("train.width.base", self.base, 1)

    def config(self, model: DiTConfig) -> DiTConfig:
        """The same model of the base width.

        Raises:
            ValueError: heads of this size are not a part of it.
        """
        size = model.width // model.heads
        if self.base % size:
            raise ValueError(
                f"train.width.base: got {self.base}, expected a multiple of {size}, the values of a head of the model"
            )
        return replace(model, width=self.base, heads=self.base // size)

    def shares(self, model: DiT) -> dict[str, float]:
        """Of the learning rate, for each parameter that does not get all of it: inputs of the base over its own."""
        with torch.device("meta"):
            base = dict(DiT(self.config(model.config)).named_parameters())
        own = {name: p.shape[1] for name, p in _products(model).items()}
        return {name: base[name].shape[1] / inputs for name, inputs in own.items() if base[name].shape[1] != inputs}

    @torch.no_grad()
    def begin(self, model: DiT, seed: int) -> None:
        """Give a new model's weights the size that those of the base begin with, and less where inputs are more."""
        shares, base = self.shares(model), dict(DiT(self.config(model.config), seed).named_parameters())
        for name, p in _products(model).items():
            if (own := float(p.std(correction=0))) > 0:
                p *= float(base[name].std(correction=0)) * sqrt(shares.get(name, 1.0)) / own


def _products(model: DiT) -> dict[str, Tensor]:
    """The weights of all products."""
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {f"{name}.weight": module.weight for name, module in modules.items()}
