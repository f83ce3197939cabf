"""Volumes: crops of a brain, in voxels and in latents, beside crops of noise with the brain's values.

    python benchmarks/modalities_volumes.py [--only latent] [--gpu] [--runs FOLDER]

--only latent trains the autoencoder of volumes first; it is of a size for a CPU, and in no other table.
"""

from dataclasses import replace
from pathlib import Path

import torch
from modality import Trained, minutes, page, trained
from results import picture
from torch import Tensor

from anydit.codecs import Latents
from anydit.evaluate import distances
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import RandomNetwork, in_parts
from anydit.evaluate.own import own
from anydit.evaluate.sets import Sets, opened
from anydit.recipes.brain import brain, brain_codec, brain_gpu, brain_latent
from anydit.train.loop import train

SAMPLES, SHOWN = 512, 10
"""Crops that are drawn, and held-out ones that are compared with; those on the picture."""


BELOW = """\
Held-out crops are of the other half of the brain, which mirrors the one that is trained on: samples are nearer to the
latter than held-out crops can be. Samples, then held-out crops at places that mirror theirs; three planes each of T1,
grey matter and white matter:"""


def gaussian(sets: Sets) -> Tensor:
    """Noise with the training data's mean and deviation, by channel and place: what knows no shape."""
    some = sets.read_train(torch.arange(SAMPLES))
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(0))
    return (some.mean(0) + some.std(0) * noise).clamp(0, 255)


def crops(done: Trained, data: str, name: str) -> tuple[list[list[object]], str]:
    """The 3-D Fréchet distance, that of slices, and the picture `name`."""
    sets = opened(done.pipeline, done.recipe.data, SAMPLES)
    report = evaluate(done.pipeline, done.recipe.data, samples=SAMPLES)
    noise = gaussian(sets)
    trivial = own(sets.view, noise, sets).figures["slices"].samples
    reference = sets.read_train(torch.arange(len(sets.train)))
    space = RandomNetwork(reference[:: max(1, len(reference) // 2000)], torch.device("cpu"))
    whole = distances.frechet(distances.moments(in_parts(space, noise)), distances.moments(in_parts(space, reference)))
    which = "noise, each voxel's mean and deviation"
    data = f"{data}, 3 x {'x'.join(map(str, sets.train.facts.size))}"
    both = [("frechet", "3-D Fréchet distance", whole), ("slices", "Fréchet distance of slices", trivial)]
    of_all = [
        done.row("volume", data, title, report.figures[figure].samples, report.figures[figure].floor, other, which)
        for figure, title, other in both
    ]
    x = done.pipeline.sample(SHOWN, {"place": sets.real.tensor("place")[:SHOWN]})
    sheet = sets.view.picture(torch.cat([x, sets.real.x[:SHOWN]]), columns=SHOWN // 2)
    return of_all, f"{BELOW}\n\n{picture(name, sheet, 'crops of a brain')}"


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
