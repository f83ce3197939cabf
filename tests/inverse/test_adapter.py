"""A pipeline as deepinv's denoiser: its numbers, and deepinv's own algorithms on it."""

from dataclasses import replace

import deepinv
import numpy as np
import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import Images
from anydit.diffusion.paths import Cosine, Linear
from anydit.diffusion.predictions import V
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.inverse.adapter import as_deepinv
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.tokens import Learned
from tests.model.test_dit import randomised

IMAGE = (1, 8, 8)


def pipeline(**options) -> Pipeline:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4), channels=1, size=(8, 8), conditions={"label": Label(3)})
    config = PipelineConfig(model=model, prediction=V(), codec=Normalize.to_unit(0, 16), view=Images(low=0, high=16))
    config = replace(config, **options)
    return Pipeline(config, randomised(DiT(config.model)))


@pytest.mark.parametrize("path", [Linear(), Cosine()])
def test_noise_that_is_added_is_carried_over_to_the_path(path):
    pipe = pipeline(path=path)
    denoise, x, sigma = as_deepinv(pipe, {"label": 1}), torch.rand(2, *IMAGE), torch.tensor([0.05, 0.4])
    got = denoise(x, sigma)
    for i in range(2):
        t = path.time_at(-(2 * sigma[i : i + 1]).log())
        assert (path.sigma(t) / path.alpha(t)).item() == pytest.approx(2 * sigma[i].item(), rel=1e-4)
        xt = path.alpha(t) * (2 * x[i : i + 1] - 1)
        x0 = pipe.denoiser().denoise(xt, t, {"label": torch.tensor([1])}).x0
        torch.testing.assert_close(got[i : i + 1], (x0 + 1) / 2, atol=1e-5, rtol=1e-5)


def test_one_noise_level_for_all_is_one_for_each():
    denoise, x = as_deepinv(pipeline()), torch.rand(3, *IMAGE)
    alike = (
        0.1,
        torch.tensor(0.1),
        torch.full((3,), 0.1),
        [0.1],
        np.float32(0.1),
        np.full(1, 0.1),
        torch.tensor([[0.1]]),
    )
    for sigma in (*alike, torch.full((1, 1, 8, 8), 0.1)):
        torch.testing.assert_close(denoise(x, sigma), denoise(x, torch.full((3, 1, 1, 1), 0.1)))
    torch.testing.assert_close(denoise(x, 1), denoise(x, 1.0))


def test_each_image_has_the_noise_that_is_said_of_it_in_whatever_form():
    denoise, x, several = as_deepinv(pipeline()), torch.rand(3, *IMAGE), [0.1, 0.3, 0.0]
    alone = torch.cat([denoise(x[i : i + 1], sigma) for i, sigma in enumerate(several)])
    each = torch.tensor(several).view(3, 1, 1, 1)
    for sigma in (several, np.array(several), each.flatten(), each[..., 0], each, each.expand(3, 1, 8, 8)):
        torch.testing.assert_close(denoise(x, sigma), alone)


def test_without_noise_an_image_stays_as_it_is():
    x = torch.rand(2, *IMAGE)
    torch.testing.assert_close(as_deepinv(pipeline())(x, 0.0), x, atol=1e-3, rtol=0)


def test_images_in_doubles_are_answered_in_doubles():
    denoise, x = as_deepinv(pipeline()), torch.rand(2, *IMAGE)
    assert denoise(x.double(), 0.1).dtype == torch.float64
    torch.testing.assert_close(denoise(x.double(), 0.1).float(), denoise(x, 0.1))


def test_images_have_any_size_that_the_positions_reach():
    """Those that are computed go on beyond the trained size; learned ones end with their canvas."""
    pipe, x, t = pipeline(path=Cosine()), torch.rand(2, 1, 12, 16), torch.full((2,), 0.4)
    sigma = (pipe.config.path.sigma(t) / pipe.config.path.alpha(t) / 2)[0].item()
    x0 = pipe.denoiser().denoise(pipe.config.path.alpha(t).view(2, 1, 1, 1) * (2 * x - 1), t, {}).x0
    torch.testing.assert_close(as_deepinv(pipe)(x, sigma), (x0 + 1) / 2, atol=1e-5, rtol=1e-5)
    denoise = as_deepinv(pipeline(model=replace(pipe.config.model, position=Learned((3, 3)))))
    assert denoise(torch.rand(2, 1, 12, 4), 0.1).shape == (2, 1, 12, 4)
    with pytest.raises(ValueError, match=r"size: got .* patches, expected at most position.canvas"):
        denoise(x, 0.1)


def test_a_gradient_passes_through_it():
    x = torch.rand(1, *IMAGE, requires_grad=True)
    as_deepinv(pipeline())(x, 0.2).sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)


def algorithms(denoiser):
    l2 = deepinv.optim.data_fidelity.L2()
    yield deepinv.sampling.DiffPIR(denoiser, l2, sigma=0.05, max_iter=3)
    yield deepinv.sampling.DDRM(denoiser, sigmas=np.linspace(1, 0, 4))
    yield deepinv.sampling.DPS(denoiser, num_steps=3)
    yield plugged(l2, denoiser, deepinv.optim.HQS, stepsize=1.0)


def plugged(fidelity, denoiser, algorithm: type = deepinv.optim.PGD, stepsize=0.01, **options):
    prior = deepinv.optim.PnP(denoiser)
    return algorithm(data_fidelity=fidelity, prior=prior, stepsize=stepsize, g_param=0.05, max_iter=3, **options)


@pytest.mark.parametrize("which", range(4))
def test_deepinv_s_algorithms_run_on_it(which):
    mask = (torch.rand(1, 1, 8, 8) < 0.5).float()
    physics = deepinv.physics.Inpainting(IMAGE, mask, noise_model=deepinv.physics.GaussianNoise(0.05))
    y = physics(torch.rand(2, *IMAGE))
    with torch.no_grad():
        x = list(algorithms(as_deepinv(pipeline(), {"label": 2})))[which](y, physics)
    assert x.shape == (2, *IMAGE) and bool(x.isfinite().all())


@pytest.mark.filterwarnings("ignore:Complex modules:UserWarning")  # of deepinv's phase retrieval
def test_it_is_plugged_into_problems_that_are_not_linear_or_not_normal():
    """Counts of photons, random projections, and intensities whose phase is lost, by deepinv's own means for each."""
    denoise, x = as_deepinv(pipeline(), {"label": 2}), torch.rand(2, *IMAGE)
    photons = deepinv.physics.BlurFFT(IMAGE, torch.ones(1, 1, 3, 3) / 9, noise_model=deepinv.physics.PoissonNoise(0.05))
    sensed = deepinv.physics.CompressedSensing(20, IMAGE)
    intensities = deepinv.physics.RandomPhaseRetrieval(128, IMAGE)
    near = (x + 0.1).to(torch.cfloat)
    losses = deepinv.optim.data_fidelity
    alone = deepinv.models.complex.to_complex_denoiser(denoise, mode="real_imag")
    with torch.no_grad():
        found = [
            plugged(losses.PoissonLikelihood(0.05), denoise)(photons(x).clamp(min=1e-3), photons),
            plugged(losses.L2(), denoise, deepinv.optim.HQS)(sensed(x), sensed),
            plugged(losses.AmplitudeLoss(), alone, custom_init=lambda y, physics: {"est": (near, near)})(
                intensities(x.to(torch.cfloat)), intensities
            ),
        ]
    assert all(one.shape == x.shape and bool(torch.view_as_real(one + 0j).isfinite().all()) for one in found)


def test_what_it_cannot_be_is_said():
    with pytest.raises(ValueError, match="codec: got deviations of"):
        as_deepinv(pipeline(codec=Normalize((0.0, 1.0), (1.0, 2.0))))
    with pytest.raises(ValueError, match="x: got 3 channels, expected the model's 1"):
        as_deepinv(pipeline())(torch.rand(1, 3, 8, 8), 0.1)


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        (-0.1, "got -0.1, expected a finite deviation of at least 0"),
        (float("nan"), "got nan, expected a finite"),
        ([0.1, float("inf")], "got inf, expected a finite"),
        (torch.tensor([0.1, -0.2]), "got -0.2, expected a finite"),
        (torch.tensor([0.1j]), "got complex numbers, expected real ones"),
        ("much", "got 'much', expected numbers"),
        ([0.1, 0.2, 0.3], "got 3 levels, expected 1 or 2, one for each image"),
        (torch.empty(0), "got 0 levels, expected 1 or 2"),
        (torch.linspace(0, 1, 8).expand(2, 1, 8, 8), "values that differ within an image, expected one deviation"),
        (torch.linspace(0, 1, 2)[:, None].expand(2, 8), "values that differ within an image, expected one deviation"),
    ],
)
def test_noise_that_is_none_is_refused(sigma, said):
    with pytest.raises(ValueError, match=f"^sigma: .*{said}"):
        as_deepinv(pipeline())(torch.rand(2, *IMAGE), sigma)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.rand(1, *IMAGE) + 0j, "x: got torch.complex64, expected real .*to_complex_denoiser takes both parts"),
        (torch.ones(1, *IMAGE, dtype=torch.uint8), "x: got torch.uint8, expected real floating-point numbers$"),
        (torch.rand(1, 1, 8), r"x: got shape \(1, 1, 8\), expected \[b, c\] and 2 axes of space"),
        (torch.rand(1, 1, 8, 8, 8), "x: got shape .* expected .* 2 axes of space"),
        (torch.rand(1, 1, 8, 10), r"size: got \(8, 10\), expected multiples of patch \(4, 4\)"),
    ],
)
def test_images_that_the_model_cannot_serve_are_refused(x, said):
    with pytest.raises(ValueError, match=said):
        as_deepinv(pipeline())(x, 0.1)
