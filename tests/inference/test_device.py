"""Where to compute, and what is free there."""

from pathlib import Path

import pytest
import torch

from anydit.inference import device
from anydit.inference.device import cores, find_device, free_bytes

CPU, MIB = torch.device("cpu"), 2**20


def test_what_is_free():
    free = free_bytes(CPU)
    assert free is None or MIB < free < 2**50
    assert free_bytes(torch.device("meta")) is None


STAT = "anon 1048576\nactive_file 2097152\ninactive_file 1048576\n"


@pytest.mark.skipif(free_bytes(CPU) is None, reason="only Linux tells")
@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "8388608\n", "memory.current": "7340032\n", "memory.stat": STAT},
        {"memory/memory.limit_in_bytes": "8388608", "memory/memory.usage_in_bytes": "7340032",
         "memory/memory.stat": "active_file 0\ntotal_active_file 2097152\ntotal_inactive_file 1048576\n"},
    ],
    ids=["version 2", "version 1"],
)  # fmt: skip
def test_files_that_a_container_has_read_are_free(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(device, "GROUPS", tmp_path)
    assert free_bytes(CPU) == 4 * MIB


def test_a_container_without_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in {"memory.max": "max\n", "memory.current": "1\n", "memory.stat": STAT}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(device, "GROUPS", tmp_path)
    assert device._left_of_group() is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({}, 8),
    ],
)
def test_processors_of_a_container(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(device, "GROUPS", tmp_path)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores() == expected


def test_an_accelerator_is_not_touched_before_a_process_has_its_own(monkeypatch: pytest.MonkeyPatch):
    """Memory on it would be taken on the first one by all processes that torchrun starts."""

    def touched(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("memory was taken")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch, "empty", touched)
    assert find_device("cuda") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"device: got 'cuda:7', expected one that this machine has: cpu or cuda"):
        find_device("cuda:7")
