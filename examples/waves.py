"""Data of your own, of a kind that anydit does not know: one-dimensional waves, made to a frequency that is asked for.

python examples/waves.py [FOLDER]    a quarter of a minute on a CPU

What is new is a class that reads the data. The network, the training and the samplers stay as they are.
"""

import math
import sys
import tempfile
from pathlib import Path

import torch

import anydit
from anydit import DiTConfig, Numbers, Recipe, TrainConfig
from anydit.config import config
from anydit.data import ArraySamples, ArrayView, Data, Facts, Part, Samples
from anydit.train.loop import train
from anydit.train.optim import AdamW, LinearDecay

LENGTH = 32


@config
class Waves(Data):
    """Waves of 1 to 6 turns over `LENGTH` values, with random phase; the number of turns is known."""

    count: int = 4096

    def open(self, part: Part) -> Samples:
        random = torch.Generator().manual_seed(0 if part == "train" else 1)
        turns = 1 + 5 * torch.rand(self.count, 1, generator=random)
        phase = torch.rand(self.count, 1, generator=random)
        x = torch.sin(2 * math.pi * (turns * torch.arange(LENGTH) / LENGTH + phase))
        facts = Facts(channels=1, size=(LENGTH,), numbers={"turns": ("turns",)})
        return ArraySamples(x[:, None].numpy(), facts, {"turns": turns})


def waves() -> Recipe:
    """`anydit train examples/waves.py:waves` works too."""
    return Recipe(
        model=DiTConfig(width=64, depth=3, heads=4, patch=(4,), conditions={"turns": Numbers()}),
        view=ArrayView(low=-1, high=1),
        data=Waves(),
        train=TrainConfig(
            steps=600, batch=64, optimizer=AdamW(lr=2e-3), schedule=LinearDecay(warmup=50), ema_decay=0.99
        ),
    )


def turns_of(x: torch.Tensor) -> torch.Tensor:
    """The frequency at which a wave's spectrum is highest, between 0 and half of `LENGTH` turns."""
    window = torch.hann_window(LENGTH, periodic=False)
    return torch.fft.rfft(x[:, 0] * window, n=16 * LENGTH).abs().argmax(1) / 16


def main(folder: Path) -> None:
    """Train, then ask for frequencies and measure what comes."""
    train(waves(), folder)
    pipe = anydit.load(folder)
    worst = 0.0
    for asked in (2.0, 3.5, 5.0):
        got = turns_of(pipe.sample(32, {"turns": asked}))
        print(f"asked for {asked} turns, got {got.mean():.2f}, between {got.min():.2f} and {got.max():.2f}")
        worst = max(worst, abs(float(got.mean()) - asked))
    print(f"The run is {folder}; {folder}/samples.png shows each wave as a row of pixels.")
    assert worst < 0.5, "waves have the frequency that was asked for"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "waves")
