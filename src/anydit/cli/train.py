"""Train a recipe, or go on with a run.

anydit train digits --train.steps 500
anydit train images --data.path ~/photos --data.size 48 64
anydit train images --data.path ~/photos --data.size 32 32 --init models/dit-xl
torchrun --nproc-per-node 2 -m anydit train digits
"""

import os
from inspect import getdoc
from pathlib import Path

from anydit.cli import INTERRUPTED, Parser
from anydit.cli._fields import asked_of, asks_for_help, page, without_help
from anydit.inference.config import PipelineConfig
from anydit.interop.source import read
from anydit.overrides import overridden
from anydit.recipes import find
from anydit.train.guards import Interrupted
from anydit.train.loop import train
from anydit.train.start import Start, begun, read_origin

HELP = """\
  RECIPE          one of `anydit recipes`, or FILE.py:FUNCTION; RECIPE --help lists its fields
  --out FOLDER    where to write the run (runs/RECIPE); rerun the same command to go on
  --device NAME   cpu, cuda, cuda:1 (the GPU that is there)
  --init FOLDER   begin with the network and weights of a run, an exported folder, or diffusers'
  --FIELD VALUE   any field of the recipe: --model.depth 8, --model.position Rope"""

LEGEND = "The fields, what each takes, and in brackets what it holds. Another class brings other fields along."


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = Parser("anydit train", add_help=False)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--init", type=Path)
    known, rest = parser.parse_known_args(argv)
    if known.recipe is None:
        print(f"{__doc__}\n{HELP}")
        return 0 if asks_for_help(rest) else 2
    make = find(known.recipe)
    out = known.out or Path("runs") / known.recipe.rpartition(":")[2]
    start = None if known.init is None else Start.of(known.init, *read(known.init))
    origin = read_origin(out) if start is None else start.origin
    recipe = make()
    if origin is not None and isinstance(recipe, PipelineConfig):
        recipe = begun(recipe, origin)
    recipe = overridden(recipe, without_help(rest), f"anydit train {known.recipe}", parser.flags)
    if asks_for_help(rest):
        print(f"{getdoc(make) or known.recipe}\n\n{HELP}\n\n{LEGEND}\n\n{page(recipe)}")
        return 0
    asked = asked_of(recipe, rest) if isinstance(recipe, PipelineConfig) else ()
    first = os.environ.get("RANK", "0") == "0"
    try:
        train(recipe, out, known.device, start=start, asked=asked)
    except Interrupted as stopped:
        if first:
            print(f"Stopped and saved after step {stopped.step}. Run the same command again to go on.")
        return INTERRUPTED
    if first:
        print(f"Look at {out}/{recipe.picture}, then: anydit evaluate {out}")
    return 0
