"""Processes that train `tiny` together, forked from one that has imported everything, so that each starts at once."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["anydit.cli.train", "tests.train.tiny", "tests.train.drawn", "torch._dynamo", "torch._prims"]
)

NOTHING: Mapping[int, str] = MappingProxyType({})


@dataclass
class Together:
    """Processes under way, and the files that they print to."""

    processes: list[ForkServerProcess]
    files: list[Path]

    def ended(self, rank: int, within: float) -> tuple[int, str]:
        """The exit code of one, minus the signal if one killed it, and what it printed."""
        self.processes[rank].join(within)
        code = self.processes[rank].exitcode
        assert code is not None, f"process {rank} goes on after {within} s"
        return code, self.files[rank].read_text(encoding="utf-8")


def start_together(
    out: Path, count: int, *flags: str, before: str = "", own: Mapping[int, str] = NOTHING, recipe: str = "tiny"
) -> Together:
    """Start so many; `before`: code run first, in the process of a rank also its `own`, to inject a fault.

    `recipe`: of those in `tests.train.tiny`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    folder = out.parent / f"{out.name}-printed-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    started = Together([], [])
    for rank in range(count):
        file = folder / str(rank)
        told = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        words = ["train", f"{Path(__file__).with_name('tiny.py')}:{recipe}", "--out", str(out), *flags]
        process = CONTEXT.Process(target=_one, args=(words, told, f"{before}\n{own.get(rank, '')}", str(file)))
        process.start()
        started.processes.append(process)
        started.files.append(file)
    return started


def run_together(
    out: Path, count: int, *flags: str, before: str = "", own: Mapping[int, str] = NOTHING, recipe: str = "tiny"
) -> tuple[list[int], list[str]]:
    """Run them to their ends: exit codes, and what each printed."""
    started = start_together(out, count, *flags, before=before, own=own, recipe=recipe)
    ends = [started.ended(rank, 180) for rank in range(count)]
    return [code for code, _ in ends], [printed for _, printed in ends]


def alone(out: Path, *flags: str, before: str = "") -> tuple[int, str]:
    """Run one that trains by itself to its end: its exit code, and what it printed, on one line."""
    (code,), (printed,) = run_together(out, 1, *flags, before=before)
    return code, " ".join(printed.split())


def _one(words: list[str], told: Mapping[str, str], before: str, file: str) -> None:
    os.environ.update(told)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    import torch

    from anydit.cli import main

    torch.set_num_threads(1)
    scope: dict[str, Any] = {}
    exec(before, scope)
    code = main(words)
    sys.stdout.flush()
    sys.exit(code)
