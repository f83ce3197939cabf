"""Densities on the data's own scale, of pipelines whose network knows its data in closed form."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.codecs import Codec, Normalize
from anydit.diffusion import paths
from anydit.diffusion.predictions import X0
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.tensors import per_sample

SHIFT, SCALE = (10.0, -3.0), (2.0, 0.5)
MEANS, STD = (-1.0, 0.7), 0.6
"""Of the latents' values in each class."""


class Exact(DiT):
    """Answers with the expected data where every latent value is normal, of a mean that the label says."""

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any] | None = None) -> Tensor:
        mean = per_sample(torch.tensor(MEANS)[(cond or {})["label"]], x)
        alpha, sigma = (per_sample(f(t), x) for f in (paths.Cosine().alpha, paths.Cosine().sigma))
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return mean + gain * (x - alpha * mean)


@pytest.fixture
def pipe() -> Pipeline:
    model = DiTConfig(width=8, depth=1, heads=1, patch=(1, 1), channels=2, size=(2, 3), conditions={"label": Label(2)})
    config = PipelineConfig(model=model, path=paths.Cosine(), prediction=X0(), codec=Normalize(SHIFT, SCALE))
    return Pipeline(config, Exact(model))


LABELS = torch.tensor([0, 1, 1, 0, 1])


def data_and_density() -> tuple[Tensor, Tensor]:
    """Data of both classes, and their exact log densities, on their own scale."""
    means = per_sample(torch.tensor(MEANS)[LABELS], torch.zeros(5, 2, 2, 3))
    z = means + STD * torch.randn(5, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    shift, scale = (torch.tensor(v).reshape(1, 2, 1, 1) for v in (SHIFT, SCALE))
    density = torch.distributions.Normal(means * scale + shift, STD * scale.expand_as(z))
    x = z * scale + shift
    return x, density.log_prob(x).flatten(1).sum(1)


def test_of_a_gaussian_on_its_own_scale(pipe: Pipeline):
    x, exact = data_and_density()
    for probes in (None, 1):  # values are independent, so that one probe is exact too
        nats = pipe.log_likelihood(x, {"label": LABELS}, steps=100, probes=probes)
        torch.testing.assert_close(nats, exact, rtol=0, atol=3e-2)
    assert (pipe.log_likelihood(x, {"label": 1 - LABELS}) < exact - 3).all(), "the other class is less likely"


def test_does_not_depend_on_the_batch(pipe: Pipeline):
    x, _ = data_and_density()
    whole = pipe.log_likelihood(x, {"label": LABELS}, steps=5, seed=3)
    torch.testing.assert_close(pipe.log_likelihood(x, {"label": LABELS}, steps=5, seed=3, batch=2), whole)
    assert whole.device.type == "cpu" and whole.dtype == torch.float32


def test_probes_are_of_a_sample_s_place():
    """A network that mixes values, so that probes matter."""
    model = DiTConfig(width=8, depth=1, heads=1, patch=(1, 1), channels=2, size=(2, 3))
    mixing = Pipeline(PipelineConfig(model=model, codec=Normalize((0.0,), (1.0,))))
    for parameter in mixing.model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    x = torch.randn(5, 2, 2, 3)
    whole = mixing.log_likelihood(x, steps=5, seed=3)
    torch.testing.assert_close(mixing.log_likelihood(x, steps=5, seed=3, batch=2), whole, rtol=1e-4, atol=1e-3)
    assert (mixing.log_likelihood(x, steps=5, seed=4) - whole).abs().max() > 1e-2


def test_a_sample_of_bytes(pipe: Pipeline):
    x = torch.tensor([9, 11], dtype=torch.uint8).repeat(6).reshape(1, 2, 2, 3)
    torch.testing.assert_close(
        pipe.log_likelihood(x, {"label": 0}, steps=5), pipe.log_likelihood(x.float(), {"label": 0}, steps=5)
    )


class Squeezing(Codec):
    """Forgets a channel."""

    def encode(self, x: Tensor) -> Tensor:
        return x[:, :2]

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([z, z[:, :1]], dim=1)


def test_refuses_what_has_no_density(pipe: Pipeline):
    x, _ = data_and_density()
    squeezed = Pipeline(pipe.config, pipe.model, Squeezing())
    with pytest.raises(ValueError, match="codec: got Squeezing, which tells no density"):
        squeezed.log_likelihood(torch.zeros(1, 3, 2, 3), {"label": 0})
    with pytest.raises(ValueError, match="cond: got mask, expected none"):
        pipe.log_likelihood(x, {"label": LABELS, "mask": torch.ones(5, 2, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="x: got NaN or infinity"):
        pipe.log_likelihood(x / 0, {"label": LABELS})
    with pytest.raises(ValueError, match="codec: got samples of 3 channels, expected 2"):
        pipe.log_likelihood(torch.zeros(1, 3, 2, 3), {"label": 0})
    with pytest.raises(ValueError, match="steps: got 0"):
        pipe.log_likelihood(x, {"label": LABELS}, steps=0)
    with pytest.raises(ValueError, match="batch: got 0"):
        pipe.log_likelihood(x, {"label": LABELS}, batch=0)
