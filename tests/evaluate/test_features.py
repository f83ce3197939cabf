"""Fixed random features: what they tell apart, and for what shapes."""

import pytest
import torch

from anydit.data import Digits
from anydit.evaluate.distances import frechet, moments
from anydit.evaluate.features import Features, RandomNetwork, in_parts

CPU = torch.device("cpu")


def test_faults_of_digits_show():
    train, held = (s.read(torch.arange(len(s))).x for s in (Digits().open("train"), Digits().open("held_out")))
    features = RandomNetwork(train, CPU)
    assert isinstance(features, Features)
    reference = moments(in_parts(features, train))

    def distance(x: torch.Tensor) -> float:
        return frechet(moments(in_parts(features, x)), reference)

    floor = distance(held)
    noisy = [distance((held + s * held.std() * torch.randn_like(held)).clamp(0, 16)) for s in (0.05, 0.1, 0.2)]
    assert floor < noisy[0] < noisy[1] < noisy[2]
    assert noisy[1] > 2 * floor
    assert distance(torch.nn.functional.avg_pool2d(held, 3, 1, 1)) > 10 * floor
    assert distance(0.9 * held) > 2 * floor


@pytest.mark.parametrize("shape", [(5, 6, 10), (1, 40), (2, 5, 9, 4), (3, 7, 1)])
def test_any_shape_and_always_the_same(shape: tuple[int, ...]):
    x = 50 + 10 * torch.randn(30, *shape)
    features = RandomNetwork(x, CPU)
    torch.manual_seed(5)
    again = RandomNetwork(x, CPU)
    assert features(x).equal(again(x))
    assert features(x).shape == (30, 64)
    assert float(features(x).var(0).mean()) == pytest.approx(1, rel=1e-3)
    assert not features(x).requires_grad


def test_channels_in_other_units_count_alike():
    """Pressure in Pa beside velocity in m/s: that the velocities are noise, or nothing, must show."""

    def fields(n: int) -> torch.Tensor:
        smooth = torch.nn.functional.interpolate(torch.randn(n, 3, 4, 4), (12, 12), mode="bilinear")
        return smooth * torch.tensor([500.0, 1, 0]).reshape(3, 1, 1) + torch.tensor([101325.0, 0, 7]).reshape(3, 1, 1)

    train, held = fields(1000), fields(300)
    features = RandomNetwork(train, CPU)
    noise, nothing = held.clone(), held.clone()
    noise[:, 1], nothing[:, 1] = torch.randn(300, 12, 12), 0
    reference = moments(in_parts(features, train))
    floor, *broken = (frechet(moments(in_parts(features, x)), reference) for x in (held, noise, nothing))
    assert min(broken) > 10 * floor


def test_four_axes_are_refused():
    with pytest.raises(ValueError, match="got samples with 4 axes"):
        RandomNetwork(torch.randn(4, 1, 2, 2, 2, 2), CPU)


def test_parts_are_the_whole():
    x = torch.randn(600, 1, 4, 4)
    features = RandomNetwork(x, CPU)
    torch.testing.assert_close(in_parts(features, x), features(x))
