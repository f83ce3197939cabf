"""The latent cache: a training step that reads latents from the mapped file, from tensors in memory, or encodes them.

    python benchmarks/latent_cache.py

The data are random latents of images of 256x256 (4 channels of 32x32); the model is a small DiT. The ways of reading
take turns, round after round, so that a machine whose speed drifts is fair to all; medians, by the wall's clock and by
the processor's, which does not count what else runs on the machine. Encoding is by an autoencoder with random weights,
small for a CPU, and only to show what a cache saves.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch
from results import publish, table
from torch import Tensor

from anydit.codecs import Codec, KLAutoencoder, Normalize
from anydit.data import ArraySamples, Facts, Samples
from anydit.data.loader import Order, read_ahead
from anydit.diffusion.losses import Objective
from anydit.diffusion.paths import Linear
from anydit.diffusion.predictions import Velocity
from anydit.inference.device import find_device
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.tensors import Batch, Tokens, select
from anydit.train.config import TrainConfig
from anydit.train.latents import Cached, Encoding
from anydit.train.step import TrainStep

CODEC = KLAutoencoder(
    widths=(16, 16, 32, 32), latent=4, blocks=1, groups=8, attention=False, channels=3, axes=2,
    units=Normalize.to_unit(0, 255),
)  # fmt: skip


@dataclass(frozen=True)
class InMemory:
    """Samples that are tensors in memory."""

    x: Tensor
    facts: Facts
    cond: Mapping[str, Tensor | Tokens]

    def __len__(self) -> int:
        return len(self.x)

    def read(self, ids: Tensor) -> Batch:
        """The samples of these ids."""
        return Batch(self.x[ids], select(self.cond, ids), ids)


@dataclass
class Reader:
    """One way to read: its batches, the codec of its step, and the seconds that each step took, by both clocks."""

    name: str
    batches: Iterator[Batch]
    codec: Codec
    wall: list[float] = field(default_factory=list[float])
    processor: list[float] = field(default_factory=list[float])


def main() -> None:
    """Take turns, publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5, help="of each way in a round")
    arguments = parser.parse_args()
    device, random = find_device(), np.random.default_rng(0)
    pixels = random.integers(0, 256, (arguments.images, 3, 256, 256), np.uint8)
    labels = torch.from_numpy(random.integers(0, 10, arguments.images))
    live = ArraySamples(pixels, Facts(3, (256, 256), {"label": tuple("0123456789")}), {"label": labels})
    torch.manual_seed(0)
    codec = CODEC.build().to(device).frozen()
    identity = Normalize((0.0,), (1.0,)).build()
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", {"ANYDIT_CACHE": folder}):
        encoding = Encoding(live, CODEC, codec, device)
        began = time.perf_counter()
        cached, _ = Cached().opened(encoding)
        encoded = time.perf_counter() - began
        halves, _ = Cached(half=True).opened(encoding)
        everything = cached.read(torch.arange(len(cached)))
        memory: Samples = InMemory(everything.x.clone(), cached.facts, {"label": labels})
        bytes_on_disk = sum(file.stat().st_size for file in Path(folder).rglob("latents.npy"))
        ways = [("tensors in memory", memory, identity), ("mapped file", cached, identity)]
        ways += [("mapped file, 16 bits", halves, identity), ("encoded with each batch", live, codec)]
        order = Order(arguments.images, arguments.batch, 0)
        readers = [Reader(name, read_ahead(some, order, 0), by) for name, some, by in ways]
        config = DiTConfig(
            width=192, depth=6, heads=6, patch=(4, 4), channels=4, size=(32, 32), conditions={"label": Label(10)}
        )
        measure(readers, config, arguments.batch, arguments.rounds, arguments.steps, device)
        for reader in readers:
            reader.batches.close()  # type: ignore[attr-defined]
    wall, processor = [median(r.wall) for r in readers], [median(r.processor) for r in readers]
    rows = [
        [r.name, 1e3 * a, a / wall[0], 1e3 * b, b / processor[0]]
        for r, a, b in zip(readers, wall, processor, strict=True)
    ]
    note = (
        f"{arguments.images} images of 256x256, batches of {arguments.batch}; {arguments.rounds} rounds of "
        f"{arguments.steps} steps each. Encoding them took {encoded:.0f} s; both files together have "
        f"{bytes_on_disk / 2**20:.0f} MiB."
    )
    head = ["latents", "ms a step", "ratio", "processor's ms", "ratio"]
    publish("latent_cache", "The latent cache", f"{table(head, rows)}\n\n{note}")


def measure(
    readers: list[Reader], config: DiTConfig, batch: int, rounds: int, steps: int, device: torch.device
) -> None:
    """Let the readers take turns with a training step of one model."""
    model = DiT(config).to(device)
    train = TrainConfig(batch=batch)
    step = TrainStep(model, readers[0].codec, Objective(Linear(), Velocity()), train, torch.arange(batch))
    for number in range(rounds + 1):
        for reader in readers:
            step.codec = reader.codec
            for _ in range(steps):
                began = time.perf_counter(), time.process_time()
                step(next(reader.batches).to(device), number)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    reader.wall.append(time.perf_counter() - began[0])
                    reader.processor.append(time.process_time() - began[1])


if __name__ == "__main__":
    main()
