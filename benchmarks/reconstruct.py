"""Reconstruction with a DiT as the prior, beside what needs none, networks trained for it, and deepinv's algorithms.

    python benchmarks/reconstruct.py [--runs FOLDER] [--only PROBLEM ...] [--again METHOD ...]

The slices are of one template, MNI152: bands of 12 mm of it are held out, and of these the middle is reconstructed.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import deepinv
import numpy as np
import torch
from modality import Trained, trained
from PIL import Image
from results import Kept, options, picture, publish, table
from supervised import STEPS, Pairs, unet
from torch import Tensor, nn

from anydit.data import Bands, Data, Slices
from anydit.inference.conditions import Given
from anydit.inference.pipeline import Pipeline
from anydit.inverse.adapter import as_deepinv
from anydit.inverse.classical import least_variation, plainly
from anydit.inverse.corrections import DAPS, AnyCorrection, Conditional, MomentMatching, Proximal
from anydit.inverse.measurement import Measurement, checked
from anydit.inverse.operators import CT, MRI, Deblurring, Inpainting, Operator, SuperResolution
from anydit.inverse.reconstruct import reconstruct
from anydit.recipes.slices import brain_slices
from anydit.train.recipe import Recipe

SIGMA = 0.01
"""Deviation of the noise on every measurement, where black is 0 and white is 1."""

COUNT = 4
"""Held-out slices that are reconstructed."""

PRIOR = "brain-slices"
"""The folder of its run, among those that are kept."""

WEIGHTS = (0.03, 0.1, 0.3, 1.0)
"""Of total variation, in deviations of the noise: the table has the one that comes nearest to the truth."""

HEAD = ["problem", "method", "PSNR, dB", "SSIM", "residual", "calls", "seconds"]
"""`residual`: in deviations of the noise, 1 is right. `calls` of the network and `seconds`: of one reconstruction."""

PROBLEMS: dict[str, Operator] = {
    "MRI x4": MRI(acceleration=4),
    "MRI x8": MRI(acceleration=8),
    "MRI x4, 4 coils": MRI(acceleration=4, coils=4),
    "MRI x8, 4 coils": MRI(acceleration=8, coils=4),
    "CT, 30 views": CT(views=30),
    "CT, 60 views": CT(views=60),
    "inpainting 70 %": Inpainting(known=0.3),
    "super-resolution x4": SuperResolution(factor=4),
    "deblurring": Deblurring(width=1.5),
}

SHOWN = ("MRI x4", "MRI x8", "CT, 30 views", "inpainting 70 %")
"""Problems on the picture."""

UNSURE = ("MRI x4, 4 coils", "MRI x8, 4 coils", "CT, 30 views", "CT, 60 views")
"""Problems whose mean takes more samples to settle."""

DPS_WEIGHTS = (20.0, 80.0, 300.0)
"""Of deepinv's DPS, whose own of 1 leaves the measurement aside here: the table has the one nearest to the truth."""

ABOUT = """\
Slices are of one template, the MNI152 brain at 4 mm: training saw bands of it 24 mm wide, and what is reconstructed
lies in the middle of the 8 mm between. The prior ({prior:.1f} M parameters) trained for {minutes:.0f} minutes of one
thread beside other work. Trained on pairs of MRI x4 with many masks: U-Nets ({unet:.1f} M), for one coil and for four,
in {steps} batches of 16; and the prior's network, told of the zero-filled image (recipe `brain-slices-mri`), in as many
batches as the prior. Noise: {sigma:g} of white.
Calls are of the network, those for all samples of a mean together; moment matching takes {gradients} gradients more
for each. Total variation and deepinv's DPS have the weight that comes nearest to the truth; their seconds are of all
that were tried. The eigenvectors of CT and of coils are found before, once for all, in about 3 s. Seconds are of the
clock, beside other work on the machine. The residual of a mean is not that of its samples, which have 1."""

SURE = "How often the truth lies in the intervals that samples tell: [another page](reconstruct_calibration.md)."

FOUND = tuple[Tensor, int]
"""Images on the data's own scale, and the network calls that each took."""


@dataclass(frozen=True)
class Problem:
    """Truth, what was measured of it and what is told of it, and a method's answer put beside the truth."""

    name: str
    truth: Tensor
    measured: Measurement
    cond: Mapping[str, Given]

    def figures(self, method: str, find: Callable[["Problem"], FOUND]) -> list[object]:
        """A method's, in the table; `find` is timed."""
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deepinv's own deprecations
            x, calls = find(self)
        seconds = (time.perf_counter() - began) / len(x)
        unit, truth = (self.measured.unit(one).clamp(0, 1) for one in (x, self.truth))
        psnr = float(deepinv.metric.PSNR()(unit, truth).mean())
        ssim = float(deepinv.metric.SSIM()(in_planes(unit), in_planes(truth)).mean())
        row = [psnr, ssim, float(self.measured.residual(x).mean()), calls, seconds]
        shown = (f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row)
        print(self.name, method, *shown, sep=" | ", flush=True)
        return row


def in_planes(x: Tensor) -> Tensor:
    """Images as they are, and volumes plane by plane."""
    return x if x.ndim == 4 else x.transpose(1, 2).flatten(0, 1)


def variation(problem: Problem) -> FOUND:
    """The least total variation by deepinv's operators, with the weight that is best for these very slices."""
    found = [least_variation(problem.measured, (weight,)) for weight in WEIGHTS]
    return min(found, key=lambda x: float((x - problem.truth).square().mean())), 0


WITHOUT_MODEL: dict[str, Callable[[Problem], FOUND]] = {
    "measured": lambda problem: (plainly(problem.measured), 0),
    "total variation, best weight": variation,
}
"""What no training is needed for, by the name that tables have."""


def ours(pipeline: Pipeline, how: AnyCorrection, steps: int, samples: int, problem: Problem) -> FOUND:
    """The mean of some samples of the posterior."""
    measured = problem.measured
    sampling = replace(pipeline.config.sampling, steps=steps)
    found = reconstruct(
        pipeline, measured.y, measured.physics, problem.cond, how=how, samples=samples, sigma=SIGMA, sampling=sampling
    )
    return found.mean, found.calls * samples


def theirs(algorithm: str, pipeline: Pipeline, calls: int, problem: Problem) -> FOUND:
    """One of deepinv's algorithms with our network as its denoiser."""
    denoiser, l2 = as_deepinv(pipeline), deepinv.optim.data_fidelity.L2()
    physics = problem.measured.physics
    if algorithm == "DiffPIR":
        model = deepinv.sampling.DiffPIR(denoiser, l2, sigma=SIGMA, max_iter=calls)
    elif algorithm == "DDRM":
        model = deepinv.sampling.DDRM(denoiser, sigmas=np.linspace(1, 0, calls + 1))
    else:
        model = deepinv.sampling.DPS(denoiser, num_steps=calls, dtype=torch.float32, weight=float(algorithm[4:]))
    torch.manual_seed(0)
    with torch.no_grad():
        return problem.measured.own(model(problem.measured.y, physics)), calls


def their_dps(pipeline: Pipeline, calls: int, problem: Problem) -> FOUND:
    """Deepinv's DPS with the weight that is best for these very slices."""
    found = [theirs(f"DPS {weight}", pipeline, calls, problem)[0].nan_to_num() for weight in DPS_WEIGHTS]
    return min(found, key=lambda x: float((x - problem.truth).square().mean())), calls


def by_unet(network: nn.Module, problem: Problem) -> FOUND:
    """The answer of a network that was trained on pairs."""
    with torch.no_grad():
        plain = problem.measured.linear.A_adjoint(problem.measured.y)
        return problem.measured.own(network(plain)), 1


def methods(name: str, pipeline: Pipeline, pairs: Pairs) -> dict[str, Callable[[Problem], FOUND]]:
    """What is tried on a problem, by the name that the table has."""
    own, operator = partial(partial, ours, pipeline), PROBLEMS[name]
    found = dict(WITHOUT_MODEL)
    if isinstance(operator, MRI):
        found["U-Net as large, trained on x4"] = partial(by_unet, pairs.unet(operator.coils))
    if isinstance(operator, MRI) and operator.coils == 1:
        told = partial(partial, ours, pairs.told.pipeline, Conditional(), 25)
        found |= {"DiT told, trained on x4, a sample": told(1), "DiT told, trained on x4, mean of 8": told(8)}
    found["deepinv's DiffPIR"] = partial(theirs, "DiffPIR", pipeline, 100)
    if name in ("inpainting 70 %", "deblurring"):
        found["deepinv's DDRM"] = partial(theirs, "DDRM", pipeline, 100)
    found["deepinv's DPS, best weight"] = partial(their_dps, pipeline, 100)
    many = {"DAPS, mean of 24": own(DAPS(), 50, 24)} if name in UNSURE else {}
    return found | {
        "Proximal, a sample": own(Proximal(), 50, 1),
        "DAPS, a sample": own(DAPS(), 50, 1),
        "DAPS, mean of 4, in 12 steps each": own(DAPS(), 12, 4),
        "DAPS, mean of 8": own(DAPS(), 50, 8),
        "MomentMatching, a sample": own(MomentMatching(), 25, 1),
        "MomentMatching, mean of 2": own(MomentMatching(), 25, 2),
        "MomentMatching, mean of 8": own(MomentMatching(), 25, 8),
        **many,
    }


def held_out(data: Data, count: int) -> Tensor:
    """So many slices in the middle of held-out bands, evenly spread."""
    assert isinstance(data, Slices)
    samples, bands = data.open("held_out"), data.held_out
    assert isinstance(bands, Bands)
    middle = [i for i, (_, _, k) in enumerate(samples.places) if bands.middle(k)]
    at = torch.linspace(0, len(middle) - 1, count).round().long()
    return samples.read(torch.tensor(middle)[at]).x


def posed(
    pipeline: Pipeline, truth: Tensor, name: str, operator: Operator, cond: Mapping[str, Given] = MappingProxyType({})
) -> Problem:
    """A problem, measured by the operator."""
    shape, bounds = tuple(truth.shape[1:]), pipeline.config.view.bounds
    low, high = bounds or (0.0, 1.0)
    physics = operator.build(shape, SIGMA)
    physics.prox_l2(truth, physics.A(truth), 1.0)  # finds the eigenvectors, once for all
    measured = checked(physics((truth - low) / (high - low)), physics, SIGMA, shape, bounds)
    return Problem(name, truth, measured, cond)


def problem_rows(pipeline: Pipeline, truth: Tensor, name: str, pairs: Pairs, kept: Kept) -> list[list[object]]:
    """All that is tried on a problem."""
    problem = posed(pipeline, truth, name, PROBLEMS[name])
    return [
        kept.row(name, method, partial(problem.figures, method, find))
        for method, find in methods(name, pipeline, pairs).items()
    ]


def beside(pipeline: Pipeline, problems: Sequence[Problem], columns: int) -> Image.Image:
    """All samples of each problem: measured, total variation, the mean of 8 of moment matching, truth."""
    rows, captions = list[Tensor](), list[str]()
    for problem in problems:
        mean, _ = ours(pipeline, MomentMatching(), 25, 8, problem)
        shown = [plainly(problem.measured), variation(problem)[0], mean, problem.truth]
        rows += torch.stack(shown, 1).flatten(0, 1).split(1)
        captions += len(problem.truth) * [problem.name, "total variation", "mean of 8", "truth"]
    return pipeline.config.view.picture(torch.cat(rows), captions, columns=columns)


def asked() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    every = [*PROBLEMS]
    told = f"of {', '.join(every)}".replace("%", "%%")
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="PROBLEM", help=told)
    return parser.parse_args()


def compared(known: argparse.Namespace, recipe: Recipe, done: Trained) -> str:
    """The page of problems: what each method makes of them, and a picture."""
    truth, pipeline = held_out(recipe.data, COUNT), done.pipeline
    pairs = Pairs(known.runs, SIGMA)
    kept = Kept.of(known.runs / "reconstruct.json", known.again)
    rows = [row for name in PROBLEMS if name in known.only for row in problem_rows(pipeline, truth, name, pairs, kept)]
    prior, other = (sum(p.numel() for p in one.parameters()) / 1e6 for one in (pipeline.model, unet()))
    gradients = MomentMatching().iterations
    about = ABOUT.format(minutes=done.minutes, steps=STEPS, sigma=SIGMA, gradients=gradients, prior=prior, unet=other)
    shown = [posed(pipeline, truth[1:3], name, PROBLEMS[name]) for name in SHOWN]
    sheet = picture("reconstruct", beside(pipeline, shown, columns=8), "slices")
    return "\n\n".join((about, table(HEAD, rows), SURE, sheet))


def main() -> None:
    """The page, of rows that were found before and of those that are not there yet."""
    known, recipe = asked(), brain_slices()
    done = trained(recipe, known.runs / PRIOR)
    publish("reconstruct", "Reconstruction with a DiT as the prior", compared(known, recipe, done))


if __name__ == "__main__":
    main()
