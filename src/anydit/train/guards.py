"""What keeps a run from harm: the lock on its folder, the stop on request, and what is done about steps gone wrong."""

import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anydit.config import check_at_least, config


@config
class Spikes:
    """Skip a step whose gradient is out of all proportion, and go back where such steps do not end.

    `factor`: how many times the median norm of the last `window` steps that were applied is too much. After `limit`
    skipped in a row, the run goes back to its newest checkpoint from before them, and passes over their batches.
    """

    factor: float = 50.0
    window: int = 100
    limit: int = 5

    def __post_init__(self) -> None:
        if not self.factor > 1:
            raise ValueError(f"train.spikes.factor: got {self.factor}, expected a number above 1")
        check_at_least("train.spikes.window", self.window, 2)
        check_at_least("train.spikes.limit", self.limit, 1)


class Norms:
    """The gradient's norms of the last steps that were applied, oldest first; they never leave their device.

    NaN stands for steps that were not taken yet; until there are none of these, every norm is a usual one.
    """

    def __init__(self, config: Spikes, device: torch.device) -> None:
        self.factor, self.values = config.factor, torch.full((config.window,), float("nan"), device=device)

    def usual(self, norm: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Whether a norm is in proportion to these."""
        return ~(norm > self.factor * self.values.median())

    def see(self, norm: Float[Tensor, ""], applied: Float[Tensor, ""]) -> None:
        """Take note of a step, if it was applied."""
        self.values = torch.where(applied > 0, torch.cat([self.values[1:], norm[None]]), self.values)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"norms": self.values}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave, also that of another window."""
        unseen = torch.full_like(self.values, float("nan"))
        self.values = torch.cat([unseen, state["norms"].to(unseen)])[-len(unseen) :]


class NotFinite(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


class Interrupted(Exception):
    """Training was asked to stop, and has saved. `signal` is what asked."""

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.signal, self.step = signal, step


class Spiked(RuntimeError):
    """Too many steps in a row, from `first` to `last`, had a gradient out of all proportion."""

    def __init__(self, first: int, last: int, factor: float) -> None:
        super().__init__(
            f"train.spikes: the steps {first} to {last} were skipped, the last for a gradient above {factor:g} times "
            "the median norm before, and there is no checkpoint from before them to go back to, or going back has not "
            "helped; lower the learning rate, look at the data, or raise train.spikes.factor"
        )
        self.first, self.last = first, last


class SkipCounter:
    """Counts steps that were not applied, in all and in a row."""

    def __init__(self, limit: int, spikes: Spikes | None) -> None:
        self.limit, self.spikes, self.total, self.in_a_row = limit, spikes, 0, 0

    def see(self, step: int, *, applied: bool, finite: bool) -> None:
        """Take note of one step.

        Raises:
            NotFinite: `limit` steps in a row were skipped, and this one is not finite.
            Spiked: `spikes.limit` steps in a row were skipped, and this one is finite.
        """
        self.total += not applied
        self.in_a_row = 0 if applied else self.in_a_row + 1
        if applied:
            return
        if not finite and self.in_a_row >= self.limit:
            raise NotFinite(
                f"train.max_skipped: {self.in_a_row} steps in a row up to step {step} were skipped, the last for a "
                "loss or gradient that is not finite; lower the learning rate or look for bad values in the data"
            )
        if finite and self.spikes is not None and self.in_a_row >= self.spikes.limit:
            raise Spiked(step - self.in_a_row + 1, step, self.spikes.factor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process alone. The lock dies with its process, so it is never stale.

    Raises:
        ValueError: another process holds it, or its disk has no locks.
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
        except OSError as error:
            raise ValueError(
                f"out: got {folder}, on a disk that locks no files ({error.strerror}); expected one that does, so that "
                "no two trainings write the same run (Lustre: mounted with -o flock)"
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
