"""How far gradients of real runs are from the median before them: what the guard against spikes would have skipped.

    python benchmarks/spikes.py [RUN ...]

Reads the norms that runs (those in runs/) have logged, and hands them to the guard with its defaults.
"""

import json
import sys
from math import isnan
from pathlib import Path
from statistics import median
from time import process_time

import torch
from results import publish, table

from anydit.train.guards import Norms, Spikes
from anydit.train.log import LOG_FILE, read
from anydit.weights import RUN_FILE, read_config

HEAD = ["run", "norm at first", "at last", "steps", "largest multiple", "at step", "above 50", "largest below"]

ABOUT = """\
The guard (`train.spikes`) skips a step whose gradient's norm is more than {factor:g} times the median of the last
{window} that were applied. The runs were made without it, so that what follows a spike may suffer from it. In {steps}
steps the guard would have skipped {skipped}; of those that it applies the largest has {most:.1f} times the median. It
takes {micros:.0f} microseconds of a step."""


def multiples(norms: list[float], config: Spikes) -> list[tuple[float, bool]]:
    """Of each step from the window on: its norm as a multiple of the median, and whether the guard applies it."""
    guard, found = Norms(config, torch.device("cpu")), list[tuple[float, bool]]()
    for value in map(torch.tensor, norms):
        usual, middle = guard.usual(value), float(guard.values.median())
        guard.see(value, usual.float())
        if not isnan(middle):
            found.append((float(value) / middle, bool(usual)))
    return found


def microseconds(config: Spikes, rounds: int = 50, repeats: int = 100) -> float:
    """Of the guard in one step, of this processor's time: the median of some rounds."""
    guard, norm, times = Norms(config, torch.device("cpu")), torch.tensor(1.0), list[float]()
    for _ in range(rounds):
        began = process_time()
        for _ in range(repeats):
            guard.see(norm, norm * guard.usual(norm))
        times.append((process_time() - began) / repeats)
    return 1e6 * median(times)


def main() -> None:
    """The page."""
    config, rows, seen = Spikes(), list[list[object]](), set[str]()
    steps = skipped = 0
    for folder in map(Path, sys.argv[1:] or sorted(Path("runs").glob("*"))):
        norms = [entry["grad_norm"] for entry in read(folder / LOG_FILE)]
        found = multiples(norms, config)
        if not found or (key := json.dumps(norms)) in seen:
            continue  # too short, or a copy
        seen.add(key)
        usual = [multiple for multiple, applied in found if applied]
        top = max(range(len(found)), key=lambda i: found[i][0])
        about = read_config(folder / RUN_FILE)
        rows.append([
            f"{folder.name} (batches of {about['train']['batch']}, {about['prediction']['type']})", max(norms[:100]),
            norms[-1], len(norms), found[top][0], top + config.window, len(found) - len(usual), max(usual),
        ])  # fmt: skip
        steps, skipped = steps + len(found), skipped + len(found) - len(usual)
    if not rows:
        sys.exit(f"no run with more than {config.window} steps to read")
    most = max(float(str(row[-1])) for row in rows)
    told = {"factor": config.factor, "window": config.window, "steps": steps, "skipped": skipped, "most": most}
    about = ABOUT.format(**told, micros=microseconds(config))
    publish("spikes", "Gradients out of all proportion", f"{about}\n\n{table(HEAD, rows)}")


if __name__ == "__main__":
    main()
