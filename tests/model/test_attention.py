"""Attention against its formula, and its two ways to compute against each other."""

from inspect import unwrap
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from anydit.model.attention import Attention, attend
from anydit.model.backend import OF, ORDER, SHORT_TOKENS, Backend, in_products, settle, use, used, using
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


@pytest.mark.parametrize("backend", ["flash", "math"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_backends_agree_forward_and_backward(backend: Backend, kind: torch.dtype) -> None:
    base = [torch.randn(2, 3, 20, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    results = []
    for name, dtype in ((backend, kind), (None, torch.float64)):
        q, k, v, out = (t.clone().to(kind).to(dtype) for t in base)
        parts = [t.requires_grad_() for t in (q, k, v)]
        with using(name):
            y = attend(*parts, None)
        y.backward(out)
        results.append([y.detach().double(), *(p.grad.double() for p in parts if p.grad is not None)])
    for got, expected in zip(*results, strict=True):
        assert (got - expected).norm() / expected.norm() < (1e-5 if kind == torch.float32 else 0.02)


def kernels(*, grad: bool) -> set[str]:
    """What a call on a CPU is done by."""
    q, k, v = (torch.randn(2, 3, 20, 8, requires_grad=grad) for _ in range(3))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        attend(q, k, v, None)
    return {event.key for event in profile.key_averages()} & {"aten::bmm", FLASH}


FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"


def test_the_chosen_backend_does_the_work_where_gradients_are_asked_for() -> None:
    found = {}
    for name in ("flash", "math", None):
        with using(name):
            assert used() == name
            found[name] = kernels(grad=True)
            assert kernels(grad=False) == {FLASH}, "without gradients nothing is faster"
    assert found == {"flash": {FLASH}, "math": {"aten::bmm"}, None: {FLASH}}


def test_a_choice_within_another_ends_with_it() -> None:
    order = torch._C._get_sdp_priority_order()
    with using("math"), using("flash"):
        assert torch._C._get_sdp_priority_order() != order
        use("cudnn")
        use(None)
    assert used() is None
    assert torch._C._get_sdp_priority_order() == order


def test_what_is_compiled_is_compiled_anew_for_another_backend() -> None:
    """On a GPU, too, where it is not this function that differs, but what PyTorch makes of the call."""
    counter = CompileCounter()
    compiled = torch.compile(lambda q: q + int(unwrap(in_products)(q, q)), backend=counter)
    for name in (None, "flash", "math", "flash", None):
        with using(name):
            compiled(torch.randn(2, 3, 20, 8))
    assert counter.frame_count == 3


@pytest.mark.gpu
@pytest.mark.parametrize("backend", [None, *OF["cuda"]])
def test_backends_of_a_gpu_agree(backend: Backend | None) -> None:
    settle(torch.device("cuda"))
    base = [torch.randn(2, 3, 320, 64, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(4)]
    results = []
    for name, device, kind in ((backend, "cuda", torch.bfloat16), (None, "cpu", torch.float64)):
        q, k, v, out = (t.to(device, kind) for t in base)
        parts = [t.requires_grad_() for t in (q, k, v)]
        with using(name):
            y = attend(*parts, None)
            if device == "cuda" and name is not None:
                assert torch._fused_sdp_choice(*parts) == ORDER[name].value, "another kernel did it"
        y.backward(out)
        results.append([y.detach().double().cpu(), *(p.grad.double().cpu() for p in parts if p.grad is not None)])
    for got, expected in zip(*results, strict=True):
        assert (got - expected).norm() / expected.norm() < 0.02
