"""Which samples each training step reads, as a pure function of the step, and reading them ahead of time."""

import atexit
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from queue import SimpleQueue
from threading import Event, Thread

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from anydit.data.base import Bucketed, Samples
from anydit.tensors import Batch, Stream

CAUGHT, DIED = "in DataLoader worker process", "DataLoader worker (pid"
"""How PyTorch says that reading failed in a worker, and that a worker is gone."""


@dataclass(frozen=True)
class Order:
    """The samples of every step: each epoch is a permutation of all `count`; batches run on from one into the next.

    Of `world` parts of every `batch`, each in one piece, this is number `rank`: a process has it alone, or with those
    that share its tokens or products. `stream`: by which name its random numbers are drawn, so that several orders of
    one seed are no copies of each other.
    """

    count: int
    batch: int
    seed: int
    rank: int = 0
    world: int = 1
    stream: str = "order"
    _kept: dict[int, Tensor] = field(default_factory=dict[int, Tensor], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise ValueError(f"data: got {self.count} samples in batches of {self.batch}, expected at least 1 of each")
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"rank: got {self.rank} of {self.world} processes, expected 0 to one below their number")
        if self.batch % self.world:
            raise ValueError(f"train.batch: got {self.batch}, expected a multiple of its {self.world} parts")

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
            out[epoch == e] = self.permutation(e)[within[epoch == e]]
        return out

    def permutation(self, epoch: int) -> Int[Tensor, " count"]:
        """All ids in the order of an epoch; those of two epochs are kept."""
        if epoch not in self._kept:
            for old in [*self._kept][:-1]:
                del self._kept[old]
            random = Stream(self.seed, self.stream).integers(epoch, torch.arange(self.count), 2**31)
            self._kept[epoch] = torch.argsort(random, stable=True)
        return self._kept[epoch]


@dataclass(frozen=True, eq=False)
class BucketOrder:
    """The samples of every step where they are of several sizes: each batch is of one of the `buckets` of the ids.

    Batches come in cycles, shuffled anew in each, in which every bucket has its share: after any number of cycles it
    has had as many batches as its part of the samples says, to less than one. In a bucket samples come as by `Order`,
    so that in the long run all are used equally often; where it has fewer than a batch, some are in it more than once.
    """

    buckets: Int[Tensor, " n"]
    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    @cached_property
    def cycle(self) -> int:
        """Batches in a cycle: about an epoch's, and enough that the rarest size has about one."""
        rarest = min(order.count for order in self._orders)
        return max(-(-len(self.buckets) // self.batch), -(-len(self.buckets) // rarest))

    @property
    def positions(self) -> Int[Tensor, " b"]:
        """As of an `Order`."""
        return self._orders[0].positions

    def ids(self, step: int) -> Int[Tensor, " b"]:
        """As of an `Order`; all of one bucket."""
        cycle, within = divmod(step, self.cycle)
        before = self._before(cycle)
        counts = [b - a for a, b in zip(before, self._before(cycle + 1), strict=True)]
        batches = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[self._shuffle.permutation(cycle)]
        which = int(batches[within])
        return self._members[which][self._orders[which].ids(before[which] + int((batches[:within] == which).sum()))]

    def _before(self, cycle: int) -> list[int]:
        """Batches of each bucket before a cycle: rounded where all buckets' shares are laid end to end.

        So no rounding adds up, and there are as many in all as the cycles have.
        """
        ends = [0, *accumulate(order.count for order in self._orders)]
        marks = [cycle * self.cycle * end // ends[-1] for end in ends]
        return [b - a for a, b in pairwise(marks)]

    @cached_property
    def _members(self) -> list[Int[Tensor, " _"]]:
        """The ids in each bucket that has some."""
        return [torch.nonzero(self.buckets == which)[:, 0] for which in self.buckets.unique().tolist()]

    @cached_property
    def _orders(self) -> list[Order]:
        counts = [len(ids) for ids in self._members] or [0]  # which is refused
        return [
            Order(count, self.batch, self.seed, self.rank, self.world, f"order {which}")
            for which, count in enumerate(counts)
        ]

    @cached_property
    def _shuffle(self) -> Order:
        return Order(self.cycle, 1, self.seed, stream="buckets")


AnyOrder = Order | BucketOrder


def order_of(samples: Samples, batch: int, seed: int, rank: int = 0, world: int = 1) -> AnyOrder:
    """The order in which samples are trained on, of one size or of several."""
    if isinstance(samples, Bucketed):
        return BucketOrder(samples.buckets, batch, seed, rank, world)
    return Order(len(samples), batch, seed, rank, world)


class _Steps:
    """A data set whose items are whole batches, by step: what the workers of a DataLoader ask for."""

    def __init__(self, samples: Samples, order: AnyOrder) -> None:
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


class ReaderDied(RuntimeError):
    """A process that reads data ended, so that its batches cannot come."""


def read_ahead(
    samples: Samples, order: AnyOrder, start: int, workers: int = 0, *, pinned: bool = False
) -> Iterator[Batch]:
    """The batches of the steps from `start` on, without end, each read while the one before is used.

    `workers`: processes that read; 0 reads in a thread of this one, which suits data in memory or in a mapped file.
    `pinned`: batches are for a GPU of CUDA, and lie where copying them to it lets nothing wait.

    Raises:
        ReaderDied: a worker died.
    """
    asked, answers = SimpleQueue[bool](), SimpleQueue[Batch | BaseException]()
    batches = _batches(_Steps(samples, order), start, workers)
    if pinned:
        batches = _pinned(batches)
    # No executor: a worker forked by its thread would wait for that thread at its end.
    thread = Thread(target=_serve, args=(batches, asked, answers, alone := Event()), name="read", daemon=True)

    def stop() -> None:
        asked.put(False)
        thread.join()

    threads = torch.get_num_threads()
    thread.start()
    alone.wait()
    torch.set_num_threads(threads)  # in part that of all threads, so again after the other has set its own
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
    batches: Generator[Batch, None, None],
    asked: "SimpleQueue[bool]",
    answers: "SimpleQueue[Batch | BaseException]",
    alone: Event,
) -> None:
    """Answer each time that a batch is asked for, with it or with what went wrong; False is the end.

    `alone` is set when this thread has no helpers any more. OpenMP lets threads wait awake for their next piece of work
    while there are no more of them than cores; with helpers of a reader, even idle ones, those of a training on a CPU
    go to sleep after each operation, and its steps take nearly twice as long (docs/results/pace.md).

    A DataLoader tells the thread that asks of a dead worker; in the main thread it would interrupt whatever runs there.
    """
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes over what was last set anywhere when it first asks, and then keeps it
    alone.set()
    with closing(batches):
        while asked.get():
            try:
                answers.put(next(batches))
            except BaseException as error:
                answers.put(error)


def _pinned(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    with closing(batches):
        for batch in batches:
            yield batch.pinned()


def _batches(steps: _Steps, start: int, workers: int) -> Generator[Batch, None, None]:
    if workers == 0:
        yield from map(steps.__getitem__, _From(start))
        return
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
        raise ReaderDied(
            f"train.workers: a process that reads data died, perhaps for want of memory ({error}); "
            "run the same command again to go on, with fewer workers if need be"
        ) from None
