"""What the tests of diffusers' text-to-image models share: random weights, inputs, and both networks' outputs."""

from typing import Any

import torch
from torch import Tensor

from anydit.model.dit import DiT, DiTConfig
from anydit.tensors import Tokens


def randomised(model: torch.nn.Module) -> Any:
    """Every weight random: both networks start with zeros that would hide faults."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=g) * scale)
    return model.eval()


def random_weights(config: DiTConfig) -> dict[str, Tensor]:
    return randomised(DiT(config)).state_dict()


def text(width: int, pooled: int = 1, *, padded: bool = True) -> Tokens:
    """Three texts of up to six tokens."""
    g = torch.Generator().manual_seed(2)
    exists = torch.arange(6) < torch.tensor([[6], [2], [4]]) if padded else torch.ones(3, 6, dtype=torch.bool)
    return Tokens(torch.randn(3, 6, width, generator=g), exists, torch.randn(3, pooled, generator=g))


def draw(config: DiTConfig, size: tuple[int, ...] | None = None) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(3, config.in_channels, *(size or config.size or ()), generator=g)


@torch.no_grad()
def ours(config: DiTConfig, tensors: dict[str, Tensor], x: Tensor, t: Tensor, given: Tokens) -> Tensor:
    model = DiT(config)
    model.load_state_dict(tensors)
    return model(x, t, {"text": given})


def relative(got: Tensor, expected: Tensor) -> float:
    assert expected.std() > 0.1
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm())
