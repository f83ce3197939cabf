"""Which samples each training step reads, as a pure function of the step, and reading them ahead of time."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from anydit.data.base import Samples
from anydit.tensors import Batch, Stream


@dataclass(frozen=True)
class Order:
    """The samples of every step: each epoch is a permutation of all `count`; batches run on from one into the next."""

    count: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise ValueError(f"data: got {self.count} samples in batches of {self.batch}, expected at least 1 of each")

    def ids(self, step: int) -> Int[Tensor, " b"]:
        """The ids of a step's whole batch, by position."""
        place = torch.arange(step * self.batch, (step + 1) * self.batch)
        epoch, within = place // self.count, place % self.count
        out = torch.empty(self.batch, dtype=torch.int64)
        for e in range(int(epoch[0]), int(epoch[-1]) + 1):
            out[epoch == e] = _permutation(self.count, self.seed, e)[within[epoch == e]]
        return out


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> Int[Tensor, " count"]:
    return torch.argsort(Stream(seed, "order").integers(epoch, torch.arange(count), 2**31), stable=True)


class _Steps:
    """A data set whose items are whole batches, by step: what the workers of a DataLoader ask for."""

    def __init__(self, samples: Samples, order: Order) -> None:
        self.samples, self.order = samples, order

    def __getitem__(self, step: int) -> Batch:
        return self.samples.read(self.order.ids(step))


class _From:
    """The endless steps from `start` on."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        step = self.start
        while True:
            yield step
            step += 1


def read_ahead(samples: Samples, order: Order, start: int, workers: int = 0) -> Iterator[Batch]:
    """The batches of the steps from `start` on, without end, each read while the one before is used.

    `workers`: processes that read; 0 reads in a thread of this one, which suits data in memory or in a mapped file.

    Raises:
        RuntimeError: a worker died.
    """
    steps = _Steps(samples, order)
    if workers > 0:
        yield from DataLoader(
            steps,  # pyright: ignore[reportArgumentType]
            batch_size=None,
            sampler=_From(start),
            num_workers=workers,
        )
        return
    with ThreadPoolExecutor(1, "read") as pool:
        ahead: Future[Batch] = pool.submit(steps.__getitem__, start)
        for step in _From(start + 1):
            batch = ahead.result()
            ahead = pool.submit(steps.__getitem__, step)
            yield batch
