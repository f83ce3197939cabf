"""Networks that are trained on pairs of measurement and image, what reconstruction with a prior is beside.

A U-Net of deepinv's, as large as the recipe's network, for one coil or for several; and that network itself, told of
what was measured (the recipe `brain-slices-mri`).
"""

import time
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import deepinv
import torch
import torch.nn.functional as F
from modality import Trained, trained
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anydit.data.loader import Order
from anydit.inverse.operators import MRI
from anydit.recipes.slices import brain_slices, brain_slices_mri
from anydit.train.recipe import Recipe

WIDTHS = (30, 60, 120, 240)
"""Channels of the U-Net: with these it has 1.9 million parameters, as the recipe's network."""

FOLD = 2
"""Blocks of so many pixels along each axis are channels to it, so that a step costs about what the recipe's does."""

STEPS, LEARNING_RATE = 2400, 1e-3
MASKS = 100
"""How many masks it sees: another one in each batch, over and over."""


def unet() -> nn.Module:
    """Zero-filled images in, images out."""
    channels = FOLD**2
    network = deepinv.models.UNet(channels, channels, residual=True, batch_norm=False, channels_per_scale=list(WIDTHS))
    return nn.Sequential(nn.PixelUnshuffle(FOLD), network, nn.PixelShuffle(FOLD))


def supervised(recipe: Recipe, operator: MRI, sigma: float, file: Path) -> nn.Module:
    """The U-Net trained on the recipe's data, in its batches, measured by the operator with many masks; kept in `file`.

    Images are on the unit scale.
    """
    network = unet()
    if file.is_file():
        network.load_state_dict(load_file(file))
        return network.eval()
    samples = recipe.data.open("train")
    low, high = recipe.view.bounds or (0.0, 1.0)
    order = Order(len(samples), recipe.train.batch, recipe.train.seed)
    shape = (samples.facts.channels, *samples.facts.size)
    physics = [replace(operator, seed=seed + 1).build(shape, sigma) for seed in range(MASKS)]
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS)
    began = time.perf_counter()
    for step in track(range(STEPS), "supervised U-Net"):
        x = (samples.read(order.ids(step)).x - low) / (high - low)
        loss = F.mse_loss(network(zero_filled(physics[step % MASKS], x)), x)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{STEPS}, loss {loss.item():.5f}, {time.perf_counter() - began:.0f} s", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), file)
    return network.eval()


def zero_filled(physics: deepinv.physics.LinearPhysics, x: Tensor) -> Tensor:
    """Images as their noisy measurements show them by themselves."""
    with torch.no_grad():
        return physics.A_adjoint(physics(x))


@dataclass(frozen=True)
class Pairs:
    """What is trained on pairs of MRI x4, once it is asked for, and kept in a folder."""

    runs: Path
    sigma: float

    @cache  # noqa: B019
    def unet(self, coils: int) -> nn.Module:
        """The U-Net for so many coils."""
        operator = MRI(acceleration=4, coils=coils)
        file = self.runs / f"unet-x4-coils-{coils}-width-{WIDTHS[0]}.safetensors"
        return supervised(brain_slices(), operator, self.sigma, file)

    @cached_property
    def told(self) -> Trained:
        """The DiT that is told of what was measured, and how long its training took."""
        return trained(brain_slices_mri(), self.runs / "brain-slices-mri")
