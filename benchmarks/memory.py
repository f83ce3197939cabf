"""Memory of a training step: what `anydit profile` predicts, beside what a process of its own then takes.

python benchmarks/memory.py
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from results import publish, table

from anydit.data import Digits
from anydit.diffusion.predictions import V
from anydit.inference.compile import compile_blocks
from anydit.inference.device import find_device, give_back
from anydit.model.dit import DiTConfig
from anydit.train.memory import needed
from anydit.train.recipe import Recipe, TrainConfig
from anydit.train.trial import trial

SIZES = (
    # width, depth, edge of the sample, batch, share of blocks computed again, whether compiled
    (192, 6, 32, 8, 0.0, False),
    (192, 6, 32, 64, 0.0, False),
    (192, 6, 32, 64, 0.0, True),
    (192, 6, 32, 64, 1.0, False),
    (192, 6, 32, 64, 1.0, True),
    (192, 6, 128, 4, 0.0, False),
    (384, 12, 32, 16, 0.0, False),
    (384, 12, 32, 16, 0.0, True),
    (384, 12, 64, 16, 0.5, False),
    (384, 12, 64, 16, 0.5, True),
)
HEAD = ["width", "depth", "tokens", "batch", "recompute", "compiled", "predicted MiB", "measured MiB", "by predicted"]

ABOUT = """In float32, with its average and AdamW's state. On a CPU the system's allocator keeps memory that is free, in
pieces that the next tensors do not fit into, above all where activations are computed again. In the last two columns it
gives memory back at once, as training makes it do where a step needs half of what is free; a step was then seen to take
1.3 to 1.4 times as long. What compiling saves is predicted as a tenth of what blocks keep."""


def recipe(width: int, depth: int, edge: int, batch: int, again: float, compiled: bool) -> Recipe:
    """A network on latents of four channels."""
    model = DiTConfig(width, depth, width // 64, (2, 2), channels=4, size=(edge, edge))
    train = TrainConfig(batch=batch, recompute=again, compile=compiled)
    return Recipe(model=model, prediction=V(), data=Digits(), train=train)


def taken(size: tuple[int, int, int, int, float, bool], device: torch.device) -> int:
    """Bytes at the peak of the second of two steps, above what the process had before there was a network."""
    whole = recipe(*size)
    small = replace(whole, model=replace(whole.model, depth=1), train=replace(whole.train, batch=1))
    _step(small, device)  # code and buffers of PyTorch's own
    before = _now(device, reset=True)
    _step(whole, device)
    return _now(device) - before


def _step(recipe: Recipe, device: torch.device) -> None:
    step, data = trial(recipe.step, device)
    if recipe.train.compile:
        compile_blocks(step.model)
    for n in range(2):
        step(data, n)


def _now(device: torch.device, *, reset: bool = False) -> int:
    """The peak since the last reset; with `reset`, what is taken now."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
            return torch.cuda.memory_allocated(device)
        return torch.cuda.max_memory_allocated(device)
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) * 1024


def row(size: tuple[int, int, int, int, float, bool], device: torch.device) -> list[object]:
    """One configuration, predicted here and measured in a process of its own."""
    words = [sys.executable, __file__, "--device", str(device), "--take", json.dumps(size)]
    told = [words] if device.type == "cuda" else [words, [*words, "--give-back"]]
    ran = [subprocess.run(each, capture_output=True, text=True, check=True) for each in told]
    width, depth, edge, batch, again, compiled = size
    predicted = needed(recipe(*size).step, device)
    measured = [number for done in ran for number in (int(done.stdout) / 2**20, int(done.stdout) / predicted)]
    how = [width, depth, (edge // 2) ** 2, batch, again, "yes" if compiled else "no"]
    return [*how, predicted / 2**20, *measured]


def main() -> None:
    """The page, or one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device")
    parser.add_argument("--take", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--give-back", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = find_device(given.device)
    if given.give_back and not give_back():
        raise RuntimeError("this C library keeps memory, whatever one says")
    if given.take is not None:
        print(taken(given.take, device))
        return
    gpu = device.type == "cuda"
    head = HEAD if gpu else [*HEAD, "given back MiB", "by predicted"]
    found = table(head, [row(size, device) for size in SIZES])
    publish(f"memory{'-gpu' if gpu else ''}", "Memory of a training step", f"{found}\n\n{ABOUT}")


if __name__ == "__main__":
    main()
