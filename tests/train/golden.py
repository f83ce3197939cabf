"""A run of a release, small and kept: `python -m tests.train.golden` makes that of the release to come.

What comes of it is in golden/: the run after 8 steps, and in next.json the losses of the 5 after them with what they
were computed by.
"""

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from anydit.train.loop import train
from anydit.train.recipe import Recipe
from tests.train.tiny import losses, tiny, tiny_with

GOLDEN = Path(__file__).parent / "golden"

KEPT, NEXT = 8, 5
"""Steps of the run that is kept, and after them."""


def small(steps: int) -> Recipe:
    """`tiny`, in fewer bytes."""
    recipe = tiny_with(steps=steps, keep=1)
    return replace(recipe, model=replace(tiny().model, width=8))


def computed_by() -> dict[str, str | int]:
    """What the last bits of a loss depend on."""
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def make() -> None:
    """Train the run that is kept, and a copy of it that goes on."""
    torch.set_num_threads(1)
    shutil.rmtree(GOLDEN, ignore_errors=True)
    train(small(KEPT), GOLDEN, "cpu")
    for file in GOLDEN.iterdir():
        if file.name not in {"recipe.json", "model.safetensors", "checkpoints"}:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    with TemporaryDirectory() as folder:
        shutil.copytree(GOLDEN, run := Path(folder) / "run")
        train(small(KEPT + NEXT), run, "cpu")
        after = {"computed_by": computed_by(), "losses": [loss for _, loss, _ in losses(run)]}
    (GOLDEN / "next.json").write_text(json.dumps(after, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
