"""What every test runs under: one thread, fixed seeds, no network, no window, and caches that are thrown away.

Nothing of anydit is imported here, so that the hook that checks shapes and types sees all of it.
"""

import gc
import ipaddress
import os
import random
import re
import socket
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

# In the environment, so that processes that tests start have it too.
_CACHES = tempfile.TemporaryDirectory(prefix="anydit-tests-")
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its list of fonts takes seconds to make
    "XDG_CACHE_HOME": _CACHES.name,
    "ANYDIT_CACHE": str(Path(_CACHES.name, "anydit")),
    "HF_HOME": str(Path(_CACHES.name, "huggingface")),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are made; they run on the CPU then
matplotlib.use("Agg")
torch.set_num_threads(1)

LONGEST = (
    "tests/test_conftest.py", "tests/test_docs.py", "tests/test_modalities.py", "cli/test_reconstruct.py",
    "audio/test_training.py", "train/test_buckets.py", "train/test_faults.py", "train/test_loop.py",
    "train/test_memory.py", "train/test_pace.py", "train/test_parallel.py", "train/test_profile.py",
    "train/test_texts.py",
)  # fmt: skip
"""Files that take a minute or more. They go first, so that no process is left with one when the others have ended."""

UNTRACED = (
    "data/audio/test_training.py", "diffusion/", "evaluate/", "interop/", "train/", "test_docs.py",
    "test_modalities.py",
)  # fmt: skip
"""What --cov alone does not trace: where whole networks train, a tracer takes more time than it tells."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than there are cores: a test that starts processes waits for them, and leaves its core idle."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return None  # xdist knows better
    return 1 + len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; skip what needs a GPU where there is none; put faults, numbered, into reports."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))
    no_gpu = pytest.mark.skip(reason="needs a GPU")
    for item in items:
        for fault in item.iter_markers("fault"):
            item.user_properties += [("fault", number) for number in fault_numbers(item.nodeid, fault.args)]
        if item.get_closest_marker("slow"):
            item.user_properties.append(("slow", True))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Import all tests, and keep what that makes out of collecting garbage, which takes a second each time.

    Only the first process traces what importing runs: all of them import the same.
    """
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    gc.disable()
    try:
        with nullcontext() if first else untraced(session.config):
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run what is `UNTRACED` without a tracer, its fixtures too."""
    within = item.path.relative_to(Path(__file__).parent).as_posix()
    named = True not in item.config.getoption("cov_source", ())
    with nullcontext() if named or not within.startswith(UNTRACED) else untraced(item.config):
        return (yield)


@contextmanager
def untraced(config: pytest.Config) -> Iterator[None]:
    """Within it no tracer runs for --cov, if one does else."""
    coverage: Any = getattr(config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if coverage is None:
        yield
        return
    coverage.pause()
    try:
        yield
    finally:
        coverage.resume()


def fault_numbers(test: str, given: tuple[object, ...]) -> list[str]:
    """What a mark of a fault says, if those are numbers of faults."""
    numbers = [str(number) for number in given]
    if not numbers or not all(re.fullmatch(r"[TS]\d+", number) for number in numbers):
        raise pytest.UsageError(f"{test}: fault{given}, expected numbers such as T8")
    return numbers


def pytest_unconfigure() -> None:
    """Throw the caches away."""
    _CACHES.cleanup()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Let sockets reach this machine only."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _local_only(getattr(socket.socket, name)))
        yield


def _local_only(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise ConnectionRefusedError(f"tests use no network; something tried to reach {address}")
        return connect(self, address)

    return guarded


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
