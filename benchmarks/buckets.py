"""Buckets of aspect against one size for all: what is cut, what is bars, and how many images a second are trained on.

    python benchmarks/buckets.py

The images are the handwritten digits of scikit-learn, drawn in colour on sheets of three aspects, as cameras have them:
2:3, 1:1 and 3:2, each off by up to 5 %. The ways of fitting them take turns, round after round, so that a machine whose
speed drifts is fair to all; times are the processor's, which does not count what else runs on the machine.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from results import publish, table
from sklearn.datasets import load_digits

from anydit.codecs import Normalize
from anydit.data import Aspects, Crop, ImageFolder, Pad
from anydit.data.buckets import by_size
from anydit.data.images.aspects import nearest, share_off
from anydit.data.loader import order_of, read_ahead
from anydit.diffusion.losses import Objective
from anydit.diffusion.paths import Linear
from anydit.diffusion.predictions import Velocity
from anydit.inference.device import find_device
from anydit.model.dit import DiT, DiTConfig
from anydit.model.tokens import Rope
from anydit.tensors import Batch
from anydit.train.config import TrainConfig
from anydit.train.step import TrainStep

AREA, PATCH = 64 * 64, 4
"""Pixels of an image, and the side of a patch."""


@dataclass
class Way:
    """One way to fit images: its data, and the processor's seconds of each round."""

    name: str
    data: ImageFolder
    off: float
    tokens: float
    sizes: str
    batches: Iterator[Batch]
    seconds: list[float] = field(default_factory=list[float])


def main() -> None:
    """Take turns, publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="of each way in a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", {"ANYDIT_CACHE": f"{folder}/cache"}):
        images = drawn(Path(folder) / "images", arguments.images)
        largest = -(-max(max(size) for size in images) // 8) * 8
        plain = ImageFolder(path=Path(folder) / "images", held_out=0, size=(64, 64))
        choices = {
            "padded to one size": replace(plain, size=(largest, largest), fit=Pad()),
            "cropped to one size": replace(plain, fit=Crop()),
            "in buckets of 8": replace(plain, buckets=Aspects()),
            "in buckets of 4": replace(plain, buckets=Aspects(multiple=4)),
        }
        ways = [opened(name, data, images, arguments.batch) for name, data in choices.items()]
        measure(ways, arguments.batch, arguments.rounds, arguments.steps)
        for way in ways:
            way.batches.close()  # type: ignore[attr-defined]
    rates = [arguments.steps * arguments.batch / median(way.seconds) for way in ways]
    rows = [
        [
            way.name,
            way.sizes,
            round(way.tokens),
            round(100 * way.off) if isinstance(way.data.fit, Pad) else 0,
            round(100 * way.off) if isinstance(way.data.fit, Crop) else 0,
            rate,
            rate / rates[0],
        ]
        for way, rate in zip(ways, rates, strict=True)
    ]
    head = ["images are", "sizes", "tokens", "bars, %", "cut, %", "images/s", "ratio"]
    note = (
        f"{arguments.images} images of about {AREA} pixels, in patches of {PATCH}x{PATCH}; a DiT of width 128 and "
        f"depth 4, batches of {arguments.batch}. Tokens, bars (of a sample's area) and what is cut (of an image's) are "
        f"means over all images; images a second are by the processor's clock, the median of {arguments.rounds} rounds "
        f"of {arguments.steps} steps. The sides of buckets are multiples of 8 (the default) or of 4: the finer, the "
        "less is cut."
    )
    publish("buckets", "Images of several aspects", f"{table(head, rows)}\n\n{note}")


def drawn(root: Path, n: int) -> list[tuple[int, int]]:
    """Write digits on sheets of three aspects; returns each one's height and width."""
    random, digits = np.random.default_rng(0), load_digits().images
    root.mkdir(parents=True)
    sizes = list[tuple[int, int]]()
    for i in range(n):
        aspect = (2 / 3, 1.0, 3 / 2)[i % 3] * random.uniform(0.95, 1.05)
        high, wide = round((AREA * aspect) ** 0.5), round((AREA / aspect) ** 0.5)
        pixels = (255 - digits[i % len(digits)] * 15).astype(np.uint8)
        side = min(high, wide) * 3 // 4
        sheet = Image.new("RGB", (wide, high), tuple(int(v) for v in random.integers(160, 256, 3)))
        at = (int(random.integers(0, wide - side)), int(random.integers(0, high - side)))
        sheet.paste(Image.fromarray(pixels).resize((side, side)), at)
        sheet.save(root / f"{i:05d}.png")
        sizes.append((high, wide))
    return sizes


def opened(name: str, data: ImageFolder, images: list[tuple[int, int]], batch: int) -> Way:
    """What becomes of the images, and their batches."""
    samples = data.open("train")
    parts = by_size(samples)
    tokens = sum(len(part) * part.facts.size[0] * part.facts.size[1] for part in parts) / len(samples) / PATCH**2
    off = fmean(share_off(image, data.sizes[nearest(image, data.sizes)]) for image in images)
    sizes = f"{len(parts)}" if len(parts) > 1 else "x".join(map(str, parts[0].facts.size))
    return Way(name, data, off, tokens, sizes, read_ahead(samples, order_of(samples, batch, 0), 0))


def measure(ways: list[Way], batch: int, rounds: int, steps: int) -> None:
    """Let the ways take turns with a training step of one model."""
    device = find_device()
    config = DiTConfig(
        width=128, depth=4, heads=4, patch=(PATCH, PATCH), channels=3, size=(64, 64), position=Rope()
    )  # fmt: skip
    codec = Normalize.to_unit(0, 1).build()
    step = TrainStep(
        DiT(config).to(device), codec, Objective(Linear(), Velocity()), TrainConfig(batch=batch), torch.arange(batch)
    )
    for number in range(rounds + 1):
        for way in ways:
            began = time.process_time()
            for _ in range(steps):
                step(next(way.batches).to(device), number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                way.seconds.append(time.process_time() - began)


if __name__ == "__main__":
    main()
