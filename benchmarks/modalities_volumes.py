"""Volumes: crops of a brain, beside crops of noise with the brain's values and of another crop's copy.

python benchmarks/modalities_volumes.py [--gpu] [--runs FOLDER]
"""

from pathlib import Path

import torch
from modality import page, trained
from results import picture
from torch import Tensor

from anydit.evaluate import distances
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import RandomNetwork, in_parts
from anydit.evaluate.own import own
from anydit.evaluate.sets import Sets, opened
from anydit.recipes.brain import brain, brain_gpu

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


def rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The rows of the table over all modalities: the 3-D Fréchet distance, and that of slices."""
    recipe = brain_gpu() if gpu else brain()
    done = trained(recipe, runs / ("brain-gpu" if gpu else "brain"))
    sets = opened(done.pipeline, recipe.data, SAMPLES)
    report = evaluate(done.pipeline, recipe.data, samples=SAMPLES)
    noise = gaussian(sets)
    trivial = own(sets.view, noise, sets).figures["slices"].samples
    reference = sets.read_train(torch.arange(len(sets.train)))
    space = RandomNetwork(reference[:: max(1, len(reference) // 2000)], torch.device("cpu"))
    whole = distances.frechet(distances.moments(in_parts(space, noise)), distances.moments(in_parts(space, reference)))
    which = "noise, each voxel's mean and deviation"
    size = "x".join(map(str, done.pipeline.config.model.size or ()))
    both = [("frechet", "3-D Fréchet distance", whole), ("slices", "Fréchet distance of slices", trivial)]
    data = f"MNI152, 3 x {size}"
    of_all = [
        done.row("volume", data, title, report.figures[name].samples, report.figures[name].floor, other, which)
        for name, title, other in both
    ]
    x = done.pipeline.sample(SHOWN, {"place": sets.real.tensor("place")[:SHOWN]})
    sheet = sets.view.picture(torch.cat([x, sets.real.x[:SHOWN]]), columns=SHOWN // 2)
    return of_all, f"{BELOW}\n\n{picture('volumes-gpu' if gpu else 'volumes', sheet, 'crops of a brain')}"


if __name__ == "__main__":
    page("volumes", "Volumes: crops of a brain", __doc__, rows)
