"""Norms and feed-forward networks against their formulas."""

import math
from typing import Any

import pytest
import torch

from anydit.model.norms import GELU, LayerNorm, RMSNorm, SwiGLU


def test_layer_norm_is_its_formula() -> None:
    x = torch.randn(2, 5, 16) * 3 + 1
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.pow(2).mean(-1, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(LayerNorm(eps=0.1).build(16, affine=False)(x), expected)


def test_rms_norm_is_its_formula() -> None:
    x = torch.randn(2, 5, 16) * 3 + 1
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(RMSNorm(eps=0.1).build(16, affine=False)(x), expected)


@pytest.mark.parametrize(("norm", "learned"), [(LayerNorm(), 2), (RMSNorm(), 1)])
def test_affine_norms_learn(norm: LayerNorm | RMSNorm, learned: int) -> None:
    assert len(list(norm.build(8, affine=True).parameters())) == learned
    assert not list(norm.build(8, affine=False).parameters())


def test_gelu_network_is_its_formula() -> None:
    network: Any = GELU(ratio=2.5).build(8)
    x = torch.randn(2, 3, 8)
    h = x @ network.up.weight.T + network.up.bias
    h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    assert h.shape[-1] == GELU(ratio=2.5).hidden(8) == 20
    torch.testing.assert_close(network(x), h @ network.down.weight.T + network.down.bias)


def test_swiglu_network_is_its_formula() -> None:
    network: Any = SwiGLU().build(12)
    x = torch.randn(2, 3, 12)
    gate, up = (x @ w.T + b for w, b in zip(network.up.weight.chunk(2), network.up.bias.chunk(2), strict=True))
    assert up.shape[-1] == 32
    h = gate / (1 + torch.exp(-gate)) * up
    torch.testing.assert_close(network(x), h @ network.down.weight.T + network.down.bias)


def test_swiglu_has_as_many_weights_as_gelu() -> None:
    sizes = [sum(p.numel() for p in mlp.build(384).parameters() if p.ndim == 2) for mlp in (GELU(), SwiGLU())]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("make", [GELU, SwiGLU])
@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_ratios_that_make_no_network_are_refused(make: type[GELU] | type[SwiGLU], ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio: got"):
        make(ratio=ratio)


@pytest.mark.parametrize("make", [LayerNorm, RMSNorm])
def test_a_negative_epsilon_is_refused(make: type[LayerNorm] | type[RMSNorm]) -> None:
    with pytest.raises(ValueError, match=r"eps: got -1\.0"):
        make(eps=-1.0)
