"""The checkpoint protocol: a crash leaves a whole checkpoint, damage is found (T4, T8). Any moment: test_disk.py."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anydit.train import checkpoint
from anydit.train.checkpoint import broken, newest, save, sweep


def _groups(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((3, 2), float(step))}, "optimizer": {"w:step": torch.tensor(float(step))}}


def _save(root: Path, step: int, keep: int = 2) -> None:
    save(root, step, _groups(step), {"step": step}, keep)


def test_comes_back_as_it_was(tmp_path: Path):
    _save(tmp_path, 5)
    found = newest(tmp_path)
    assert found is not None and found.step == 5 and found.info() == {"step": 5}
    for name, tensors in _groups(5).items():
        back = found.tensors(name)
        assert back.keys() == tensors.keys()
        assert all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in tensors.items())


def test_keeps_as_many_whole_ones_as_asked(tmp_path: Path):
    for step in (1, 2, 3, 4):
        _save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]


@pytest.mark.fault("T8")
def test_a_broken_one_does_not_count_as_kept(tmp_path: Path):
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    (tmp_path / "step-000000002" / "model.safetensors").unlink()
    _save(tmp_path, 3)
    assert broken(tmp_path / "step-000000001") is None, "the only other whole one must stay"


def _flip_bit(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 20)


def _remove(folder: Path) -> None:
    (folder / "optimizer.safetensors").unlink()


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _garbled_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]", encoding="utf-8")


@pytest.mark.fault("T8")
def test_what_the_disk_cannot_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, said = checkpoint.sha256, list[str]()

    def failing(path: Path) -> str:
        if path.parent.name == "step-000000002":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(checkpoint, "sha256", failing)
    for step in (1, 2):
        _save(tmp_path, step, keep=5)
    found = newest(tmp_path, said.append)
    assert found is not None and found.step == 1
    assert "step-000000002 is damaged (model.safetensors cannot be read: Input/output error)" in said[0]


def test_later_ones_are_removed_when_a_run_goes_back(tmp_path: Path):
    for step in (1, 2, 3):
        _save(tmp_path, step, keep=5)
    checkpoint.forget(tmp_path, after=1)
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-000000001"]


@pytest.mark.fault("T8")
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_flip_bit, "model.safetensors"),
        (_truncate, "model.safetensors"),
        (_remove, "optimizer.safetensors"),
        (_no_manifest, "manifest.json"),
        (_garbled_manifest, "manifest.json"),
    ],
)
def test_damage_is_found_named_and_passed_over(tmp_path: Path, damage, named: str):
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    damage(tmp_path / "step-000000002")
    said: list[str] = []
    found = newest(tmp_path, said.append)
    assert found is not None and found.step == 1
    assert len(said) == 1 and named in said[0] and "step-000000002" in said[0]


@pytest.mark.fault("T8")
def test_a_manifest_cannot_point_outside(tmp_path: Path):
    _save(tmp_path, 1)
    manifest = tmp_path / "step-000000001" / "manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "sha256": {"../../etc/passwd": "0"}}), encoding="utf-8")
    assert broken(manifest.parent) == "../../etc/passwd is missing"


@pytest.mark.fault("T4")
@pytest.mark.parametrize("name", ["write_safetensors", "fsync", "_write_manifest", "_prune"])
@pytest.mark.parametrize("keep", [1, 2])
def test_a_failure_at_each_point_leaves_a_whole_one(tmp_path: Path, monkeypatch, name: str, keep: int):
    _save(tmp_path, 1, keep)

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, name, fail)
        with pytest.raises(OSError, match="No space"):
            _save(tmp_path, 2, keep)
    assert not list(tmp_path.glob(".unfinished-*")), "nothing half-written is left"
    found = newest(tmp_path)
    assert found is not None and found.step in (1, 2)
    _save(tmp_path, 3, keep)
    found = newest(tmp_path)
    assert found is not None and found.step == 3


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from anydit.train import checkpoint
calls = 0
real = getattr(checkpoint, sys.argv[2])
def die(*args, **kwargs):
    real(*args, **kwargs) if sys.argv[3] == "after" else None
    os.kill(os.getpid(), signal.SIGKILL)
setattr(checkpoint, sys.argv[2], die)
checkpoint.save(Path(sys.argv[1]), 2, {"model": {"w": torch.ones(2)}}, {"step": 2}, 1)
"""


@pytest.mark.fault("T4")
@pytest.mark.parametrize(
    ("name", "when"), [("write_safetensors", "after"), ("_write_manifest", "after"), ("_prune", "before")]
)
def test_killed_while_saving(tmp_path: Path, name: str, when: str):
    _save(tmp_path, 1, keep=1)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), name, when], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    found = newest(tmp_path)
    assert found is not None and found.step == (2 if name == "_prune" else 1)
    sweep(tmp_path)
    assert not list(tmp_path.glob(".unfinished-*"))
    _save(tmp_path, 3, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000003"]


def test_saving_a_step_again_replaces_it(tmp_path: Path):
    _save(tmp_path, 1)
    save(tmp_path, 1, {"model": {"w": torch.zeros(1)}}, {"step": 1}, 2)
    found = newest(tmp_path)
    assert found is not None and torch.equal(found.tensors("model")["w"], torch.zeros(1))


def test_nothing_there(tmp_path: Path):
    assert newest(tmp_path / "none") is None
