"""From values to measurements on the model's scale, and what a model cannot take."""

import pytest
import torch

from anydit.codecs import Normalize, Survey, Whiten
from anydit.codecs.normalize import Normalizer
from anydit.data import ArrayView, Images
from anydit.inverse.operators import CT, MRI, Deblurring, Inpainting, SuperResolution
from anydit.inverse.scan.task import of_measurements, of_samples
from tests.inverse.test_adapter import IMAGE, pipeline


def images(n: int = 2) -> torch.Tensor:
    """On the model's scale, from 0 to 16."""
    return 16 * torch.rand(n, *IMAGE)


@pytest.mark.parametrize("operator", [MRI(), CT(views=6), Inpainting(), SuperResolution(factor=2), Deblurring()])
def test_samples_are_measured_between_black_and_white(operator):
    pipe, x = pipeline(), images()
    task = of_samples(pipe, x, operator, 1e-4, None)
    (job,) = task.jobs
    off = (job.physics.A(x / 16) - job.y).abs().max()
    assert off < 6e-4 and job.truth is not None and torch.equal(job.truth, x)


def test_a_scale_brings_samples_to_the_model_s():
    task = of_samples(pipeline(), images() / 16, Inpainting(), None, 16.0)
    assert task.jobs[0].truth is not None and task.jobs[0].truth.max() > 8 and task.scale == 16


@pytest.mark.parametrize("operator", [CT(views=6), SuperResolution(factor=2), Deblurring()])
def test_measurements_in_the_data_s_units_are_those_of_the_samples(operator):
    """An affine scale commutes with what measures, also where black is not 0."""
    pipe = pipeline(view=type(pipeline().config.view)(low=-4, high=12))
    x = images() - 4
    y = operator.build(IMAGE, 0.1).A(x)
    (job,) = of_measurements(pipe, y, operator, 0.1, None).jobs
    torch.testing.assert_close(job.physics.A((x + 4) / 16), job.y, atol=1e-4, rtol=1e-4)


def test_sinograms_may_be_without_channels():
    """One alone, several, and one with all of its axes."""
    operator = CT(views=6)
    y = operator.build(IMAGE, 0.1).A(images())
    for given, n in ((y[0, 0], 1), (y[0], 1), (y[:1], 1), (y[:, 0], 2), (y, 2)):
        (job,) = of_measurements(pipeline(), given, operator, 0.1, None).jobs
        assert job.y.shape == (n, *y.shape[1:]) and torch.equal(job.y, y[:n] / 16)
    with pytest.raises(ValueError, match=r"scan: got measurements of shape .*, expected \[n, 1, "):
        of_measurements(pipeline(), y[0, 0, 0], operator, 0.1, None)


def test_of_known_values_each_sample_has_its_own_places():
    x = images()
    known = torch.rand(2, *IMAGE) < 0.5
    task = of_measurements(pipeline(), torch.where(known, x, torch.nan), Inpainting(), 0.1, None)
    for i, job in enumerate(task.jobs):
        torch.testing.assert_close(job.y, torch.where(known, x / 16, 0)[i : i + 1])
        torch.testing.assert_close(job.physics.A(x[i : i + 1] / 16), job.y)


def test_what_was_measured_may_be_dark_where_it_is_said_so_and_noisy():
    pipe, x = pipeline(), torch.full((2, *IMAGE), 8.0)
    y = CT(views=6).build(IMAGE, 0.1).A(x) / 100
    assert of_measurements(pipe, y, CT(views=6), 0.1, 1.0).sigma == 0.1
    noisy = images() + 8 * torch.randn(2, *IMAGE)
    assert len(of_measurements(pipe, torch.where(noisy > 9, noisy, torch.nan), Inpainting(), 0.5, None).jobs) == 2


def unbounded():
    """A model of fields with mean 5 and deviation 2."""
    return pipeline(codec=Normalize((5.0,), (2.0,)), view=ArrayView())


def fields(n: int = 64) -> torch.Tensor:
    """With mean 5 and deviation 3, smoother than noise."""
    x = torch.nn.functional.avg_pool2d(torch.randn(n, 1, 10, 10, generator=torch.Generator().manual_seed(0)), 3, 1)
    return 5 + 3 * (x - x.mean()) / x.std()


def whitened():
    """A model of such fields whose codec lifts what is weak."""
    return pipeline(codec=Whiten().measured(Survey(lambda _: [fields()])), view=ArrayView())


def test_a_codec_that_whitens_tells_how_large_data_are():
    task = of_samples(whitened(), fields(2), Inpainting(), None, None)
    assert task.sigma == pytest.approx(0.06, rel=0.01)
    assert of_samples(whitened(), fields(2) / 100, Inpainting(), None, 100.0).sigma == task.sigma
    y = SuperResolution(factor=2).build(IMAGE, 0.1).A(fields(2))
    assert len(of_measurements(whitened(), y, SuperResolution(factor=2), 0.1, None).jobs[0].y) == 2


class Silent(Normalizer):
    """A codec that tells nothing of the data, as that of another's autoencoder."""

    def typical(self, shape):
        return None


def test_where_nobody_knows_how_large_data_are_the_noise_has_to_be_said():
    pipe = unbounded()
    pipe.codec = Silent((5.0,), (2.0,))
    with pytest.raises(ValueError, match="sigma: got none, and the run says nothing of its data's range; expected --s"):
        of_samples(pipe, images(), Inpainting(), None, None)
    assert of_samples(pipe, images(), Inpainting(), 0.1, None).sigma == 0.1


def test_without_bounds_the_noise_is_of_the_data_s_deviation():
    task = of_samples(unbounded(), 5 + 2 * torch.randn(2, *IMAGE), Inpainting(), None, None)
    assert task.sigma == pytest.approx(0.04)


def windowed():
    """A model of CT in HU, with mean -300 and deviation 500, that is looked at in a window for soft tissue."""
    return pipeline(codec=Normalize((-300.0,), (500.0,)), view=Images(low=-160, high=240))


def test_a_window_to_look_at_is_not_the_range_of_the_data():
    x = torch.linspace(-1000, 1500, 64).reshape(1, *IMAGE)
    (job,) = of_samples(windowed(), x, Inpainting(), 0.01, None).jobs
    assert job.truth is not None and torch.equal(job.truth, x)


def test_samples_may_be_dark_where_others_are_not_or_where_it_is_said_so():
    """A scan has slices with little in them; a dark picture is meant so with a scale."""
    bright, x = pipeline(contrast=14.0), images()
    x[0] /= 5
    assert len(of_samples(bright, x, MRI(), 0.1, None).jobs) == 1
    assert len(of_samples(bright, x[:1], MRI(), 0.1, 1.0).jobs) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: of_samples(windowed(), 16 * images() ** 2, MRI(), 0.1, 4.0),
            "-160 to 240 and lie within -5300 to 4700",
        ),
        (lambda: of_samples(windowed(), images(), MRI(), 0.1, None), "expected ones that fill -160 to 240 and lie"),
        (lambda: of_samples(pipeline(), images()[:, :, :4], MRI(), 0.1, None), r"scan: got shape \(2, 1, 4, 8\), exp"),
        (lambda: of_samples(pipeline(), images().expand(2, 3, 8, 8), MRI(), 0.1, None), "scan: got 3 channels"),
        (lambda: of_samples(pipeline(), images() / 16, MRI(), 0.1, None), "scan: got values from .* fill 0 to 16"),
        (
            lambda: of_samples(pipeline(contrast=14.0), images() * 0.3, MRI(), 0.1, None),
            "scan: got samples whose values are 4.* apart at most, expected about 14 or more",
        ),
        (lambda: of_samples(pipeline(), images() * 16, MRI(), 0.1, None), "scan: got values from .* fill 0 to 16"),
        (lambda: of_samples(pipeline(), images() - 8, MRI(), 0.1, None), "scan: got values from -"),
        (lambda: of_samples(pipeline(), images() * torch.nan, MRI(), 0.1, None), "scan: got NaN or infinity"),
        (
            lambda: of_samples(unbounded(), 400 * images(), MRI(), 0.1, None),
            "values of mean .* about 5 and 2",
        ),
        (lambda: of_samples(unbounded(), images() / 99 + 5, MRI(), 0.1, None), "scan: got values of mean"),
        (lambda: of_samples(whitened(), fields(2) / 100, MRI(), 0.1, None), "scan: got values of mean 0.05.* 5 and 3 "),
        (lambda: of_samples(whitened(), 100 * fields(2), MRI(), 0.1, None), "scan: got values of mean 50.* 5 and 3 "),
        (
            lambda: of_measurements(whitened(), 400 * fields(2)[..., :4, :4], SuperResolution(factor=2), 0.01, None),
            "scan: got values of mean .* about 5 and 3 ",
        ),
        (lambda: of_samples(pipeline(), images(), MRI(), 0.0, None), "sigma: got 0.0"),
        (lambda: of_measurements(pipeline(), images(), CT(), None, None), "sigma: got none"),
        (lambda: of_measurements(pipeline(), images(), CT(), 0.1, None), "scan: got measurements of shape"),
        (
            lambda: of_measurements(pipeline(), CT(views=6).build(IMAGE, 0.1).A(images()) * 9, CT(views=6), 0.01, None),
            "scan: got values from .* fill 0 to 16",
        ),
        (
            lambda: of_measurements(pipeline(), images()[..., :4, :4] / 16, SuperResolution(factor=2), 0.01, None),
            "scan: got values from .* fill 0 to 16",
        ),
        (
            lambda: of_measurements(unbounded(), 400 * images()[..., :4, :4], SuperResolution(factor=2), 0.01, None),
            "scan: got values of mean .* about 5 and 2",
        ),
        (lambda: of_measurements(pipeline(), images(), Inpainting(), 0.1, None), "known everywhere or nowhere"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
