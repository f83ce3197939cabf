"""Compiling and bfloat16, applied from outside."""

import shutil

import pytest
import torch

from anydit.inference.compile import autocast, compile_blocks, emulates_bf16
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


def test_a_gpu_without_bfloat16_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(ValueError, match="Old GPU has no bfloat16; set bf16 to False"):
        autocast(torch.device("cuda"), bf16=True)


def test_autocast_changes_products_only_where_asked():
    a = torch.randn(4, 4)
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with autocast(torch.device("cpu"), bf16):
            assert (a @ a).dtype == dtype


@pytest.mark.parametrize(
    ("told", "slow"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_a_processor_without_bfloat16_is_known(monkeypatch, told, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert emulates_bf16(torch.device("cpu")) is slow
    assert not emulates_bf16(torch.device("meta"))
