"""The kernels as a compiler for GPUs takes them, which needs none; the interpreter would run what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_each_kernel_compiles_for_an_h100_and_spills_nothing(tmp_path: Path) -> None:
    """In a process of its own, because this one was told to interpret. `wide`: accesses of 16 bytes at a time."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(__file__).with_name("ahead.py"))]
    done = subprocess.run(
        command, env=environment | {"TRITON_CACHE_DIR": str(tmp_path)}, check=True, stdout=subprocess.PIPE
    )
    told = json.loads(done.stdout)
    assert set(told) == {"norm_forward", "norm_backward", "gate_backward", "update"}
    for name, taken in told.items():
        assert taken["spilled"] == 0, name
        assert taken["registers"] <= 128, name
        assert taken["wide"] >= 6, name
