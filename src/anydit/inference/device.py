"""Where a pipeline computes, and what may be taken there of memory and of processors."""

import ctypes
import os
from math import ceil
from pathlib import Path

import torch

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux says what a container may take."""

LIMITS = (
    ("memory.max", "memory.current", ""),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_"),
)
"""Of cgroups of version 2 and 1: the files of the limit and of what is used, and how keys in the latter's `memory.stat`
begin that count those below it, too."""


QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Likewise the files of how long a container may compute in each period, and of how long that is."""

M_MMAP_THRESHOLD, LARGE = -3, 2**20
"""Of glibc's `mallopt`: which number it is, and from how many bytes on a tensor has pages of its own."""


def find_device(name: torch.device | str | None = None) -> torch.device:
    """The device called `name`; None takes the accelerator that PyTorch finds, else the CPU.

    Apple's GPUs ("mps") are never taken unasked: nobody has tried anydit on one yet, and they cannot train (see
    `anydit.train.loop.train`). What is computed in doubles, which they have not, is computed on the CPU then.

    Raises:
        ValueError: this machine has no such device.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name is None:
        return torch.device("cpu") if found is None or found.type == "mps" else found
    try:
        device = torch.device(name)
        if device != found:  # else it is there, and which one a process takes is not settled (see `train.parallel`)
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        names = "cpu" if found is None else f"cpu or {found.type}"
        raise ValueError(f"device: got {str(name)!r}, expected one that this machine has: {names}") from None
    return device


def free_bytes(device: torch.device) -> int | None:
    """The memory that may be taken on a device now; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    told = Path("/proc/meminfo")
    if device.type != "cpu" or not told.is_file():
        return None
    lines = dict(line.split(":", 1) for line in told.read_text(encoding="utf-8").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    return min([free, *(left for left in [_left_of_group()] if left is not None)])


def give_back() -> bool:
    """From here on give memory of the CPU back to the system as soon as it is free; returns whether that can be.

    The C library keeps it otherwise, in pieces that the next tensors may not fit into. Each large tensor then takes a
    call of the system, and new pages: steps were seen to take 1.3 to 1.4 times as long.
    """
    try:
        return ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE) == 1
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return False


def cores() -> int:
    """How many processors this process may keep busy: those it is let run on, and no more than a container's quota.

    PyTorch counts the former alone: with 64 threads and the time of two processors, most of them wait for each other.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, _quota_of_group() or there)


def _quota_of_group() -> int | None:
    """The processors' time that a container may take, rounded up to whole ones, where it has a limit."""
    for names in QUOTAS:
        try:
            quota, period = " ".join((GROUPS / name).read_text(encoding="utf-8") for name in names).split()
            return None if quota in {"max", "-1"} else max(1, ceil(int(quota) / int(period)))
        except (OSError, ValueError):
            continue
    return None


def _left_of_group() -> int | None:
    """What a container may still take, where it has a limit; files that were read count as used until others need it.

    So those are free: without them a container would be full as soon as it has read its data.
    """
    for limit, used, prefix in LIMITS:
        try:
            most = (GROUPS / limit).read_text(encoding="utf-8").strip()
            now = int((GROUPS / used).read_text(encoding="utf-8"))
            stat = (GROUPS / used).with_name("memory.stat").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        sizes = dict(line.split() for line in stat)
        read = sum(int(sizes.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        return None if most == "max" else int(most) - now + read
    return None
