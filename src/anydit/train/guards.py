"""What keeps a run from harm: the lock on its folder, the stop on request, the stop when steps stop being finite."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class NotFinite(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


class Interrupted(Exception):
    """Training was asked to stop, and has saved. `signal` is what asked."""

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.signal, self.step = signal, step


class SkipCounter:
    """Counts steps that were not applied, in all and in a row."""

    def __init__(self, limit: int, total: int = 0) -> None:
        self.limit, self.total, self.in_a_row = limit, total, 0

    def see(self, applied: bool, step: int) -> None:
        """Take note of one step.

        Raises:
            NotFinite: `limit` steps in a row were skipped.
        """
        self.total += not applied
        self.in_a_row = 0 if applied else self.in_a_row + 1
        if self.in_a_row >= self.limit:
            raise NotFinite(
                f"train.max_skipped: {self.in_a_row} steps in a row up to step {step} had a loss or gradient that is "
                "not finite; lower the learning rate or look for bad values in the data"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process alone. The lock dies with its process, so it is never stale.

    Raises:
        ValueError: another process holds it.
    """
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(
                f"out: got {folder}, which process {holder} is training in; expected a free folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class StopRequest:
    """Set by Ctrl-C or SIGTERM while `listening`; a second one acts at once, as if nobody listened."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Catch the signals in this block (in the main thread; elsewhere they are not ours to catch)."""
        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, self._asked)
        except ValueError:
            pass  # not the main thread
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number


def make_writable(out: Path) -> None:
    """Make a run's folder, and refuse one that cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"out: got {out}, which cannot be written ({error.strerror}); expected a folder of yours"
        ) from None
