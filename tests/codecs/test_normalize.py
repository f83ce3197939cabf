"""The normalising codec: measured, inverted, refused."""

import math

import pytest
import torch

from anydit.codecs import Isotropic, Normalize, Whiten
from tests.codecs.tiny import Numbers, survey


def test_measures_each_channel_and_inverts():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, 3, 4, generator=generator) * torch.tensor([3.0, 0.1])[:, None, None] + 7
    config = Normalize().measured(survey(x, at_once=16))
    codec = config.build()
    z = codec.encode(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.decode(z), x, rtol=1e-5, atol=1e-5)
    assert config.measured(survey(x[:0])) is config, "measured once, and then no data are read"


def test_a_channel_that_never_varies_stays_where_it_is():
    config = Normalize().measured(survey(torch.full((4, 1, 2), 5.0)))
    assert config.shift == (5.0,) and config.scale == (1.0,)


@pytest.mark.parametrize(("size", "offset"), [(1e-13, 0.0), (1.0, 1e6)])
def test_units_do_not_matter(size: float, offset: float):
    x = offset + size * torch.randn(50, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    config = Normalize().measured(survey(x))
    assert config.scale is not None and config.scale[0] == pytest.approx(float(x.std(correction=0)), rel=1e-6)


def test_to_unit():
    codec = Normalize.to_unit(0, 255).build()
    assert codec.encode(torch.tensor([[[0.0, 255.0]]])).tolist() == [[[-1.0, 1.0]]]


@pytest.mark.parametrize(
    "config", [Normalize((1.0,), (2.0,)), Normalize((1.0, 2.0), (3.0, 4.0)), Whiten(0.5, (1.0, 2.0), ((1.0,), (2.0,)))]
)
def test_numbers_are_put_on_the_device_once(config: Normalize | Whiten):
    codec, x = config.build(), torch.randn(3, 2, 4)
    with Numbers() as first:
        z = codec.encode(x)
        codec.decode(z)
    with Numbers() as later:
        torch.testing.assert_close(codec.decode(codec.encode(x)), x)
    assert first.count > 0 and later.count == 0
    assert codec.encode(x.double()).dtype == torch.float64, "as samples are"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": (1.0,)}, "only one"),
        ({"shift": (0.0,), "scale": (0.0,)}, "scale: got"),
        ({"shift": (0.0,), "scale": (math.inf,)}, "scale: got"),
        ({"shift": (math.nan,), "scale": (1.0,)}, "shift: got"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Normalize(**options)


def test_unmeasured_and_misfitting_are_refused():
    with pytest.raises(ValueError, match="got None"):
        Normalize().build()
    with pytest.raises(ValueError, match="expected at least one"):
        Normalize().measured(survey(torch.zeros(0, 1, 2)))
    with pytest.raises(ValueError, match="got samples of 3 channels, expected 2"):
        Normalize((0.0, 0.0), (1.0, 1.0)).build().encode(torch.zeros(1, 3, 2))


@pytest.mark.parametrize(("shift", "scale"), [((1.0,), (2.5,)), ((1.0, -2.0), (3.0, 0.1))])
def test_volumes_are_those_of_its_own_derivative(shift: tuple[float, ...], scale: tuple[float, ...]):
    codec = Normalize(shift, scale).build()
    jacobian = torch.autograd.functional.jacobian(codec.encode, torch.zeros(1, 2, 2, 3))
    assert isinstance(jacobian, torch.Tensor)
    expected = torch.linalg.slogdet(jacobian.reshape(12, 12).double()).logabsdet
    assert codec.log_volume((2, 2, 3)) == pytest.approx(float(expected), rel=1e-5)


def test_isotropic_keeps_shapes():
    """One scale for all channels, measured on the first, where samples exist; nothing is moved."""
    x = torch.randn(40, 5, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 3, 4, 50, 0.1])[:, None]
    x[::2, :, 4:] = torch.nan
    config = Isotropic().measured(survey(x))
    there = x[:, :3][~x[:, :3].isnan()]
    assert config.scale == pytest.approx(float(there.square().mean().sqrt()), rel=1e-5)
    codec = config.build()
    torch.testing.assert_close(codec.encode(x[1:2]), x[1:2] / config.scale)
    torch.testing.assert_close(codec.decode(codec.encode(x[1:2])), x[1:2])
    assert codec.log_volume((5, 6)) == pytest.approx(-30 * math.log(config.scale))
    assert config.measured(survey(x[:0])) is config
    x[:, 2] = torch.where(x[:, 2].isnan(), torch.nan, 0.0)
    flat = Isotropic().measured(survey(x)).scale
    assert flat == pytest.approx(float(x[:, :3].square().nanmean().sqrt()), rel=1e-5), "planar, an axis is all 0"
    with pytest.raises(ValueError, match="got no samples to measure"):
        Isotropic().measured(survey(x[:0]))
    with pytest.raises(ValueError, match=r"codec\.scale: got None"):
        Isotropic().build()
    with pytest.raises(ValueError, match="scale: got 0"):
        Isotropic(scale=0.0)
