"""The codec that lifts what is weak at high frequencies: measured, inverted, and what becomes of densities."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.codecs import CodecConfig, Normalize, Survey, Whiten
from anydit.codecs.whiten import _bins
from anydit.config import from_json, to_json


def red(n: int, *space: int) -> Tensor:
    """Two channels of noise whose energy falls off with the square of the frequency, on scales far apart."""
    noise = torch.randn(n, 2, *space, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axes = tuple(range(2, 2 + len(space)))
    fall = 1 / (1 + _bins(space).double())
    scale, offset = (torch.tensor(v).reshape(2, *(1,) * len(space)) for v in ([1e-3, 50.0], [0.001, 300.0]))
    return (torch.fft.ifftn(torch.fft.fftn(noise, dim=axes) * fall, dim=axes).real * scale + offset).float()


def survey(batches: Iterable[Tensor]) -> Survey:
    return Survey(lambda n: batches)


def energies(z: Tensor) -> Tensor:
    """By channel and bin, of modes."""
    axes = tuple(range(2, z.ndim))
    power = torch.fft.fftn(z.double(), dim=axes, norm="ortho").abs().square().mean(0).flatten(1)
    where = _bins(tuple(z.shape[2:])).flatten()
    total = torch.zeros(2, int(where.max()) + 1, dtype=power.dtype).index_add_(1, where, power)
    return total / torch.bincount(where).clamp(min=1)


@pytest.mark.parametrize("space", [(32,), (16, 12), (6, 8, 5)])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_energies_come_to_the_power_that_is_left(space: tuple[int, ...], power: float):
    x = red(400, *space)
    config = Whiten(power=power).measured(survey(x.split(150)))
    codec = config.build()
    z = codec.encode(x)
    dims = (0, *range(2, x.ndim))
    torch.testing.assert_close(z.mean(dims), torch.zeros(2), atol=2e-3, rtol=0)
    torch.testing.assert_close(z.std(dims), torch.ones(2), atol=2e-3, rtol=0)
    there = torch.bincount(_bins(space).flatten()) > 0
    own, made = energies(x - x.mean(dims, keepdim=True))[:, there], energies(z)[:, there]
    expected = own ** (1 - power)
    torch.testing.assert_close(made / made[:, 1:2], expected / expected[:, 1:2], rtol=0.02, atol=0)
    torch.testing.assert_close(codec.decode(z), x, rtol=1e-5, atol=1e-4)
    assert config.complete and config.measured(survey(iter(()))) is config, "measured once, and then no data are read"


@pytest.mark.parametrize("space", [(32,), (16, 12), (6, 8, 5)])
@pytest.mark.parametrize("power", [0.0, 0.01, 0.5, 1.0])
def test_what_is_typical_of_the_data_is_their_mean_and_deviation(space: tuple[int, ...], power: float):
    x = red(400, *space)
    codec = Whiten(power=power).measured(survey([x])).build()
    typical, dims = codec.typical((2, *space)), (0, *range(2, x.ndim))
    assert typical is not None
    torch.testing.assert_close(torch.tensor(typical[0]), x.mean(dims), rtol=1e-3, atol=0)
    torch.testing.assert_close(torch.tensor(typical[1]), x.std(dims), rtol=2e-3, atol=0)


def test_without_whitening_it_is_the_plain_normalisation():
    x = red(50, 8, 8)
    z, plain = (c.measured(survey([x])).build().encode(x) for c in (Whiten(power=0), Normalize()))
    torch.testing.assert_close(z, plain, atol=2e-3, rtol=1e-3)


def test_other_sizes_than_measured():
    codec = Whiten().measured(survey([red(200, 16, 16)])).build()
    x = red(3, 40, 24)
    z = codec.encode(x)
    assert 0.3 < float(z.std()) < 3
    torch.testing.assert_close(codec.decode(z), x, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("end", [(40,), (12, 7)])
def test_samples_are_measured_as_far_as_they_go(end: tuple[int, ...]):
    x = red(60, *(48, 16)[: len(end)])
    short = x[::2, :, *map(slice, end)]
    padded = x.clone()
    padded[::2] = float("nan")
    padded[::2, :, *map(slice, end)] = short
    config = Whiten().measured(survey(padded.split(25)))
    apart = Whiten().measured(survey([x[1::2], short]))
    torch.testing.assert_close(torch.tensor(config.gain), torch.tensor(apart.gain))
    torch.testing.assert_close(
        torch.tensor(config.shift), padded.double().transpose(0, 1).flatten(1).nanmean(1).float()
    )


def test_volumes_change_as_it_says():
    codec = Whiten().measured(survey([red(100, 4, 3)])).build()
    jacobian = torch.autograd.functional.jacobian(codec.encode, red(1, 4, 3)).reshape(24, 24).double()
    assert codec.log_volume((2, 4, 3)) == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), rel=1e-4)


def test_what_never_varies_and_what_is_empty_stay_finite():
    x = torch.full((4, 2, 8, 8), 5.0)
    x[:, 1] = torch.randn(4, 1, 1)
    codec = Whiten(power=1.0).measured(survey([x])).build()
    z = codec.encode(x)
    assert z.isfinite().all() and float(z[:, 0].abs().max()) < 1e-4
    torch.testing.assert_close(codec.decode(z), x, atol=1e-4, rtol=1e-4)


def test_it_is_saved():
    config = Whiten(power=0.3).measured(survey([red(20, 8)]))
    assert from_json(CodecConfig, to_json(config)) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 1.5}, "power: got 1.5"),
        ({"shift": (1.0,)}, "only one"),
        ({"shift": (0.0,), "gain": ((0.0,),)}, "gain: got a number"),
        ({"shift": (0.0,), "gain": ((1.0,), (1.0,))}, "gain: got 2 channels, expected 1"),
        ({"shift": (0.0, 1.0), "gain": ((1.0,), (1.0, 2.0))}, "of as many frequencies each"),
        ({"shift": (float("nan"),), "gain": ((1.0,),)}, "shift: got"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Whiten(**options)


def test_what_it_cannot_code_is_refused():
    x = red(4, 8)
    x[1] = float("nan")  # does not exist at all
    assert Whiten().measured(survey([x])) == Whiten().measured(survey([x[[0, 2, 3]]]))
    x[2, :, 3] = float("nan")
    with pytest.raises(ValueError, match="got NaN within a sample"):
        Whiten().measured(survey([x]))
    with pytest.raises(ValueError, match="resolve the config with its data first"):
        Whiten().build()
    with pytest.raises(ValueError, match="got no samples to measure"):
        Whiten().measured(survey([]))
    with pytest.raises(ValueError, match="got samples of 3 channels, expected 2"):
        Whiten().measured(survey([red(5, 8)])).build().encode(torch.zeros(1, 3, 8))
