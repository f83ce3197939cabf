"""What training says while it runs: a line of JSON for each step, a progress bar, and TensorBoard if asked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from anydit.config import Json

LOG_FILE = "log.jsonl"


class Log:
    """Appends to `log.jsonl`. A step that is done again after a resume is written again: the last line counts."""

    def __init__(self, path: Path, tensorboard: Path | None) -> None:
        self._board: Any = _summary_writer(tensorboard) if tensorboard is not None else None
        cut_short = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if cut_short:
            self._file.write("\n")  # a kill left half a line, which must not take the next one with it

    def step(self, entry: Json) -> None:
        """One step's figures; losses also in hexadecimal, so that two runs can be compared bit by bit."""
        self._file.write(json.dumps(entry) + "\n")
        if self._board is not None:
            for name in ("loss", "grad_norm", "lr", "samples_per_second"):
                self._board.add_scalar(f"train/{name}", entry[name], entry["step"])

    def picture(self, image: Any, step: int) -> None:
        """A sheet of samples (a Pillow image) for TensorBoard; the file is the caller's to write."""
        if self._board is not None:
            import numpy as np

            self._board.add_image("samples", np.asarray(image), step, dataformats="HWC")

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read(path: Path) -> list[Json]:
    """The entries of a log, one for each step in order, the last written of each; a line cut short is passed over."""
    entries: dict[int, Json] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that a kill cut short
        entries[entry["step"]] = entry
    return [entries[step] for step in sorted(entries)]


class Bar:
    """A progress bar with rate, loss and time left; where there is no terminal, a line now and then."""

    EVERY_SECONDS = 15.0

    def __init__(self, progress: Progress, steps: int, done: int) -> None:
        self._progress, self._steps = progress, steps
        self._task = progress.add_task("train", total=steps, completed=done, loss=float("nan"), rate=0.0)
        self._said = perf_counter()

    def update(self, done: int, loss: float, rate: float) -> None:
        """`done` steps; `rate` in samples per second."""
        self._progress.update(self._task, completed=done, loss=loss, rate=rate)
        if not self._progress.console.is_terminal and perf_counter() - self._said > self.EVERY_SECONDS:
            self._said = perf_counter()
            left = self._progress.tasks[0].time_remaining
            tail = f", {left:.0f} s left" if left is not None else ""
            self._progress.console.print(f"step {done}/{self._steps}, loss {loss:.4f}, {rate:.0f} samples/s{tail}")


@contextmanager
def telling(out: Path | None, steps: int, done: int, tensorboard: bool) -> Iterator[tuple[Log | None, Bar | None]]:
    """The log in a run's folder and the bar, while the block runs; for a process that tells nothing, neither."""
    if out is None:
        yield None, None
        return
    log = Log(out / LOG_FILE, out / "tensorboard" if tensorboard else None)
    try:
        with progress_bar(steps, done) as bar:
            yield log, bar
    finally:
        log.close()


@contextmanager
def progress_bar(steps: int, done: int) -> Iterator[Bar]:
    """The bar, shown while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} samples/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, auto_refresh=get_console().is_terminal) as progress:
        yield Bar(progress, steps, done)


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "train.tensorboard: got True, but TensorBoard is missing; pip install 'anydit[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder))
