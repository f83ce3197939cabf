"""The KL autoencoder: on one to three axes, filled in from data, refused where it does not fit."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from anydit.codecs import CodecConfig, KLAutoencoder, Normalize
from anydit.config import from_json, to_json
from tests.codecs.tiny import survey

SMALL = KLAutoencoder(widths=(4, 8, 8), groups=2, blocks=1, latent=3)


def data(axes: int, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(axes)
    return 5 + 2 * torch.randn(20, 2, *(size,) * axes, generator=generator)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_goes_there_and_back_on_any_number_of_axes(axes: int):
    x = data(axes)
    config = SMALL.measured(survey(x))
    assert (config.channels, config.axes) == (2, axes)
    codec = config.build()
    z = codec.encode(x)
    assert tuple(z.shape[2:]) == config.latent_size(tuple(x.shape[2:])) == (2,) * axes
    assert z.shape[1] == config.latent_channels(2) == 3
    assert codec.decode(z).shape == x.shape
    assert config.data_size((2,) * axes) == (8,) * axes
    assert torch.equal(codec.encode(x), z), "latents are the means: nothing about them is random"


def test_its_units_are_the_bounds_or_measured():
    x = data(2)
    measured = SMALL.measured(survey(x)).units
    assert measured.shift == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert SMALL.measured(survey(x, (0.0, 255.0))).units == Normalize.to_unit(0, 255)
    given = replace(SMALL, units=Normalize.to_unit(-1, 1))
    assert given.measured(survey(x, (0.0, 255.0))).units == Normalize.to_unit(-1, 1)


def test_the_penalty_is_the_divergence_from_a_standard_gaussian():
    x, noise = data(2), torch.randn(20, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    codec = replace(SMALL, kl=0.25).measured(survey(x)).build()
    y = codec.units.encode(x)
    mean, std = codec.network.encode(y)
    asked: list[tuple[str, tuple[int, ...]]] = []

    def draw(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        asked.append((name, shape))
        return noise

    z, penalty = codec.drawn(y, draw)
    assert asked == [("posterior", (3, 2, 2))]
    torch.testing.assert_close(z, mean + std * noise)
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(penalty, 0.25 * expected)
    torch.testing.assert_close(codec.encode(x), mean)


def test_comes_back_from_json_and_is_measured_once():
    config = SMALL.measured(survey(data(2)))
    assert from_json(CodecConfig, to_json(config)) == config
    assert config.complete and not SMALL.complete
    assert config.measured(survey(torch.zeros(0, 2, 8, 8))) is config, "no data are read"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4, 9)}, r"codec\.widths: got \(4, 9\), expected multiples of codec\.groups 2"),
        ({"widths": ()}, r"codec\.widths"),
        ({"latent": 0}, r"codec\.latent: got 0"),
        ({"kl": -1.0}, r"codec\.kl: got -1"),
        ({"axes": 4}, r"codec\.axes: got 4, expected 1 to 3"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **options)


def test_data_that_do_not_fit_are_refused_by_name():
    config = replace(SMALL, channels=3)
    with pytest.raises(ValueError, match="codec: got data of 2 channels, expected 3, as KLAutoencoder has"):
        config.measured(survey(data(2)))
    with pytest.raises(ValueError, match=r"codec: got data of size \(6, 6\), expected multiples of \(4, 4\)"):
        SMALL.measured(survey(data(2, 6)))
    with pytest.raises(ValueError, match="codec: got data with 1 axes, expected 2"):
        SMALL.measured(survey(data(2))).latent_size((8,))
    with pytest.raises(ValueError, match=r"codec\.axes: got 4"):
        SMALL.measured(survey(torch.zeros(2, 1, 4, 4, 4, 4)))


def test_it_has_no_trained_weights_of_its_own():
    with pytest.raises(ValueError, match="codec: got KLAutoencoder, which has no trained weights; expected Latents"):
        SMALL.measured(survey(data(1))).restored()
    with pytest.raises(ValueError, match="resolve the recipe with its data first"):
        SMALL.build()
