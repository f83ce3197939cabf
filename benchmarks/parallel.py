"""Training with several processes: step time at one global batch, and whether the curves are one.

    python benchmarks/parallel.py [--processes 1 2] [--batches 128 512] [--steps 60] [--device cpu]

Starts the command that a user types, `torchrun ... -m anydit train digits`, for each number of processes in turn,
twice, with one thread each, and reads what the runs wrote. Beside it stands what the machine gives at most: a process's
part of the batch alone, as many such runs at a time that have nothing to do with each other, and the exchange of the
gradients with nothing else to do. Run it on a quiet machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from results import publish, table

from anydit.model.flops import cost
from anydit.recipes.digits import digits
from anydit.train.log import LOG_FILE, read
from anydit.train.mesh import Mesh
from anydit.train.parallel import together

WARM = 20
"""Steps that are left out at the beginning."""

HEAD = [
    "batch",
    "processes",
    "ms per step",
    "of one process's",
    "samples per second",
    "largest relative difference of a loss",
]

LIMITS = ["batch", "beside it", "ms per step", "of one process's"]

ABOUT = """\
The demo's model (`digits`, {parameters:.1f} M parameters), batches of so many samples in all, one thread per process,
{steps} steps, median of {rounds} rounds in turn. The losses are those of the first {steps} steps, beside those of one
process."""

BESIDE = """\
What the machine gives at most. A step has a part that does not shrink with the batch, the update of all weights, so
that a half takes more than half; and the gradients of all weights are exchanged, by the processors that compute:"""

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""The environment of each process."""

ROUNDS, EXCHANGES, PATIENCE = 2, 40, 60.0
"""Trainings of each kind, exchanges whose median is told, and seconds that a process waits for another."""


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
    flags = ["--out", str(out), "--device", device, "--train.steps", str(steps), "--train.batch", str(batch),
             "--train.log-every", "1", "--train.sample-every", "1000000"]  # fmt: skip
    return subprocess.Popen([*agent(count), "-m", "anydit", "train", "digits", *flags], env=ONE_THREAD)


def agent(count: int) -> list[str]:
    """The command that starts so many processes."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]


def exchange(device: str) -> None:
    """In one of several processes: sum what is as large as the model's gradients, and say how many seconds it takes."""
    with together(torch.device(device), PATIENCE, Mesh()) as (processes, own):
        gradients, times = torch.ones(parameters(), device=own), list[float]()
        for _ in range(EXCHANGES):
            processes.meet()
            began = time.perf_counter()
            dist.all_reduce(gradients)
            float(gradients[0])
            times.append(time.perf_counter() - began)
        if processes.first:
            print(median(times))
        processes.meet()


def exchanged(count: int, device: str) -> float:
    """Seconds that so many processes take for that."""
    command = [*agent(count), __file__, "--exchange", "--device", device]
    done = subprocess.run(command, env=ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def parameters() -> int:
    """Of the model, as the data make it."""
    recipe = digits()
    facts = recipe.data.open("train").facts
    model = replace(recipe.model, channels=facts.channels, size=facts.size)
    return cost(model).parameters


def compared(
    folder: Path, known: argparse.Namespace, batch: int, alone: float
) -> tuple[list[list[object]], list[list[object]]]:
    """Rows of one batch: what processes take together, and what the machine gives at most.

    `alone`: the seconds of an exchange of gradients, which are as many whatever the batch.
    """
    turns = [(count, turn) for turn in range(ROUNDS) for count in known.processes]
    logs = {(n, turn): run(folder / f"{n}-{turn}", n, known.steps, batch, known.device) for n, turn in turns}
    first, last = known.processes[0], known.processes[-1]
    seconds = {n: median(e["seconds"] for turn in range(ROUNDS) for e in logs[n, turn][WARM:]) for n in known.processes}
    rows, part = list[list[object]](), batch // last
    for n in known.processes:
        both = zip(logs[n, 0], logs[first, 0], strict=True)
        off = max(abs(a["loss"] / b["loss"] - 1) for a, b in both)
        rows.append([batch, n, 1000 * seconds[n], seconds[n] / seconds[first], batch / seconds[n], off])
    limits = {
        f"one run of a batch of {part}": apart(folder / "one", 1, known.steps, part, known.device),
        f"{last} such runs at a time, apart": apart(folder / "all", last, known.steps, part, known.device),
        f"the exchange between {last} alone": alone,
    }
    return rows, [[batch, what, 1000 * each, each / seconds[first]] for what, each in limits.items()]


def main() -> None:
    """The page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.exchange:
        exchange(known.device)
        return
    rows, limits, alone = list[list[object]](), list[list[object]](), exchanged(known.processes[-1], known.device)
    for batch in known.batches:
        with tempfile.TemporaryDirectory() as folder:
            of_all, beside = compared(Path(folder), known, batch, alone)
            rows, limits = rows + of_all, limits + beside
    about = ABOUT.format(parameters=parameters() / 1e6, steps=known.steps, rounds=ROUNDS)
    body = f"{about}\n\n{table(HEAD, rows)}\n\n{BESIDE}\n\n{table(LIMITS, limits)}"
    publish("parallel", "Training with several processes", body)


if __name__ == "__main__":
    main()
