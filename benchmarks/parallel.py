"""Training with several processes: step time at one global batch, and whether the curves are one.

    python benchmarks/parallel.py [--processes 1 2] [--steps 60] [--device cpu]

Starts the command that a user types, `torchrun ... -m anydit train digits`, for each number of processes in turn,
twice, with one thread each, and reads what the runs wrote. Beside it stands what the machine gives at most: a process's
part of the batch alone, and as many such runs at a time that have nothing to do with each other. Run it on a quiet
machine.
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

LIMITS = ["beside it", "ms per step", "of one process's"]

ABOUT = """\
The demo's model (`digits`), a batch of {batch} samples in all, one thread per process, {steps} steps, median of
{rounds} rounds in turn. The losses are those of the first {steps} steps, beside those of one process."""

ROUNDS = 2


def run(out: Path, count: int, steps: int, batch: int, device: str) -> list[dict[str, float]]:
    """Train with so many processes; returns the log."""
    if begun(out, count, steps, batch, device).wait():
        raise SystemExit(f"the training in {out} failed")
    return read(out / LOG_FILE)


def apart(out: Path, runs: int, steps: int, batch: int, device: str) -> float:
    """Seconds of a step of so many runs of one process each at the same time, which exchange nothing."""
    folders = [out / str(n) for n in range(runs)]
    processes = [begun(folder, 1, steps, batch, device) for folder in folders]
    if sum(process.wait() for process in processes):
        raise SystemExit(f"a training in {out} failed")
    return median(entry["seconds"] for folder in folders for entry in read(folder / LOG_FILE)[WARM:])


def begun(out: Path, count: int, steps: int, batch: int, device: str) -> "subprocess.Popen[bytes]":
    """The command that trains with so many processes."""
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    flags = ["--out", str(out), "--device", device, "--train.steps", str(steps), "--train.batch", str(batch),
             "--train.log-every", "1", "--train.sample-every", "1000000"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*agent, "-m", "anydit", "train", "digits", *flags], env=environment)


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
        last, steps = known.processes[-1], known.steps
        part = known.batch // last
        limits = [
            (f"one run of a batch of {part}", apart(Path(folder) / "one", 1, steps, part, known.device)),
            (f"{last} such runs at a time, apart", apart(Path(folder) / "all", last, steps, part, known.device)),
        ]
    seconds = {n: median(e["seconds"] for turn in range(ROUNDS) for e in logs[n, turn][WARM:]) for n in known.processes}
    first, rows = known.processes[0], list[list[object]]()
    for n in known.processes:
        both = zip(logs[n, 0], logs[first, 0], strict=True)
        off = max(abs(a["loss"] / b["loss"] - 1) for a, b in both)
        rows.append([n, 1000 * seconds[n], seconds[n] / seconds[first], known.batch / seconds[n], off])
    about = ABOUT.format(batch=known.batch, steps=known.steps, rounds=ROUNDS)
    beside = table(LIMITS, [[what, 1000 * each, each / seconds[first]] for what, each in limits])
    what = "What the machine gives at most, where nothing is exchanged:"
    publish("parallel", "Training with several processes", f"{about}\n\n{table(HEAD, rows)}\n\n{what}\n\n{beside}")


if __name__ == "__main__":
    main()
