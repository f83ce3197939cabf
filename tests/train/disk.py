"""Faults of a disk, in the process that asks for them: it dies, or the disk says no, at the n-th time it is touched."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
"""What Python reports of a disk before it happens; opened is also what is about to be forced to disk."""


def die() -> None:
    """As by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    """As a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def at_touch(nth: int, part: str, fault: Callable[[], None]) -> Callable[[], int]:
    """From here on let `fault` happen once, before the `nth` touch of a path that has this part.

    It cannot be undone. Returns what tells how many touches there were.
    """
    touched = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        if event in TOUCHES and any(part in str(a) for a in arguments if isinstance(a, (str, os.PathLike))):
            touched += 1
            if touched == nth:
                fault()

    sys.addaudithook(hook)
    return lambda: touched


class NoLonger:
    """Within it, no file of this process grows beyond so many bytes, as if the disk were full."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
