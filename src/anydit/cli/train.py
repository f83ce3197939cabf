"""Train a recipe, or go on with a run.

anydit train digits --train.steps 500
anydit train images --data.path ~/photos --data.size 48 64
"""

import argparse
from pathlib import Path

from anydit.config import overridden
from anydit.recipes import find
from anydit.train.guards import Interrupted
from anydit.train.loop import train

EXIT_INTERRUPTED = 130


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("anydit train", add_help=False)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device")
    known, rest = parser.parse_known_args(argv)
    if known.recipe is None:
        print(__doc__)
        print("  RECIPE          one of `anydit recipes`, or FILE.py:FUNCTION; RECIPE --help lists its fields")
        print("  --out FOLDER    where to write the run (runs/RECIPE); rerun the same command to go on")
        print("  --device NAME   cpu, cuda, cuda:1, mps (the accelerator that is there)")
        print("  --FIELD VALUE   any field of the recipe: --model.depth 8, --model.position Rope")
        return 0 if set(rest) & {"-h", "--help"} else 2
    recipe = overridden(find(known.recipe)(), rest, f"anydit train {known.recipe}", find(known.recipe).__doc__ or "")
    out = known.out or Path("runs") / known.recipe.rpartition(":")[2]
    try:
        train(recipe, out, known.device)
    except Interrupted as stopped:
        print(f"Stopped and saved after step {stopped.step}. Run the same command again to go on.")
        return EXIT_INTERRUPTED
    print(f"Trained: {out}. Look at {out}/samples.png, then: anydit evaluate {out}")
    return 0
