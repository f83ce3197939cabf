"""Blocks with a text, against their formulas written out for one sample and one head at a time."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anydit.model.blocks import Block, JointBlock, Layers, Places
from anydit.model.norms import GELU, LayerNorm, Norm, RMSNorm

WIDTH, HEADS = 12, 2


def randomised(module: Any) -> Any:
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.3 if p.ndim == 1 else p.shape[1] ** -0.5))
    return module.double()


def layers(qk_norm: Norm | None) -> Layers:
    return Layers(WIDTH, HEADS, (LayerNorm(), LayerNorm()), GELU(), qk_norm)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale) + shift


def weighted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one sample's `[n width]` tokens, head by head."""
    heads = [(part.T @ other).softmax(-1) @ value for part, other, value in _heads(q / (WIDTH / HEADS) ** 0.5, k, v)]
    return torch.cat(heads, dim=1)


def _heads(q: Tensor, k: Tensor, v: Tensor) -> Any:
    for one, two, three in zip(q.chunk(HEADS, 1), k.chunk(HEADS, 1), v.chunk(HEADS, 1), strict=True):
        yield one.T, two.T, three


def normed(norm: Any, x: Tensor) -> Tensor:
    return torch.cat([norm(part) for part in x.chunk(HEADS, 1)], dim=1)


def split(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (attention.qkv(x)).chunk(3, dim=1)
    return normed(attention.q_norm, q), normed(attention.k_norm, k), v


def fed(block: Any, x: Tensor, rows: Tensor) -> Tensor:
    hidden = F.gelu(block.mlp.up(modulated(x, rows[3], rows[4])), approximate="tanh")
    return x + rows[5] * block.mlp.down(hidden)


EXISTS = torch.tensor([[True, True, False, False], [True, False, True, True]])


@pytest.mark.parametrize("qk_norm", [None, RMSNorm()])
def test_cross_attention_comes_between_the_two_and_is_not_modulated(qk_norm: Norm | None) -> None:
    block = randomised(Block(layers(qk_norm), cross=True))
    x, context, rows = draw(2, 5, WIDTH), draw(2, 4, WIDTH, seed=1), draw(2, 6, WIDTH, seed=2)
    got, same = block(x, context, rows, Places(None, None, EXISTS))
    assert same is context
    for b in range(2):
        m, text, cross = rows[b], context[b][EXISTS[b]], block.cross
        one = x[b]
        q, k, v = split(block.attention, modulated(one, m[0], m[1]))
        one = one + m[2] * block.attention.out(weighted(q, k, v))
        k, v = cross.context.kv(text).chunk(2, dim=1)
        q, k = normed(cross.q_norm, cross.q(one)), normed(cross.context.k_norm, k)
        one = one + cross.out(weighted(q, k, v))
        torch.testing.assert_close(got[b], fed(block, one, m))


@pytest.mark.parametrize("qk_norm", [None, RMSNorm()])
@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_in_joint_attention_each_attends_to_both(qk_norm: Norm | None, dual: bool, last: bool, masked: bool) -> None:
    block = randomised(JointBlock(layers(qk_norm), last=last, dual=dual))
    assert block.rows == 6 + 3 * dual + (2 if last else 6)
    x, context, rows = draw(2, 5, WIDTH), draw(2, 4, WIDTH, seed=1), draw(2, block.rows, WIDTH, seed=2)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]]) if masked else None
    got, other = block(x, context, rows, Places(None, mask, EXISTS))
    for b in range(2):
        there = slice(None) if mask is None else mask[b]
        one, text = x[b][there], context[b][EXISTS[b]]
        n = len(one)
        m, m_dual, m_text = rows[b].split([6, 3 * dual, len(rows[b]) - 6 - 3 * dual])
        ours = split(block.sample.attention, modulated(one, m[0], m[1]))
        for_text = modulated(text, m_text[0], m_text[1])
        if last:
            k, v = block.context.attention.kv(for_text).chunk(2, dim=1)
            theirs = (for_text[:0], normed(block.context.attention.k_norm, k), v)
        else:
            theirs = split(block.context.attention, for_text)
        both = weighted(*(torch.cat(pair) for pair in zip(ours, theirs, strict=True)))
        after = one + m[2] * block.sample.attention.out(both[:n])
        if dual:
            alone = weighted(*split(block.dual, modulated(one, m_dual[0], m_dual[1])))
            after = after + m_dual[2] * block.dual.out(alone)
        torch.testing.assert_close(got[b][there], fed(block.sample, after, m))
        if last:
            assert other is context
        else:
            text = text + m_text[2] * block.context.attention.out(both[n:])
            torch.testing.assert_close(other[b][EXISTS[b]], fed(block.context, text, m_text))
