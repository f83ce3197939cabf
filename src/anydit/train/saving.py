"""Checkpoints written in a thread of their own while training goes on, one at a time."""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread

from torch import Tensor

from anydit.config import Json
from anydit.train import checkpoint
from anydit.train.checkpoint import Groups, Share
from anydit.train.parallel import Processes

LAST_SECONDS = 10.0
"""How long a checkpoint under way is waited for after an error, where it needs processes that may be gone."""


class Saver:
    """Writes checkpoints under `root` and keeps so many. What goes wrong is raised by the next call of a method."""

    def __init__(self, root: Path, keep: int, processes: Processes) -> None:
        self._root, self._keep, self._processes = root, keep, processes
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, groups: Groups, info: Json, share: Share, after: Callable[[], None]) -> None:
        """Begin to write what the groups are now; all processes must ask. `after`: called when it is in its place.

        Waits for the one before, and until tensors are copied, but for no disk.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        if share.writers > 1:
            if self._processes.first:
                checkpoint.begin(self._root, step)
            self._processes.most(0)  # the folder is there for all
        if not self._processes.writes:
            return
        still = {name: copied(tensors) for name, tensors in groups.items()}

        def write() -> None:
            try:
                checkpoint.save(self._root, step, still, info, self._keep, share)
                after()
            except BaseException as error:
                self._error = error

        self._thread = Thread(target=write, name=f"checkpoint {step}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until what was begun is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Let what was begun come to its end, if it can without the others."""
        if self._thread is not None:
            self._thread.join(LAST_SECONDS if self._processes.mesh.splits else None)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values in memory of their own, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
