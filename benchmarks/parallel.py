"""Training with several processes: step time at one global batch, and whether the curves are one.

    python benchmarks/parallel.py [--processes 1 2] [--steps 60] [--device cpu]

Starts the command that a user types, `torchrun ... -m anydit train digits`, for each number of processes in turn,
twice, with one thread each, and reads what the runs wrote. Run it on a quiet machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from results import publish, table

from anydit.train.log import LOG_FILE, read

WARM = 20
"""Steps that are left out at the beginning."""

HEAD = ["processes", "ms per step", "of one process's", "samples per second", "largest relative difference of a loss"]

ABOUT = """\
The demo's model (`digits`), a batch of {batch} samples in all, one thread per process, {steps} steps, median of
{rounds} rounds in turn. The losses are those of the first {steps} steps, beside those of one process."""

ROUNDS = 2


def run(out: Path, count: int, steps: int, batch: int, device: str) -> list[dict[str, float]]:
    """Train with so many processes; returns the log."""
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    flags = ["--out", str(out), "--device", device, "--train.steps", str(steps), "--train.batch", str(batch),
             "--train.log-every", "1", "--train.sample-every", "1000000"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*agent, "-m", "anydit", "train", "digits", *flags], check=True, env=environment)
    return read(out / LOG_FILE)


def main() -> None:
    """The page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = {
            (count, turn): run(Path(folder) / f"{count}-{turn}", count, known.steps, known.batch, known.device)
            for turn in range(ROUNDS)
            for count in known.processes
        }
    seconds = {n: median(e["seconds"] for turn in range(ROUNDS) for e in logs[n, turn][WARM:]) for n in known.processes}
    first, rows = known.processes[0], list[list[object]]()
    for n in known.processes:
        both = zip(logs[n, 0], logs[first, 0], strict=True)
        off = max(abs(a["loss"] / b["loss"] - 1) for a, b in both)
        rows.append([n, 1000 * seconds[n], seconds[n] / seconds[first], known.batch / seconds[n], off])
    about = ABOUT.format(batch=known.batch, steps=known.steps, rounds=ROUNDS)
    publish("parallel", "Training with several processes", f"{about}\n\n{table(HEAD, rows)}")


if __name__ == "__main__":
    main()
