"""Whole volumes reconstructed along all three axes, with priors in voxels and in the latents of an autoencoder.

    python benchmarks/reconstruct_whole.py [--runs FOLDER] [--again METHOD ...]

The crops are of one template, MNI152, T1 alone: of its left half to train on, and of its right to be reconstructed.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import log
from pathlib import Path

import torch
from modality import THREADS, Trained, machine, minutes, trained
from reconstruct import FOUND, HEAD, PROBLEMS, SIGMA, WITHOUT_MODEL, Problem, beside, ours, posed
from results import Kept, options, picture, publish, table
from torch import Tensor

from anydit.codecs import Latents
from anydit.data import MNI152, Data
from anydit.diffusion.multistep import SDE
from anydit.diffusion.predictions import V
from anydit.diffusion.times import LogSNR
from anydit.inference.config import Sampling
from anydit.inverse.corrections import DAPS, MomentMatching, Proximal
from anydit.inverse.operators import Operator, SuperResolution
from anydit.recipes.brain import brain, brain_codec, brain_latent
from anydit.train.loop import train
from anydit.train.recipe import Recipe

COUNT, SHOWN, STEPS = 4, 2, 25
"""Crops that are reconstructed, those on the picture, and steps of a sample."""

SAMPLING = Sampling(sampler=SDE(), steps=STEPS, grid=LogSNR(low=log(1 / 20), high=log(1 / SIGMA)))

OPERATORS: dict[str, Operator] = {**PROBLEMS, "super-resolution x2": SuperResolution(factor=2)}

CASES = {
    "voxels": ("MRI x4", "inpainting 70 %", "super-resolution x2"),
    "latents": ("MRI x4", "inpainting 70 %", "super-resolution x4"),
}
"""What is measured of the crops of each kind of prior."""

ABOUT = f"""\
{COUNT} crops of a brain, 64 mm along each edge, of the half that no training saw: 16x16x16 voxels at 4 mm for the prior
in voxels (recipe `brain`, {{voxels:.0f}} minutes of training), 32x32x32 at 2 mm for that in latents (`brain-latent`,
{{latents:.0f}} minutes, after {{codec:.0f}} of its autoencoder, `brain-codec`). Both learned T1 alone, by predicting v,
and are told where a crop is from. MRI leaves out planes of k-space. Noise: {SIGMA:g} of white. Total variation has the
weight that comes nearest to the truth. SSIM is of planes. Calls are of the network, those for all samples of a mean
together; moment matching takes {MomentMatching().iterations} gradients more for each. The residual of a mean is not
that of its samples, which have 1. Back and forth: the truth through the autoencoder alone, no measurement."""

SHEETS = "Three planes of crops: measured, by total variation, the mean of 8 samples of moment matching, truth."


@dataclass(frozen=True)
class Prior:
    """A model of crops, and those that it is tried on, with what is told of them."""

    name: str
    done: Trained
    truth: Tensor
    place: Tensor

    @classmethod
    def of(cls, name: str, recipe: Recipe, out: Path) -> "Prior":
        """Train it, or take what is there."""
        samples = recipe.data.open("held_out")
        batch = samples.read(torch.linspace(0, len(samples) - 1, COUNT).round().long())
        return cls(name, trained(recipe, out), batch.x, batch.tensor("place"))

    def posed(self, problem: str, count: int = COUNT) -> Problem:
        """One of the problems, of so many crops, measured."""
        return posed(self.done.pipeline, self.truth[:count], problem, OPERATORS[problem], {"place": self.place[:count]})

    def methods(self) -> dict[str, Callable[[Problem], FOUND]]:
        """What is tried, by the name that the table has."""
        own, codec = partial(partial, ours, self.done.pipeline), self.done.pipeline.codec

        def back(problem: Problem) -> FOUND:
            with torch.no_grad():
                return codec.decode(codec.encode(problem.truth)), 0

        return {
            **WITHOUT_MODEL,
            **({"back and forth": back} if self.name == "latents" else {}),
            "Proximal, a sample": own(Proximal(), STEPS, 1),
            "DAPS, a sample": own(DAPS(), STEPS, 1),
            "DAPS, mean of 8": own(DAPS(), STEPS, 8),
            "MomentMatching, a sample": own(MomentMatching(), STEPS, 1),
            "MomentMatching, mean of 8": own(MomentMatching(), STEPS, 8),
        }

    def rows(self, kept: Kept) -> list[list[object]]:
        """All that is tried on all problems."""
        found = list[list[object]]()
        for problem in CASES[self.name]:
            posed_once = self.posed(problem)
            for method, find in self.methods().items():
                row = partial(posed_once.figures, method, find)
                found.append(kept.row(f"{self.name}, {problem}", method, row))
        return found

    def sheet(self) -> str:
        """Two crops of each problem, three planes of each."""
        sheet = beside(self.done.pipeline, [self.posed(name, SHOWN) for name in CASES[self.name]], columns=4)
        return picture(f"reconstruct_whole-{self.name}", sheet, f"crops of a brain, by a prior in {self.name}")


def t1(data: Data) -> MNI152:
    """The recipes' data without tissues: T1 alone, which a scanner measures."""
    assert isinstance(data, MNI152)
    return replace(data, channels=("t1",))


def priors(runs: Path) -> tuple[list[Prior], float]:
    """Those in voxels and in latents, and how many minutes the autoencoder took."""
    of_codec, in_voxels, in_latents = brain_codec(), brain(), brain_latent()
    codec = runs / "brain-codec-t1"
    train(replace(of_codec, data=t1(of_codec.data)), codec)
    voxels = replace(in_voxels, data=t1(in_voxels.data), prediction=V(), sampling=SAMPLING)
    latents = replace(
        in_latents, data=t1(in_latents.data), codec=Latents(path=codec), prediction=V(), sampling=SAMPLING
    )
    return [
        Prior.of("voxels", voxels, runs / "brain-t1"),
        Prior.of("latents", latents, runs / "brain-latent-t1"),
    ], minutes(codec)


def main() -> None:
    """The page, of rows that were found before and of those that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    known = parser.parse_args()
    both, codec = priors(known.runs)
    kept = Kept.of(known.runs / "reconstruct-whole.json", known.again)
    rows = [row for prior in both for row in prior.rows(kept)]
    about = ABOUT.format(codec=codec, **{prior.name: prior.done.minutes for prior in both})
    parts = [about, table(HEAD, rows), SHEETS, *(prior.sheet() for prior in both), machine(THREADS)]
    publish("reconstruct_whole", "Whole volumes, and priors in latents", "\n\n".join(parts))


if __name__ == "__main__":
    main()
