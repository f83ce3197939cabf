"""Attention against its formula, and its two ways to compute against each other."""

from typing import Any

import pytest
import torch

from anydit.model.attention import SHORT_TOKENS, Attention, attend
from anydit.model.norms import LayerNorm, RMSNorm


def test_attention_is_its_formula() -> None:
    module: Any = Attention(12, heads=3)
    x = torch.randn(2, 5, 12)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    q, k, v = (x @ w.T + b for w, b in zip(module.qkv.weight.chunk(3), module.qkv.bias.chunk(3), strict=True))
    out = torch.zeros(2, 5, 12)
    for b in range(2):
        n = int(mask[b].sum())
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            weight = (q[b, :, part] @ k[b, :n, part].T / 2).softmax(-1)
            out[b, :, part] = weight @ v[b, :n, part]
    torch.testing.assert_close(module(x, None, mask), out @ module.out.weight.T + module.out.bias)


@pytest.mark.parametrize("norm", [LayerNorm(), RMSNorm()])
def test_normalised_queries_and_keys_do_not_depend_on_their_scale(norm: LayerNorm | RMSNorm) -> None:
    module: Any = Attention(12, heads=3, qk_norm=norm)
    x = torch.randn(2, 5, 12)
    with torch.no_grad():
        module.qkv.bias.zero_()
        before = module(x)
        module.qkv.weight[:24] *= 50
        torch.testing.assert_close(module(x), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [7, SHORT_TOKENS + 1])
def test_bfloat16_on_a_cpu_agrees_with_doubles_forward_and_backward(masked: bool, tokens: int) -> None:
    g = torch.Generator().manual_seed(0)
    base = [torch.randn(2, 1, tokens, 8, generator=g).bfloat16() for _ in range(4)]
    keys = torch.rand(2, tokens, generator=g) < 0.7 if masked else None
    results = []
    for kind in (torch.bfloat16, torch.float64):
        q, k, v, out = (t.detach().clone().to(kind) for t in base)
        parts = [t.requires_grad_() for t in (q, k, v)]
        y = attend(*parts, keys)
        assert y.dtype == kind
        y.backward(out)
        results.append([y.detach().double(), *(p.grad.double() for p in parts if p.grad is not None)])
    assert len(results[0]) == 4
    for got, expected in zip(*results, strict=True):
        assert (got - expected).norm() / expected.norm() < 0.02
