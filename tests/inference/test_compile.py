"""Compiling and bfloat16, applied from outside."""

import shutil
import subprocess
import sys

import pytest
import torch

from anydit.inference.compile import autocast, compile_blocks, emulates_bf16, product_dtype
from anydit.model.dit import DiT, DiTConfig

CONFIG = DiTConfig(width=16, depth=1, heads=2, patch=(2,), channels=1, size=(4,))


def test_no_compiler_is_said_before_any_work(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"no C\+\+ compiler .* set compile to False"):
        compile_blocks(DiT(CONFIG))


def test_a_compiled_model_keeps_its_names():
    model = DiT(CONFIG)
    before = list(model.state_dict())
    compile_blocks(model)  # compiling itself waits for the first call
    assert list(model.state_dict()) == before


ONE_GRAPH = """
import torch
from anydit.inference.compile import compile_blocks, fuse_blocks
from anydit.model.dit import DiT, DiTConfig
from anydit.model.text import Cross, Joint, Text
from anydit.model.tokens import Rope
from anydit.tensors import Tokens

torch._dynamo.config.recompile_limit = 1  # of PyTorch, over all networks
compile_blocks(DiT(DiTConfig(16, 1, 2, (2,), channels=1, size=(4,))))
text = Tokens(torch.randn(3, 5, 7), torch.ones(3, 5, dtype=torch.bool), torch.randn(3, 4))
x, t = torch.randn(3, 3, 4, 6), torch.rand(3)
for entry, kernels in ((Cross(), False), (Joint(dual=1), True)):
    conditions = {"text": Text(7, 4, entry)}
    model = DiT(DiTConfig(24, 3, 2, (2, 2), channels=3, size=(4, 6), conditions=conditions, position=Rope()))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    expected = model(x, t, {"text": text})
    if kernels:
        fuse_blocks(model)
    for module in (*model.blocks, model.output):
        module.compile(fullgraph=True, backend="aot_eager")
    got = model(x, t, {"text": text})
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    got.sum().backward()
    assert all(p.grad is not None for p in model.blocks.parameters())
"""


def test_blocks_with_a_text_or_with_kernels_make_one_graph_each():
    """In a process of its own: the checks of shapes that tests run under are not made for being compiled."""
    subprocess.run([sys.executable, "-c", ONE_GRAPH], check=True)


def test_a_gpu_without_bfloat16_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(ValueError, match="Old GPU has no bfloat16; set bf16 to False"):
        autocast(torch.device("cuda"), bf16=True)


WITH, WITHOUT = ({"architecture": "x86_64", "avx512_bf16": has, "amx_bf16": False} for has in (True, False))


@pytest.mark.parametrize(
    ("told", "bf16", "dtype"),
    [(WITH, True, torch.bfloat16), (WITH, False, torch.float32), (WITHOUT, True, torch.float32)],
)
def test_autocast_changes_products_only_where_asked_and_where_it_pays(monkeypatch, told, bf16, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    a = torch.randn(4, 4)
    with autocast(torch.device("cpu"), bf16):
        assert (a @ a).dtype == dtype == product_dtype(torch.device("cpu"), bf16)


@pytest.mark.parametrize(
    ("told", "slow"),
    [
        (WITHOUT, True),
        (WITH, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_a_processor_without_bfloat16_is_known(monkeypatch, told, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert emulates_bf16(torch.device("cpu")) is slow
    assert not emulates_bf16(torch.device("meta"))
