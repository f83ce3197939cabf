"""Which samples each training step reads, as a pure function of the step, and reading them ahead of time."""

import atexit
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from threading import Thread

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from anydit.data.base import Samples
from anydit.tensors import Batch, Stream

CAUGHT, DIED = "in DataLoader worker process", "DataLoader worker (pid"
"""How PyTorch says that reading failed in a worker, and that a worker is gone."""


@dataclass(frozen=True)
class Order:
    """The samples of every step: each epoch is a permutation of all `count`; batches run on from one into the next.

    Of `world` processes the one of this `rank` has its share of every `batch`, in one piece.
    """

    count: int
    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise ValueError(f"data: got {self.count} samples in batches of {self.batch}, expected at least 1 of each")
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"rank: got {self.rank} of {self.world} processes, expected 0 to one below their number")
        if self.batch % self.world:
            raise ValueError(f"train.batch: got {self.batch}, expected a multiple of the {self.world} processes")

    @property
    def positions(self) -> Int[Tensor, " b"]:
        """Where the samples of this process are in the whole batch, the same at every step."""
        share = self.batch // self.world
        return torch.arange(self.rank * share, (self.rank + 1) * share)

    def ids(self, step: int) -> Int[Tensor, " b"]:
        """The ids of the samples at this process's positions of a step's batch."""
        place = step * self.batch + self.positions
        epoch, within = place // self.count, place % self.count
        out = torch.empty_like(place)
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
    asked, answers = SimpleQueue[bool](), SimpleQueue[Batch | BaseException]()
    batches = _batches(_Steps(samples, order), start, workers)
    # No executor: a worker forked by its thread would wait for that thread at its end.
    thread = Thread(target=_serve, args=(batches, asked, answers), name="read", daemon=True)

    def stop() -> None:
        asked.put(False)
        thread.join()

    thread.start()
    asked.put(True)
    atexit.register(stop)  # a thread that still reads while Python ends would abort the process
    try:
        while True:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            asked.put(True)
            yield answer
    finally:
        atexit.unregister(stop)
        stop()


def _serve(
    batches: Generator[Batch, None, None], asked: "SimpleQueue[bool]", answers: "SimpleQueue[Batch | BaseException]"
) -> None:
    """Answer each time that a batch is asked for, with it or with what went wrong; False is the end.

    A DataLoader tells the thread that asks of a dead worker; in the main thread it would interrupt whatever runs there.
    """
    with closing(batches):
        while asked.get():
            try:
                answers.put(next(batches))
            except BaseException as error:
                answers.put(error)


def _batches(steps: _Steps, start: int, workers: int) -> Generator[Batch, None, None]:
    if workers == 0:
        yield from map(steps.__getitem__, _From(start))
    try:
        yield from DataLoader(
            steps,  # pyright: ignore[reportArgumentType]
            batch_size=None,
            sampler=_From(start),
            num_workers=workers,
        )
    except Exception as error:
        # A worker that dies while it hands a batch over breaks the connection.
        lost = isinstance(error, (ConnectionError, EOFError)) or DIED in str(error)
        if CAUGHT in str(error) or not lost:
            # Without PyTorch's frames, which would keep the workers alive; what the worker's were is in the message.
            raise error.with_traceback(None) from None
        raise RuntimeError(
            f"train.workers: a process that reads data died, perhaps for want of memory ({error}); "
            "run the same command again to go on, with fewer workers if need be"
        ) from None
