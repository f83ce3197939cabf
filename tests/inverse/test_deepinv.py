"""deepinv's own tests of a denoiser on ours, and its algorithms and operators on a model that is exact.

Of deepinv's tests of denoisers these are left out:

- test_denoiser_perf and test_diffuser_wrapper build a list of deepinv's own models and download their weights;
- test_denoiser_perf_noise_map wants noise that differs from pixel to pixel: a model with one time for each sample has
  been trained with no such noise, and the adapter refuses it;
- test_complex_wrapper with the mode abs_angle denoises the phase as if it were an image, from 0 to 1 with normal noise:
  it is neither where a digit is black, so that no prior of digits helps.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import deepinv
import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import Digits, Images
from anydit.diffusion.paths import Path as NoisePath
from anydit.diffusion.predictions import X0, V
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.inverse.adapter import PipelineDenoiser, as_deepinv
from anydit.inverse.operators import MRI
from anydit.model.dit import DiT, DiTConfig
from tests.model.test_dit import randomised

IMAGE, CPU, SIGMA = (1, 8, 8), torch.device("cpu"), 0.05
SIZES = {"drunet": (37, 31), "ncsnpp": (32, 24)}
"""Names under which deepinv's tests ask for a denoiser, and the size of the images that they then give it."""


@pytest.fixture(scope="module")
def theirs() -> Iterator[ModuleType]:
    """deepinv's module of tests of models, which is installed with it, with our denoisers in place of its own."""
    folder = Path(deepinv.__file__).parent / "tests"
    if not (folder / "test_models.py").is_file():
        pytest.skip("this deepinv was installed without its tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)  # they import a neighbour by its name alone
        module = importlib.import_module("deepinv.tests.test_models")
        patch.setattr(module, "choose_denoiser", lambda name, imsize: untrained(*imsize))
        yield module


def untrained(channels: int, *size: int) -> PipelineDenoiser:
    """A model with random weights, for images of sides that 8 divides in patches, for others in pixels."""
    patch = tuple(8 if n % 8 == 0 else 1 for n in size)
    model = DiTConfig(width=16, depth=1, heads=2, patch=patch, channels=channels, size=size)
    codec, view = Normalize.to_unit(0, 16), Images(low=0, high=16)
    config = PipelineConfig(model=model, prediction=V(), codec=codec, view=view)
    return as_deepinv(Pipeline(config, randomised(DiT(model))))


class Exact(DiT):
    """Not a network: what one would answer that has learned all of data that are normal, with the digits' moments."""

    def __init__(self, config: DiTConfig, path: NoisePath, data: Tensor) -> None:
        super().__init__(config)
        self.path, self.mean = path, data.flatten(1).mean(0)
        variances, self.axes = torch.linalg.eigh(data.flatten(1).T.cov())
        self.variances = variances.clamp(min=0)

    def forward(self, x, t, cond=None):
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        off = (x.flatten(1) - alpha * self.mean) @ self.axes
        return (self.mean + (off * gain) @ self.axes.T).view_as(x)


@pytest.fixture(scope="module")
def exact() -> PipelineDenoiser:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4), channels=1, size=IMAGE[1:])
    view = Images(low=0, high=16)
    config = PipelineConfig(model=model, prediction=X0(), codec=Normalize.to_unit(0, 16), view=view)
    data = Digits().open("train").read(torch.arange(1000)).x / 8 - 1
    return as_deepinv(Pipeline(config, Exact(model, config.path, data)))


@pytest.mark.parametrize("size", SIZES)
def test_deepinv_s_tests_of_color_and_gray_pass(theirs, size):
    theirs.test_denoiser_color((3, *SIZES["drunet"]), CPU, size)
    theirs.test_denoiser_gray((1, *SIZES["drunet"]), CPU, size)
    theirs.test_denoiser_1_channel((1, *SIZES["drunet"]), CPU, size)


@pytest.mark.parametrize("batch", [1, 2])
def test_deepinv_s_tests_of_noise_levels_pass(theirs, batch):
    theirs.test_denoiser_sigma_gray(batch, "drunet", CPU)
    theirs.test_denoiser_sigma_color(batch, "drunet", CPU)


@pytest.mark.parametrize("batch", [1, 2])
def test_deepinv_s_test_of_averages_over_turns_passes(theirs, monkeypatch, batch):
    monkeypatch.setattr(deepinv.models, "DRUNet", lambda **_: untrained(3, *SIZES["drunet"]))
    theirs.test_equivariant((3, *SIZES["drunet"]), CPU, batch)


def test_deepinv_s_test_of_volumes_passes(theirs):
    theirs.test_3d_denoisers((lambda **_: untrained(1, 32, 32, 32), {}), CPU)


def test_deepinv_s_test_of_complex_images_passes(theirs, exact, monkeypatch):
    monkeypatch.setattr(deepinv.models, "DRUNet", lambda **_: exact)
    theirs.test_complex_wrapper("real_imag", CPU, lambda *_, **__: digits(1))


@pytest.mark.parametrize("algorithm", ["DiffPIR", "DPS"])
def test_deepinv_s_tests_of_sampling_pass(theirs, monkeypatch, algorithm):
    monkeypatch.setattr(deepinv.models, "DiffUNet", lambda: untrained(3, 64, 64))
    importlib.import_module("deepinv.tests.test_sampling").test_algo(algorithm, CPU)


def digits(n: int) -> Tensor:
    """From 0 to 1, of those that the moments are not of."""
    return Digits().open("held_out").read(torch.arange(n)).x / 16


def operators() -> dict[str, Any]:
    physics, rng = deepinv.physics, lambda: torch.Generator().manual_seed(0)
    noise, box = physics.GaussianNoise(SIGMA, rng=rng()), torch.ones(1, 1, 3, 3) / 9
    photons = physics.PoissonNoise(0.05, clip_positive=True, rng=rng())
    return {
        "inpainting": physics.Inpainting(IMAGE, mask=0.5, noise_model=noise, rng=rng()),
        "blur": physics.BlurFFT(IMAGE, box, noise_model=noise),
        "downsampling": physics.Downsampling(IMAGE, "bilinear", factor=2, noise_model=noise),
        "MRI": MRI(acceleration=4, center=0.25).build(IMAGE, SIGMA),
        "sensing": physics.CompressedSensing(24, IMAGE, noise_model=noise, rng=rng()),
        "photons": physics.BlurFFT(IMAGE, box, noise_model=photons),
    }


def algorithms(denoiser: PipelineDenoiser) -> dict[str, Any]:
    l2, photons = deepinv.optim.data_fidelity.L2(), deepinv.optim.data_fidelity.PoissonLikelihood(0.05)
    prior = deepinv.optim.PnP(denoiser)
    # deepinv's gradient of the likelihood of photons is gain^2 of what it should be, so that the step is a large one.
    of_photons = deepinv.optim.PGD(data_fidelity=photons, prior=prior, stepsize=1.0, g_param=0.1, max_iter=50)
    return {
        "DPS": deepinv.sampling.DPS(denoiser, num_steps=50, weight=2.0, guidance="annealed"),
        "DiffPIR": deepinv.sampling.DiffPIR(denoiser, l2, sigma=SIGMA, max_iter=30),
        "DDRM": deepinv.sampling.DDRM(denoiser, sigmas=np.linspace(1, 0, 30)),
        "PnP": deepinv.optim.HQS(data_fidelity=l2, prior=prior, stepsize=4.0, g_param=0.1, max_iter=10),
        "PnP of photons": of_photons,
    }


APPLY = {
    "inpainting": ("DPS", "DiffPIR", "DDRM", "PnP"),
    "blur": ("DPS", "DiffPIR", "DDRM", "PnP"),
    "downsampling": ("DPS", "DiffPIR", "PnP"),
    "MRI": ("DPS", "DiffPIR", "PnP"),
    "sensing": ("DPS", "DiffPIR", "PnP"),
    "photons": ("DPS", "PnP of photons"),
}
"""Which algorithms take which operators: DDRM wants a singular value decomposition, DiffPIR and HQS normal noise."""


@pytest.mark.parametrize(("operator", "algorithm"), [(o, a) for o, several in APPLY.items() for a in several])
def test_deepinv_s_algorithms_are_nearer_than_the_measurement_and_the_prior_alone(exact, operator, algorithm):
    """The mean of 8 answers to each measurement, beside the back-projection and the mean of all digits."""
    physics, truth, draws = operators()[operator], digits(16), 8
    y = physics(truth)
    with torch.no_grad():
        answers = algorithms(exact)[algorithm](y.repeat_interleave(draws, 0), physics)
    found = answers.unflatten(0, (16, draws)).mean(1)
    model = exact.pipeline.model
    assert isinstance(model, Exact)
    prior = (model.mean.view(1, *IMAGE) + 1) / 2
    errors = [(x - truth).square().mean().sqrt() for x in (found, physics.A_adjoint(y), prior)]
    assert errors[0] < 0.9 * min(errors[1:])
