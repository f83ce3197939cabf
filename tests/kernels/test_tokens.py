"""What kernels make of tokens, and its gradients, beside PyTorch's operations in float64."""

import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anydit.inference.compile import check_kernels, fuse_blocks
from anydit.model.blocks import Between, Block, JointBlock
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import LayerNorm, Norm, RMSNorm
from anydit.model.text import Cross, Joint, Text
from anydit.tensors import Cond, Tokens

pytest.importorskip("triton")

from anydit.kernels import operators, tokens

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KERNELS = Between(tokens.enter, tokens.join, tokens.leave)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def outcome(between: Between, norm: nn.Module, dtype: torch.dtype, given: tuple[Tensor, ...]) -> list[Tensor]:
    """What comes of all three, one after the other, and the gradients of tokens, modulation and weights."""
    x, modulation, weight, dy = (v.to(dtype).requires_grad_() for v in given)
    rows = modulation[:, 2:8].unsqueeze(2).unbind(1)
    after, normed = between.enter(norm, x, *rows[:2])
    after, normed = between.join(norm, after, rows[2], normed @ weight, *rows[3:5])
    y = between.leave(after, rows[5], (normed @ weight.mT).tanh())
    return [y.detach(), *torch.autograd.grad(y, (x, modulation, weight), dy.detach())]


@pytest.mark.parametrize("norm", [LayerNorm(), RMSNorm(1e-3)])
@pytest.mark.parametrize(("n", "width"), [(5, 24), (37, 96), (3, 300)])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_outcome_and_gradients_are_those_of_pytorch_to_rounding(
    norm: Norm, n: int, width: int, dtype: torch.dtype, within: float
) -> None:
    """Modulation is a part of a larger tensor, widths are no powers of 2, and sums over tokens are of several parts."""
    shapes = ((2, n, width), (2, 10, width), (width, width), (2, n, width))
    x, modulation, weight, dy = (draw(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes))
    given = (x + 3, modulation, weight / width**0.5, dy)
    module = norm.build(width, affine=False)
    expected = outcome(Between(), module, torch.float64, given)
    for got, right in zip(outcome(KERNELS, module, dtype, given), expected, strict=True):
        assert got.dtype == dtype
        assert (got.double() - right).norm() < within * right.norm()


def test_sums_over_tokens_are_the_same_to_the_last_bit_every_time():
    x, row, dy = draw(2, 200, 96, seed=0), draw(2, 1, 96, seed=1), draw(2, 200, 96, seed=2)
    assert operators.Tile.of(200, 96).summed(2, 200) < 100, "so that several programs sum"
    once, again = (operators.gated_backward(dy, x, row)[1] for _ in range(2))
    assert torch.equal(once, again)
    torch.testing.assert_close(once, (x * dy).sum(1, keepdim=True), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("entry", [None, Cross(), Joint(dual=1)])
def test_a_model_with_kernels_is_the_same_model(entry: Any) -> None:
    """Blocks alone, with a text between and with a text beside, of which the last block only reads, beside doubles."""
    conditions = {} if entry is None else {"text": Text(7, 4, entry)}
    model = DiT(DiTConfig(24, 2, 2, (2, 2), channels=1, size=(4, 6), conditions=conditions)).to(DEVICE)
    for i, p in enumerate(model.parameters()):
        p.data.copy_(draw(*p.shape, seed=i) * 0.2)
    text, pooled, exists = draw(3, 5, 7, seed=0), draw(3, 4, seed=1), torch.ones(3, 5, dtype=torch.bool, device=DEVICE)
    x, t = draw(3, 1, 4, 6, seed=2), torch.rand(3, device=DEVICE)

    def run(network: DiT, kind: torch.dtype) -> list[Tensor]:
        told: Cond = {} if entry is None else {"text": Tokens(text.to(kind), exists, pooled.to(kind))}
        out = network(x.to(kind), t.to(kind), told)
        out.square().sum().backward()
        return [out.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]

    names, expected = list(model.state_dict()), run(deepcopy(model).double(), torch.float64)
    fuse_blocks(model)
    fused = [b.sample if isinstance(b, JointBlock) else b for b in model.blocks]
    assert all(isinstance(b, Block) and b.between.join is tokens.join for b in fused)
    assert list(model.state_dict()) == names
    for got, right in zip(run(model, torch.float32), expected, strict=True):
        assert (got.double() - right).norm() <= 1e-5 * right.norm()


def refused(why: str, run: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=why):
        run()


def test_where_kernels_do_not_run_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DiTConfig(8200, 1, 2, (2,), channels=1, size=(4,))
    with torch.device("meta"):
        wide = DiT(config)
    refused("width 8200, expected at most 8192", lambda: fuse_blocks(wide))
    monkeypatch.setitem(sys.modules, "triton", None)
    refused("found no Triton", lambda: check_kernels(DEVICE))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    refused("expected a GPU for them; set train.kernels to None", lambda: check_kernels(torch.device("cpu")))
    refused("expected a GPU for them; leave out fuse_blocks", lambda: fuse_blocks(wide))
