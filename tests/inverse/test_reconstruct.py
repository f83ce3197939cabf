"""Reconstruction with a whole pipeline: shapes, scale, fit, and what is refused."""

from pathlib import Path

import deepinv
import pytest
import torch
from torch import Tensor

from anydit.inference.config import Sampling
from anydit.inverse.corrections import DAPS, DPS, MomentMatching, PiGDM, Proximal
from anydit.inverse.measurement import checked
from anydit.inverse.operators import MRI, Inpainting, SuperResolution
from anydit.inverse.reconstruct import Reconstruction, reconstruct
from anydit.train.loop import train
from tests.inverse.test_adapter import IMAGE, pipeline
from tests.train.tiny_codec import tiny_codec, tiny_latent

SIGMA = 0.02


def physics(share: float = 0.5) -> deepinv.physics.LinearPhysics:
    mask = (torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < share).float()
    return deepinv.physics.Inpainting(IMAGE, mask, noise_model=deepinv.physics.GaussianNoise(SIGMA))


@pytest.mark.parametrize("how", [PiGDM(), Proximal(), DPS(), DAPS()])
def test_samples_are_on_the_data_s_scale_and_fit(how):
    pipe, operator = pipeline(), physics()
    x = torch.rand(2, *IMAGE)
    found = reconstruct(pipe, operator(x), operator, {"label": [0, 2]}, how=how, samples=3, sampling=Sampling(steps=20))
    assert found.samples.shape == (3, 2, *IMAGE) and found.mean.shape == found.deviation.shape == (2, *IMAGE)
    off = (found.samples / 16 - x)[:, :, :, operator.mask[0, 0] > 0]
    assert off.square().mean().sqrt() < 3 * SIGMA, "what was measured is kept, on the scale from 0 to 16"
    assert found.calls == 20 and pipe.correct is None
    assert found.residual.shape == (3, 2) and bool((found.residual < 3).all())


class Saturated(deepinv.physics.Physics):
    """A sensor whose answer levels off towards white."""

    def A(self, x, **_):  # noqa: N802
        return torch.tanh(2 * x)


def test_dps_takes_operators_that_are_not_linear_and_nothing_else_does():
    pipe, truth, operator = pipeline(), 0.2 + 0.6 * torch.rand(1, *IMAGE), Saturated()
    y, some = operator.A(truth), {"samples": 2, "sigma": 0.1, "sampling": Sampling(steps=20)}
    found = reconstruct(pipe, y, operator, {"label": 1}, how=DPS(), **some)
    measured = checked(y.expand(2, -1, -1, -1), operator, 0.1, IMAGE, (0.0, 16.0), linear=False)
    blind = measured.residual(pipe.sample(2, {"label": 1}, steps=20))
    assert bool((found.residual[:, 0] < 0.7 * blind).all())
    with pytest.raises(ValueError, match="physics: got Saturated, expected a linear operator"):
        reconstruct(pipe, y, operator, {"label": 1}, how=Proximal(), **some)


class Squares(deepinv.physics.Inpainting):
    def A(self, x, **_):  # noqa: N802
        return super().A(x).square()


def test_an_operator_that_says_it_is_linear_and_is_not_is_found_out():
    operator = Squares(IMAGE, torch.ones(1, 8, 8))
    with pytest.raises(ValueError, match="got Squares, which is not linear"):
        reconstruct(pipeline(), torch.rand(1, *IMAGE), operator, {"label": 1}, sigma=SIGMA)


def test_a_sample_depends_on_its_seed_and_place_only():
    pipe, operator = pipeline(), physics()
    y = operator(torch.rand(2, *IMAGE))
    some = {"how": DAPS(), "sampling": Sampling(steps=3), "seed": 5}
    whole = reconstruct(pipe, y, operator, samples=3, **some).samples
    torch.testing.assert_close(reconstruct(pipe, y, operator, samples=3, batch=1, **some).samples, whole)
    torch.testing.assert_close(reconstruct(pipe, y, operator, samples=2, **some).samples, whole[:2])


@pytest.mark.parametrize("operator", [Inpainting(known=0.4), MRI(), SuperResolution(factor=2)])
def test_what_does_not_fit_is_moved_as_little_as_makes_it_fit(operator):
    """The residual is 1, no less, where it was more; no other change of that size does it; the rest stays."""
    built = operator.build(IMAGE, SIGMA)
    truth, guess = torch.rand(2, 4, *IMAGE)
    guess[3] = truth[3]
    measured = checked(built.A(truth), built, SIGMA, IMAGE, None)
    x = measured.fitted(guess)
    torch.testing.assert_close(measured.residual(x)[:3], torch.ones(3), atol=0.01, rtol=0)
    assert torch.equal(x[3], guess[3])
    moved = (x - guess)[:3]
    for other in ((truth - guess)[:3], torch.randn_like(moved)):
        other = other / other.flatten(1).norm(dim=1)[:, None, None, None]
        along = guess[:3] + 0.98 * moved.flatten(1).norm(dim=1)[:, None, None, None] * other
        assert bool((measured.rows(torch.arange(3)).residual(along) > 1).all()), "a shorter way does not fit"


def test_what_cannot_fit_is_left_as_it_is():
    """Two measurements of each pixel that contradict each other by more than their noise: no image fits both."""

    class Twice(deepinv.physics.LinearPhysics):
        def A(self, x, **_):  # noqa: N802
            return torch.cat([x, x], dim=1)

        def A_adjoint(self, y, **_):  # noqa: N802
            return y[:, :1] + y[:, 1:]

    truth = torch.rand(2, *IMAGE)
    y = torch.cat([truth, truth + 10 * SIGMA], dim=1)
    measured = checked(y, Twice(), SIGMA, IMAGE, None)
    guess = truth + 8 * SIGMA
    assert torch.equal(measured.fitted(guess), guess)


@pytest.mark.parametrize("how", [Proximal(), PiGDM(), MomentMatching(2)])
def test_samples_of_latents_fit_through_a_codec_that_loses_something(how, tmp_path: Path):
    train(tiny_codec(steps=30), tmp_path / "codec", "cpu", lambda _: None)
    pipe = train(tiny_latent(tmp_path / "codec", steps=2), tmp_path / "latent", "cpu", lambda _: None)
    operator = Inpainting(known=0.5).build(IMAGE, SIGMA)
    y = operator(torch.rand(2, *IMAGE))
    some = {"how": how, "samples": 2, "sigma": SIGMA, "sampling": Sampling(steps=4)}
    found = reconstruct(pipe, y, operator, **some)
    lost = pipe.codec.decode(pipe.codec.encode(found.samples.flatten(0, 1))).unflatten(0, (2, 2))
    assert (lost / 16 - found.samples / 16).square().mean().sqrt() > 2 * SIGMA, "the codec alone does not fit"
    torch.testing.assert_close(found.residual, torch.ones(2, 2), atol=0.02, rtol=0)
    assert found.samples.shape == (2, 2, *IMAGE)


@pytest.mark.parametrize(("count", "share"), [(3, 0.5), (19, 0.9), (39, 0.95), (39, 0.5), (10, 0.75)])
def test_an_interval_holds_the_truth_as_often_as_it_says(count: int, share: float):
    """Where the truth is one more draw of what the samples are drawn of."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(count + 1, 4, 1, 100, 100, generator=generator)
    found = Reconstruction(drawn[1:], torch.ones(count, 4), 1)
    assert found.coverage(drawn[0], share).mean().item() == pytest.approx(share, abs=0.02)
    low, high = found.interval(share)
    assert bool((low < high).all())


@pytest.mark.parametrize("count", [39, 40])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("far", [0.5, 1.0, 2.0])
def test_a_widening_found_where_the_truth_is_known_is_right_where_it_is_not(count: int, share: float, far: float):
    """`far`: how many times as far from what is likely as samples are the truth is."""
    generator = torch.Generator().manual_seed(0)
    samples, truth = (torch.randn(n, 2, 1, 100, 100, generator=generator) for n in (count, 1))
    known, unknown = (Reconstruction(samples[:, [i]], torch.ones(count, 1), 1) for i in range(2))
    known_truth, unknown_truth = (far * truth[0])[:1], (far * truth[0])[1:]
    widen = known.widening(known_truth, share)
    assert known.coverage(known_truth, share, widen).mean().item() == pytest.approx(share, abs=1e-3)
    assert unknown.coverage(unknown_truth, share, widen).mean().item() == pytest.approx(share, abs=0.02)
    assert widen == pytest.approx(far, rel=0.1), "nearly: the interval of so many samples is itself by chance"
    low, high = unknown.interval(share, widen)
    plain_low, plain_high = unknown.interval(share)
    torch.testing.assert_close(high - low, widen * (plain_high - plain_low))


def agreed() -> tuple[Reconstruction, Tensor, Tensor]:
    """Samples of which all agree on 16 values of 64 to be 1; a truth of zeros; where they agree."""
    samples = torch.randn(39, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    samples[..., :2, :] = 1.0
    where = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    where[..., :2, :] = True
    return Reconstruction(samples, torch.ones(39, 1), 1), torch.zeros(1, 1, 8, 8), where


def test_a_widening_counts_what_it_is_asked_about():
    found, truth, where = agreed()
    assert found.widening(truth + 1, 0.8, where) == 0, "all agree on what is right"
    plain = found.widening(truth, 0.8, ~where)
    assert 0 < plain < 1
    truth[where] = torch.nan
    assert found.widening(truth, 0.8) == plain, "there is no truth where it is NaN"


def test_a_widening_that_cannot_be_found_is_refused():
    found, truth, where = agreed()
    with pytest.raises(ValueError, match="truth: got values other than what all samples agree on"):
        found.widening(truth, 0.8, where)
    with pytest.raises(ValueError, match=r"where: got 16 values, expected at least 19 for 0\.95"):
        found.widening(truth, 0.95, where)
    where[..., 2, :3] = True
    found.widening(truth + 1, 0.95, where)
    with pytest.raises(ValueError, match=r"truth: got shape \(1, 8, 8\), expected the samples' \(1, 1, 8, 8\)"):
        found.widening(truth[0], 0.5)
    with pytest.raises(ValueError, match=r"where: got shape \(1, 1, 8, 4\)"):
        found.widening(truth, 0.5, where[..., :4])
    for widen in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"widen: got {widen}, expected a finite number of at least 0"):
            found.interval(0.5, widen)


def test_an_interval_that_so_few_samples_cannot_tell_is_refused():
    found = Reconstruction(torch.rand(8, 1, *IMAGE), torch.ones(8, 1), 1)
    with pytest.raises(ValueError, match=r"samples: got 8, expected at least 39 for 0\.95"):
        found.interval(0.95)
    with pytest.raises(ValueError, match="share: got 1"):
        found.interval(1.0)


def test_the_residual_is_in_deviations_of_the_noise():
    operator = physics(1.0)
    truth = torch.full((1, *IMAGE), 0.5)
    y = truth + SIGMA
    measured = checked(y, operator, None, IMAGE, (0.0, 16.0))
    assert measured.residual(truth * 16).item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("operator", [Inpainting(known=0.1), MRI(), MRI(coils=4), SuperResolution()])
def test_the_residual_of_the_truth_is_1_however_little_is_measured(operator):
    truth, built = torch.rand(64, *IMAGE), operator.build(IMAGE, SIGMA)
    residual = checked(built(truth), built, SIGMA, IMAGE, None).residual(truth)
    assert residual.square().mean().sqrt().item() == pytest.approx(1, rel=0.08)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma: got 0.0, expected a finite deviation above 0"),
        ({"sigma": -1.0}, "sigma: got -1.0"),
        ({"y": torch.zeros(1, 1, 4, 8)}, r"y: got shape \(1, 1, 4, 8\), expected \[n, 1, 8, 8\]"),
        ({"y": torch.zeros(1, *IMAGE, dtype=torch.complex64)}, "y: got complex numbers, expected real ones"),
        ({"y": torch.full((1, *IMAGE), torch.nan)}, "y: got NaN or infinity"),
        (
            {"y": physics().A(127 * torch.ones(1, *IMAGE))},
            "y: got values 127 times as large as of a white image, .* bounds, 0 and 16, are 0 and 1",
        ),
        ({"physics": physics(0.0)}, "physics: got an operator that measures nothing"),
        (
            {"physics": deepinv.physics.MRI(torch.ones(8, 8)), "sigma": 0.1},
            "physics: got .*, expected an operator on samples of",
        ),
        ({"samples": 0}, "samples: got 0"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    given = {"y": torch.zeros(1, *IMAGE), "physics": physics()} | change
    with pytest.raises(ValueError, match=message):
        reconstruct(pipeline(), given.pop("y"), given.pop("physics"), **given)


@pytest.mark.parametrize("operator", [Inpainting(known=0.02), MRI(acceleration=8), MRI(coils=4), SuperResolution()])
@pytest.mark.parametrize("sigma", [0.01, 50.0])
def test_bright_images_and_much_noise_are_not_taken_for_another_scale(operator, sigma: float):
    built = operator.build(IMAGE, sigma)
    assert checked(built(torch.full((2, *IMAGE), 1.3)), built, sigma, IMAGE, (0.0, 16.0)).sigma == sigma


def test_one_sample_does_not_say_how_sure_it_is():
    with pytest.raises(ValueError, match="samples: got 1"):
        _ = Reconstruction(torch.zeros(1, 1, *IMAGE), torch.zeros(1, 1), 1).deviation


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (deepinv.physics.GaussianNoise(torch.tensor([0.05, 0.2])), "sigma: got 2 that differ, expected one deviation"),
        (
            deepinv.physics.PoissonGaussianNoise(gain=0.05, sigma=0.01),
            "noise of PoissonGaussianNoise, expected Gaussian",
        ),
    ],
)
def test_other_noise_is_not_taken_for_normal_noise_of_one_deviation(noise, message):
    operator = physics()
    operator.noise_model = noise
    with pytest.raises(ValueError, match=message):
        reconstruct(pipeline(), torch.zeros(2, *IMAGE), operator)


def test_samples_that_are_no_numbers_are_not_returned():
    pipe, operator = pipeline(), physics()
    with torch.no_grad():
        next(pipe.model.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="samples: got NaN or infinity from the model"):
        reconstruct(pipe, operator(torch.rand(1, *IMAGE)), operator, how=Proximal(), sampling=Sampling(steps=2))


def test_noise_has_to_be_known():
    operator = physics()
    operator.noise_model = deepinv.physics.ZeroNoise()
    with pytest.raises(ValueError, match="sigma: got None"):
        reconstruct(pipeline(), torch.zeros(1, *IMAGE), operator)
