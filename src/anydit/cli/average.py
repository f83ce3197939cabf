"""Average a run's weights anew, over any length of its training.

anydit average runs/profiled --length 0.1 --to longer
"""

import argparse
from pathlib import Path

from anydit.cli import Parser
from anydit.inference.pipeline import load
from anydit.train.posthoc import averaged
from anydit.weights import load_strictly


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = Parser("anydit average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder, trained with --train.profiles Profiles")
    parser.add_argument("--length", type=float, required=True, help="of the average, as a share of the training: 0.1")
    parser.add_argument("--step", type=int, help="up to which it goes (the last one that was written down)")
    parser.add_argument("--to", type=Path, required=True, help="the folder to write; must not exist yet")
    known = parser.parse_args(argv)
    if known.to.exists():
        raise ValueError(f"to: got {known.to}, which exists; expected a path to write anew")
    made = averaged(known.run, known.length, known.step)
    pipeline = load(known.run, "cpu")
    load_strictly(pipeline.model, made.weights, known.run)
    pipeline.save(known.to)
    print(f"Step {made.step}: an average of length {made.length:g}, whose profile is off by {made.misfit:.1%}.")
    print(f"Wrote {known.to}")
    return 0
