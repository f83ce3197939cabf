"""Volumes: crops of a brain, in voxels and in latents, beside crops of noise with the brain's values.

    python benchmarks/modalities_volumes.py [--only latent] [--gpu] [--runs FOLDER]

--only latent trains the autoencoder of volumes first; it is of a size for a CPU, and in no other table.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from modality import Trained, minutes, page, trained
from results import picture, table
from torch import Tensor

from anydit.codecs import Latents
from anydit.evaluate import distances
from anydit.evaluate.evaluate import Report, evaluate
from anydit.evaluate.features import RandomNetwork, in_parts
from anydit.evaluate.own import own
from anydit.evaluate.sets import Sets, opened
from anydit.recipes.brain import brain, brain_codec, brain_gpu, brain_latent
from anydit.train.loop import train

SAMPLES, SHOWN = 512, 10
"""Crops that are drawn, and held-out ones that are compared with; those on the picture."""


NOISE = "noise, each voxel's mean and deviation"
BELOW = """\
Held-out crops are of the other half of the brain, which mirrors the one that is trained on: samples are nearer to the
latter than held-out crops can be, and being unusually near (nearer than the nearest 1 % of held-out crops) is no copy
yet. Samples, then held-out crops at places that mirror theirs; three planes each of T1,
grey matter and white matter:"""


def gaussian(sets: Sets) -> Tensor:
    """Noise with the training data's mean and deviation, by channel and place: what knows no shape."""
    some = sets.read_train(torch.arange(SAMPLES))
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(0))
    return (some.mean(0) + some.std(0) * noise).clamp(0, 255)


def crops(done: Trained, data: str, name: str) -> tuple[list[list[object]], str]:
    """The 3-D Fréchet distance, that of slices, and copies; below them all figures, and the pictures `name`."""
    sets = opened(done.pipeline, done.recipe.data, SAMPLES)
    report = evaluate(done.pipeline, done.recipe.data, samples=SAMPLES)
    noise = gaussian(sets)
    trivial = {figure: each.samples for figure, each in own(sets.view, noise, sets).figures.items()}
    reference = sets.read_train(torch.arange(len(sets.train)))
    space = RandomNetwork(reference[:: max(1, len(reference) // 2000)], torch.device("cpu"))
    trivial["frechet"] = distances.frechet(*(distances.moments(in_parts(space, x)) for x in (noise, reference)))
    data = f"{data}, 3 x {'x'.join(map(str, sets.train.facts.size))}"
    named = [("frechet", "3-D Fréchet distance", trivial["frechet"], NOISE),
             ("slices", "Fréchet distance of slices", trivial["slices"], NOISE),
             ("copies", "share unusually near to a crop of training", 1.0, "nearest copy")]  # fmt: skip
    of_all = [
        done.row("volume", data, title, report.figures[figure].samples, report.figures[figure].floor, other, which)
        for figure, title, other, which in named
    ]
    return of_all, "\n\n".join([BELOW, _sheet(done, sets, name), *_values(report, trivial, name)])


def _sheet(done: Trained, sets: Sets, name: str) -> str:
    """The picture of samples and held-out crops."""
    x = done.pipeline.sample(SHOWN, {"place": sets.real.tensor("place")[:SHOWN]})
    sheet = sets.view.picture(torch.cat([x, sets.real.x[:SHOWN]]), columns=SHOWN // 2)
    return picture(name, sheet, "crops of a brain")


def _values(report: Report, trivial: Mapping[str, float], name: str) -> list[str]:
    """The figures of values and of steps between them, and the histograms of values."""
    lines = [[each.title, each.samples, each.floor, trivial[figure]] for figure, each in report.figures.items()
             if figure.startswith("values_") or figure == "steps"]  # fmt: skip
    distance = "distance between distributions, in deviations"
    plot = report.pictures["Values, by channel"]
    what = "The share of voxels at each value, of samples, held-out and training data:"
    return [table([distance, "samples", "held-out", NOISE], lines), what,
            picture(f"{name}-values", plot, "histograms of the values of each channel")]  # fmt: skip


def rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The rows of the table over all modalities."""
    done = trained(brain_gpu(), runs / "brain-gpu") if gpu else trained(brain(), runs / "brain")
    return crops(done, "MNI152", "volumes-gpu" if gpu else "volumes")


def in_latents(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """Crops twice as fine, in the latents of an autoencoder of volumes."""
    folder = runs / "brain-codec"
    codec = train(brain_codec(), folder)
    done = trained(replace(brain_latent(), codec=Latents(path=folder)), runs / "brain-latent")
    of_all, below = crops(done, "MNI152 in latents", "volumes-latent")
    parameters = sum(p.numel() for p in codec.parameters()) / 1e6
    before = f"Before that, the autoencoder ({parameters:.1f} M parameters) took {minutes(folder):.1f} minutes."
    return of_all, f"{before}\n\n{below}"


if __name__ == "__main__":
    page("volumes", "Volumes: crops of a brain", __doc__, rows, {"latent": in_latents})
