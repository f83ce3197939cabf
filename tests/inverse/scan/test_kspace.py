"""k-space: its coils, noise and scale, and that the physics of a task makes what was measured."""

import math
from dataclasses import replace

import pytest
import torch

from anydit.data import Images
from anydit.inverse.classical import least_variation
from anydit.inverse.operators import CT, MRI
from anydit.inverse.physics import random_columns, ring
from anydit.inverse.scan.acquired import of_kspace
from anydit.inverse.scan.kspace import KSpace, brightness, kspace, maps_of, narrowed, noise_of, spectra, together
from anydit.model.dit import DiT, DiTConfig
from tests.inverse.scan.test_files import image
from tests.inverse.test_adapter import pipeline
from tests.model.test_dit import randomised

SCALE = 3e-5
"""Scanners' numbers are small."""


def of_size(h: int, w: int, channels: int = 1):
    """A model of images 0 to 200."""
    from anydit.inference.config import PipelineConfig
    from anydit.inference.pipeline import Pipeline

    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4), channels=channels, size=(h, w))
    config = PipelineConfig(model=model, codec=pipeline().config.codec, view=Images(low=0, high=200))
    return Pipeline(replace(config, codec=type(config.codec).to_unit(0, 200)), randomised(DiT(model)))


def acquired(coils: int = 4, acceleration: float = 2.0, noise: float = 0.0, phase: float = 1.0) -> KSpace:
    """k-space of `image` through coils, with a smooth phase, in a scanner's numbers."""
    x, size = image(2, 32, 32), (32, 32)
    slope = torch.linspace(-1, 1, 32)
    turn = torch.polar(torch.ones(size), phase * (slope[:, None] + 0.5 * slope**2))
    maps = ring(coils, size) if coils > 1 else torch.ones(1, *size, dtype=torch.complex64)
    y = spectra(x[:, None] * turn * maps)
    y = y + noise * torch.randn_like(y.real) + 1j * noise * torch.randn_like(y.real)
    mask = random_columns(32, acceleration, 0.3, 0).expand(size)
    return KSpace(SCALE * y * mask, mask)


def test_maps_of_the_middle_are_those_of_the_coils_with_the_phase():
    k = acquired(acceleration=1.0)
    maps = maps_of(k)
    torch.testing.assert_close(maps.abs().square().sum(1), torch.ones(2, 32, 32))
    inside = image(2, 32, 32)[0] > 0.3
    off = (maps[0].abs() - ring(4, (32, 32)).abs())[:, inside]
    assert off.abs().mean() < 0.03
    one = maps_of(acquired(coils=1, acceleration=1.0))[0, 0]
    slope = torch.linspace(-1, 1, 32)
    expected = torch.polar(torch.ones(32, 32), slope[:, None] + 0.5 * slope**2)
    assert (one - expected).abs()[inside].mean() < 0.1


@pytest.mark.parametrize("coils", [1, 4])
def test_what_is_measured_is_what_the_physics_makes_of_the_image(coils):
    """Of any scale, phase and coils: the image on the model's scale has the measurement's own k-space."""
    pipe, k = of_size(32, 32), acquired(coils, 1.0)
    task = of_kspace(pipe, replace_mask(k, 2.0), MRI(), 0.02, None)
    white = SCALE * image(2, 32, 32).flatten().quantile(0.995)
    assert task.scale * white == pytest.approx(200, rel=0.15), "the brightest is the model's white"
    for i, job in enumerate(task.jobs):
        x = task.scale * SCALE * image(2, 32, 32)[i][None, None] / 200
        off = (job.physics.A(x) - job.y).norm() / job.y.norm()
        assert off < 0.05, "up to what low resolution does not see of coils"


def with_maps(factor: float):
    return of_kspace(of_size(32, 32), acquired(), MRI(), None, None, factor * ring(4, (32, 32))[None])


def replace_mask(k: KSpace, acceleration: float) -> KSpace:
    mask = random_columns(32, acceleration, 0.3, 0).expand(32, 32)
    return KSpace(k.y * mask, mask)


def test_readout_beyond_the_image_is_cut_exactly_and_columns_are_framed():
    pipe, k = of_size(16, 24), acquired(1, 2.0, phase=0.0)
    inner = narrowed(k, (16, 24))
    assert inner.y.shape == (2, 1, 16, 32), "columns are not measured whole, and stay"
    task = of_kspace(pipe, k, MRI(), 0.02, 200 / SCALE)
    x = image(2, 32, 32)[0][None, None, 8:24, 4:28]
    assert (task.jobs[0].physics.A(x) - task.jobs[0].y).norm() < 0.05 * task.jobs[0].y.norm()
    assert task.jobs[0].physics.adjointness_test(torch.randn(3, 1, 16, 24)).item() < 1e-5


def test_whole_k_space_is_undersampled_and_is_the_truth():
    pipe, k = of_size(32, 32), acquired(4, 1.0)
    task = of_kspace(pipe, k, MRI(acceleration=4), None, None)
    assert any("whole" in note for note in task.notes)
    job = task.jobs[0]
    share = (job.y != 0).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.01)
    assert job.truth is not None
    torch.testing.assert_close(job.truth, task.scale * SCALE * image(2, 32, 32)[:1, None], atol=0.5, rtol=1e-3)
    kept = of_kspace(pipe, k, MRI(acceleration=1), None, None).jobs[0]
    assert bool((kept.y != 0).all()) and kept.truth is None


def test_zeros_at_the_edges_are_no_undersampling():
    """Scanners pad k-space: it is whole, is undersampled as asked, and a mask with holes is not."""
    k = acquired(4, 1.0)
    padded = KSpace(k.y * padding(4), padding(4).expand(32, 32))
    assert padded.whole and not acquired(4, 2.0).whole
    assert not KSpace(k.y * padding(8), padding(8).expand(32, 32)).whole, "half of it is not padding"
    task = of_kspace(of_size(32, 32), padded, MRI(acceleration=2, center=0.3), None, None)
    assert any("is whole" in note for note in task.notes) and task.jobs[0].truth is not None
    assert (task.jobs[0].y != 0).float().mean().item() < 0.5
    task = of_kspace(of_size(32, 32), acquired(4, 2.0), MRI(acceleration=8), None, None)
    assert any("the acceleration has no part in it" in note for note in task.notes)


def test_what_is_said_to_be_measured_is_used_whole():
    k = acquired(4, 1.0)
    task = of_kspace(of_size(32, 32), k, MRI(acceleration=4), None, None, measured=True)
    assert bool((task.jobs[0].y != 0).all()) and task.jobs[0].truth is None


def test_lines_that_are_missing_at_one_end_are_no_padding():
    """Partial Fourier: what it shows by itself is not the truth."""
    k, there = acquired(4, 1.0), torch.arange(32) >= 8
    partial = KSpace(k.y * there, there.expand(32, 32))
    assert not partial.whole
    assert of_kspace(of_size(32, 32), partial, MRI(acceleration=4), None, None).jobs[0].truth is None


def padding(edge: int) -> torch.Tensor:
    """Columns that are measured, but for so many at each side."""
    at = torch.arange(32)
    return (at >= edge) & (at < 32 - edge)


def test_lines_of_zeros_are_not_measured_and_scattered_zeros_are():
    """Rows as well as columns, and of volumes single lines and planes."""
    y = torch.ones(1, 1, 32, 32, dtype=torch.complex64)
    y[:, :, 5, 7] = y[:, :, 9, 4] = 0
    for lost in ((..., [3, 20], slice(None)), (..., slice(None), [3, 20])):
        some, expected = y.clone(), torch.ones(32, 32, dtype=torch.bool)
        some[lost], expected[lost] = 0, False
        k = kspace(some, 2)
        assert torch.equal(k.mask, expected) and not k.whole
    volume, expected = torch.ones(8, 16, 16, dtype=torch.complex64), torch.ones(8, 16, 16, dtype=torch.bool)
    for lost in ((slice(None), 3, 5), (2,), (6, 9)):
        volume[lost], expected[lost] = 0, False
    volume[4, 7, 7] = 0
    assert torch.equal(kspace(volume, 3).mask, expected)


def test_a_mask_that_goes_on_into_padding_measures_nothing_there():
    """Noise would be found too small by the zeros at the edges; zeros between them are measured where the mask is."""
    mask, k = torch.arange(32) % 4 == 0, acquired(4, 1.0, noise=0.02)
    y = k.y * padding(3)
    y[:, :, ::3, 16] = 0
    found = kspace(y, 2, mask)
    assert torch.equal(found.mask, (mask & padding(3)).expand(32, 32))
    assert noise_of(found) == pytest.approx(0.02 * SCALE, rel=0.15)


def test_maps_of_a_person_may_have_any_scale():
    """Images are in the numbers of k-space, whatever maps are multiplied by, and 0 where these are."""
    pipe, k, maps = of_size(32, 32), acquired(4, 2.0), ring(4, (32, 32))[None].clone()
    maps[..., :4, :] = 0
    once, five = (of_kspace(pipe, k, MRI(), 0.02, 200 / SCALE, factor * maps).jobs for factor in (1, 5))
    x = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(five[0].physics.A(x), once[0].physics.A(x))
    torch.testing.assert_close(five[0].y, once[0].y)
    beyond = torch.zeros_like(x)
    beyond[..., :4, :] = 1
    assert float(five[0].physics.A(beyond).abs().max()) == 0


def test_maps_of_a_person_get_the_image_s_phase():
    """Maps have no phase of the image's own; a model of real samples needs it, of one for all slices as of each."""
    pipe, k = of_size(32, 32), acquired(4, 2.0, phase=1.5)
    for maps in (ring(4, (32, 32))[None], ring(4, (32, 32)).expand(2, -1, -1, -1)):
        task = of_kspace(pipe, k, MRI(), 0.02, 200 / SCALE, maps)
        for i, job in enumerate(task.jobs):
            off = job.physics.A(image(2, 32, 32)[i][None, None]) - job.y
            assert off.norm() < 0.1 * job.y.norm()
    alone = of_kspace(of_size(32, 32, channels=2), acquired(1, 2.0), MRI(), 0.02, 200 / SCALE,
                      torch.ones(1, 1, 32, 32, dtype=torch.cfloat))  # fmt: skip
    assert alone.jobs[0].y.shape == (1, 2, 1, 32, 32), "maps of a single coil are used, too"


def test_of_complex_samples_no_signal_is_0_wherever_black_is():
    """Both parts of data from -100 to 100 are 0 where there is no signal, which is the middle of the physics' scale."""
    pipe, k = of_size(32, 32, channels=2), acquired(1, 2.0)
    pipe.config = replace(pipe.config, view=Images(low=-100, high=100))
    task = of_kspace(pipe, k, MRI(), None, None)
    assert task.black == 0 and task.scale * SCALE * image(2, 32, 32).quantile(0.995) == pytest.approx(100, rel=0.2)
    slope = torch.linspace(-1, 1, 32)
    turn = torch.polar(torch.ones(32, 32), slope[:, None] + 0.5 * slope**2)
    for i, job in enumerate(task.jobs):
        x = task.scale * SCALE * torch.view_as_real(image(2, 32, 32)[i] * turn).movedim(-1, 0)[None]
        torch.testing.assert_close(job.physics.A((x + 100) / 200), job.y, atol=1e-3, rtol=1e-3)


def test_white_is_the_same_however_many_slices_there_are():
    k = acquired(1, 1.0)
    assert brightness(KSpace(k.y.repeat(40, 1, 1, 1), k.mask)) == pytest.approx(brightness(k), rel=1e-3)


def test_noise_is_found_at_the_edges():
    assert noise_of(acquired(4, 2.0, noise=0.02)) == pytest.approx(0.02 * SCALE, rel=0.15)


def test_total_variation_of_real_k_space_is_the_image():
    pipe, k = of_size(32, 32), acquired(4, 2.0, noise=0.005)
    task = of_kspace(pipe, k, MRI(), None, None)
    x = least_variation(task.measured(task.jobs[0], pipe, slice(None)))
    off = x / (task.scale * SCALE) - image(2, 32, 32)[:1, None]
    assert off.square().mean().sqrt() < 0.02
    assert math.isclose(float(together(spectra(image().to(torch.complex64)[:, None])).max()), 1.6, rel_tol=0.1)


def test_complex_samples_need_no_phase():
    pipe, k = of_size(32, 32, channels=2), acquired(1, 2.0)
    task = of_kspace(pipe, k, MRI(), 0.02, None)
    assert task.jobs[0].y.shape == (1, 2, 32, 32) and task.jobs[0].truth is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: of_kspace(of_size(32, 32), acquired(), CT(), None, None), "physics: got CT and complex k-space"),
        (lambda: of_kspace(of_size(32, 32, 3), acquired(), MRI(), None, None), "channels: got 3"),
        (lambda: of_kspace(of_size(48, 32), acquired(), MRI(), None, None), "expected at least the model's"),
        (
            lambda: of_kspace(
                of_size(32, 32), acquired(), MRI(), None, None, torch.ones(1, 2, 32, 32).to(torch.cfloat)
            ),
            "coil-maps: got shape",
        ),
        (lambda: with_maps(torch.nan), "coil-maps: got NaN or infinity"),
        (lambda: with_maps(0), "coil-maps: got zeros alone"),
        (lambda: kspace(torch.zeros(2, 0, 8, 8), 2), r"k-space: got shape \(2, 0, 8, 8\), expected"),
        (
            lambda: kspace(torch.fft.fftshift(acquired(1, 1.0, noise=0.01).y, dim=(2, 3)), 2),
            "k-space: got one whose corners are stronger than its middle, expected frequency 0 in the middle",
        ),
        (
            lambda: of_kspace(of_size(32, 32), acquired(), MRI(), None, 1e5 / SCALE),
            r"scale: got 3.*e\+09, by which the brightest of what k-space shows is .*, expected about 200",
        ),
        (
            lambda: of_kspace(of_size(32, 32), acquired(), MRI(), None, 0.001 / SCALE),
            r"scale: got 33.*, by which the brightest of what k-space shows is .*, expected about 200",
        ),
        (
            lambda: maps_of(KSpace(acquired().y, (torch.arange(32) != 16).expand(32, 32))),
            "mask: got one without the middle",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
