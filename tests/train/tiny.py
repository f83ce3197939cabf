"""A recipe that trains in a second, and the command that trains it in a process of its own."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from anydit.codecs import Normalize
from anydit.data import Arrays, ArrayView, Digits, Images
from anydit.inference.config import Sampling
from anydit.model.conditioning import Field, Label
from anydit.model.dit import DiTConfig
from anydit.model.norms import RMSNorm, SwiGLU
from anydit.model.points import Points
from anydit.train.checkpoint import broken, newest
from anydit.train.log import read
from anydit.train.optim import AdamW
from anydit.train.recipe import Recipe, TrainConfig

IN_STEP = """
import os, signal
from anydit.train.ema import EMA
real = EMA.update
def update(self, step, applied):
    if step == {step}:
        {do}
    real(self, step, applied)
EMA.update = update
"""
"""Code that does something after the update of a step; `command` and its like run it first."""

KILL_IN_STEP = IN_STEP.replace(
    "{do}",
    """import threading
        [thread.join() for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
        os.kill(os.getpid(), signal.SIGKILL)""",
)
"""Kills when the checkpoint before is on disk, which is written while training goes on."""


def tiny() -> Recipe:
    """Digits, badly."""
    return Recipe(
        model=DiTConfig(width=16, depth=1, heads=2, patch=(4, 4), conditions={"label": Label()}),
        codec=Normalize.to_unit(0, 16),
        sampling=Sampling(steps=2),
        view=Images(low=0, high=16),
        data=Digits(),
        train=TrainConfig(steps=12, batch=8, optimizer=AdamW(lr=1e-2), save_every=4, sample_every=100, log_every=1),
    )


def beside() -> Recipe:
    """Arrays, each given another, which no step drops: with --data.path."""
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4), conditions={"field": Field()})
    return replace(tiny(), model=model, codec=Normalize(), view=ArrayView(), data=Arrays(field="near"))


def gated() -> Recipe:
    """The same with norms of heads, and gates in the feed-forward networks."""
    return replace(tiny(), model=replace(tiny().model, heads=4, qk_norm=RMSNorm(), mlp=SwiGLU(2.5)))


def pointed() -> Recipe:
    """The same with pixels as points on a line."""
    return replace(tiny(), model=replace(tiny().model, patch=(1, 1), position=Points(axes=1)))


def tiny_with(**train: Any) -> Recipe:
    """`tiny`, trained otherwise."""
    return replace(tiny(), train=replace(tiny().train, **train))


def silent(_: str) -> None:
    """No notes."""


def command(out: Path, *flags: str, before: str = "") -> list[str]:
    """Python that trains `tiny` in `out`; `before` is code run first, to inject a fault."""
    code = f"""
import sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from anydit.train.loop import train
from anydit.train.run import Run
from tests.train import tiny
from anydit.cli.train import run
{before}
sys.exit(run([tiny.__file__ + ":tiny", "--out", {str(out)!r}, *sys.argv[1:]]))
"""
    return [sys.executable, "-c", code, *flags]


def run(out: Path, *flags: str, before: str = "") -> "subprocess.CompletedProcess[str]":
    """Run that command to its end."""
    return subprocess.run(command(out, *flags, before=before), capture_output=True, text=True, check=False, timeout=180)


def losses(out: Path) -> list[tuple[int, str, int]]:
    """Of every step: its number, its loss to the last bit, the checksum of the ids it read."""
    return [(e["step"], e["loss_hex"], e["ids"]) for e in read(out / "log.jsonl")]


def state_hash(out: Path) -> str:
    """sha256 over model, average and optimizer of the newest checkpoint."""
    found = newest(out / "checkpoints")
    assert found is not None
    digest = hashlib.sha256()
    for group in ("model", "ema", "optimizer"):
        for name, tensor in sorted(found.tensors(group).items()):
            digest.update(f"{group} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def steps_taken(out: Path) -> list[int]:
    """Every step that was logged, also those that were done again."""
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def ends_as(out: Path, whole: Path) -> None:
    """Losses and ids of every step, and the state at the end, are those of `whole`; nothing half is left."""
    assert losses(out) == losses(whole)
    assert state_hash(out) == state_hash(whole)
    assert not list((out / "checkpoints").glob(".*"))
    assert all(broken(folder) is None for folder in (out / "checkpoints").iterdir())
