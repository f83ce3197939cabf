import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anydit.data import Arrays, ArraySamples, Digits, Facts
from anydit.data.buckets import Groups
from anydit.data.loader import BucketOrder, Order, order_of, read_ahead
from anydit.tensors import Batch
from anydit.train.pace import own_pace


def ids_of(order: Order, steps: int) -> list[int]:
    return torch.cat([order.ids(step) for step in range(steps)]).tolist()


@pytest.mark.parametrize(("count", "batch"), [(12, 4), (10, 4), (7, 7), (5, 13), (1, 3), (1000, 1)])
def test_every_epoch_has_each_sample_once(count: int, batch: int) -> None:
    epochs = 3
    ids = ids_of(Order(count, batch, seed=0), -(-epochs * count // batch))
    for epoch in range(epochs):
        assert sorted(ids[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    ids = ids_of(Order(100, 10, seed=0), 20)
    other = ids_of(Order(100, 10, seed=1), 10)
    assert len({tuple(ids[:100]), tuple(ids[100:]), tuple(other), tuple(range(100))}) == 4
    # A fair shuffle leaves a sample in its place about once in 100.
    assert sum(a == b for a, b in zip(ids[:100], ids[100:], strict=True)) < 8


def test_a_step_needs_no_step_before_it() -> None:
    expected = [Order(10, 4, seed=3).ids(step) for step in range(20)]
    for step in (17, 2, 19, 0):
        assert torch.equal(Order(10, 4, seed=3).ids(step), expected[step])


def test_an_order_of_nothing_is_refused() -> None:
    for count, batch in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match=f"got {count} samples in batches of {batch}"):
            Order(count, batch, seed=0)


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_processes_share_every_batch(world: int) -> None:
    whole = Order(10, 6, seed=5)
    orders = [Order(10, 6, seed=5, rank=rank, world=world) for rank in range(world)]
    assert torch.equal(torch.cat([order.positions for order in orders]), torch.arange(6))
    for step in range(8):
        assert torch.equal(torch.cat([order.ids(step) for order in orders]), whole.ids(step))
        for order in orders:
            assert torch.equal(order.ids(step), whole.ids(step)[order.positions])


@pytest.mark.parametrize(("rank", "world", "said"), [(2, 2, "rank: got 2"), (-1, 2, "rank"), (0, 4, "train.batch")])
def test_a_batch_that_processes_cannot_share_is_refused(rank: int, world: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Order(10, 6, seed=0, rank=rank, world=world)


def some(batches: Iterator[Batch], n: int) -> list[Batch]:
    return list(islice(batches, n))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 7])
def test_any_number_of_workers_reads_the_same_batches(workers: int, start: int) -> None:
    samples = Digits().open("train")
    order = Order(len(samples), 100, seed=0)
    batches = read_ahead(samples, order, start, workers)
    for step, batch in enumerate(some(batches, 20), start):
        expected = samples.read(order.ids(step))
        assert torch.equal(batch.ids, order.ids(step))
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.cond["label"], expected.cond["label"])


def test_the_thread_that_reads_has_no_helpers_and_the_other_keeps_its_own() -> None:
    seen = list[int]()

    class Telling(ArraySamples):
        def read(self, ids: torch.Tensor) -> Batch:
            seen.append(torch.get_num_threads())
            return super().read(ids)

    with own_pace():
        torch.set_num_threads(3)
        samples = Telling(np.zeros((8, 1, 4), np.float32), Facts(channels=1, size=(4,)))
        batches = read_ahead(samples, Order(8, 4, seed=0), 0)
        next(batches)
        assert torch.get_num_threads() == 3
        assert {*seen} == {1}


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_for_a_gpu_are_pinned_by_the_thread_that_reads(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[tuple[str, int]]()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        seen.append((threading.current_thread().name, tensor.ndim))
        return tensor + 1

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    samples = Digits().open("train")
    order = Order(len(samples), 4, seed=0)
    plain, pinned = (some(read_ahead(samples, order, 0, workers, pinned=flag), 2) for flag in (False, True))
    assert {*seen} == {("read", samples.read(order.ids(0)).x.ndim), ("read", 1)}, "samples and labels"
    assert all(torch.equal(a.x + 1, b.x) and torch.equal(a.ids, b.ids) for a, b in zip(plain, pinned, strict=True))


def test_workers_read_a_mapped_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(20.0).reshape(10, 1, 2))
    samples = Arrays(path=tmp_path / "a.npy", held_out=0).open("train")
    for batch in some(read_ahead(samples, Order(10, 3, seed=0), 0, workers=2), 5):
        assert torch.equal(batch.x[:, 0, 0], 2.0 * batch.ids)


@dataclass
class Failing:
    """Samples of which one cannot be read, or ends the process that reads it."""

    bad: int
    fault: Any

    @property
    def facts(self) -> Facts:
        return Facts(1, (1,))

    def __len__(self) -> int:
        return 10

    def read(self, ids: torch.Tensor) -> Batch:
        if self.bad in ids:
            self.fault()
        return Batch(ids.float().reshape(-1, 1, 1), {}, ids)


def broken() -> None:
    raise OSError("the disk is gone")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(order: Order, step: int) -> int:
    """A sample that is first read at this step."""
    return int(order.ids(step)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_stops_at_its_step(workers: int) -> None:
    order = Order(10, 1, seed=0)
    batches = read_ahead(Failing(at_step(order, 4), broken), order, 0, workers)
    assert [int(batch.ids) for batch in some(batches, 4)] == ids_of(order, 4)
    processes = set(multiprocessing.active_children())
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert len(processes - set(multiprocessing.active_children())) == workers  # it ends with the error


@pytest.mark.fault("T21")
def test_a_killed_worker_is_an_error_not_a_gap() -> None:
    """What was read before is right, then it stops, and says which process died."""
    order = Order(10, 1, seed=0)
    batches = read_ahead(Failing(at_step(order, 6), killed), order, 0, workers=1)
    got = list[int]()
    with pytest.raises(RuntimeError, match=r"train\.workers: a process that reads data died"):
        got.extend(int(batch.ids) for batch in batches)
    assert got == ids_of(order, 6)[: len(got)]


def test_reading_ends_with_whoever_reads() -> None:
    samples = Digits().open("train")
    threads, processes = set(threading.enumerate()), set(multiprocessing.active_children())
    for workers in (0, 2):
        batches = read_ahead(samples, Order(len(samples), 4, seed=0), 0, workers)
        next(batches)
        assert set(threading.enumerate()) - threads
        assert len(set(multiprocessing.active_children()) - processes) == workers
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert not set(multiprocessing.active_children()) - processes
        assert not [t for t in set(threading.enumerate()) - threads if t.name == "read"]


def test_a_process_that_ends_while_it_reads_ends_well() -> None:
    code = """
from anydit.data import Digits
from anydit.data.loader import Order, read_ahead
samples = Digits().open("train")
batches = read_ahead(samples, Order(len(samples), 20_000, seed=0), 0)
next(batches)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


counts_of_buckets = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def buckets_of(counts: list[int], seed: int = 0) -> torch.Tensor:
    """The bucket of each id, mixed."""
    buckets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return buckets[torch.randperm(len(buckets), generator=torch.Generator().manual_seed(seed))]


@settings(max_examples=25, deadline=None)
@given(counts_of_buckets, st.integers(1, 12), st.integers(0, 5))
def test_batches_of_several_sizes(counts: list[int], batch: int, seed: int) -> None:
    """Each is of one bucket; each bucket has its share; in a bucket all ids come equally often, epoch by epoch."""
    buckets = buckets_of(counts)
    order = BucketOrder(buckets, batch, seed)
    steps = 3 * order.cycle
    assert order.cycle >= len(buckets) / batch
    ids = [order.ids(step) for step in range(steps)]
    of = [buckets[some].unique() for some in ids]
    assert all(len(some) == batch for some in ids) and all(len(found) == 1 for found in of)
    which = torch.cat(of)
    for cycle in (1, 2, 3):
        for k, count in enumerate(counts):
            had = int((which[: cycle * order.cycle] == k).sum())
            assert abs(had - cycle * order.cycle * count / len(buckets)) < 1
    for k, count in enumerate(counts):
        got = torch.cat(
            [torch.zeros(0, dtype=torch.long), *(some for some, w in zip(ids, which, strict=True) if w == k)]
        )
        times = got.bincount(minlength=len(buckets))[buckets == k]
        assert int(times.max() - times.min()) <= 1
        for start in range(0, len(got) - count + 1, count):
            assert len(got[start : start + count].unique()) == count, "an epoch has each sample once"


def test_no_rounding_of_shares_adds_up() -> None:
    """After a thousand cycles of shares that no cycle can have exactly."""
    order = BucketOrder(buckets_of([7, 19, 3]), 4, 0)
    after = torch.tensor(order._before(1000)) / (1000 * order.cycle)
    assert torch.allclose(after, torch.tensor([7, 19, 3]) / 29, atol=1 / (1000 * order.cycle))


@settings(max_examples=20, deadline=None)
@given(counts_of_buckets, st.sampled_from([1, 2, 3, 6]), st.integers(0, 10**6))
def test_processes_share_batches_of_several_sizes(counts: list[int], world: int, step: int) -> None:
    whole = BucketOrder(buckets_of(counts), 6, seed=5)
    orders = [BucketOrder(buckets_of(counts), 6, seed=5, rank=rank, world=world) for rank in range(world)]
    assert torch.equal(torch.cat([order.positions for order in orders]), torch.arange(6))
    assert torch.equal(torch.cat([order.ids(step) for order in orders]), whole.ids(step))


def test_a_step_of_several_sizes_needs_no_step_before_it() -> None:
    buckets = buckets_of([30, 11, 2])
    expected = [BucketOrder(buckets, 4, seed=3).ids(step) for step in range(60)]
    order = BucketOrder(buckets, 4, seed=3)
    for step in (57, 2, 59, 0, 31):
        assert torch.equal(order.ids(step), expected[step])
    other = [BucketOrder(buckets, 4, seed=4).ids(step) for step in range(60)]
    assert not all(map(torch.equal, other, expected))
    cycles = [[int(buckets[expected[c * order.cycle + i][0]]) for i in range(order.cycle)] for c in (0, 1)]
    assert cycles[0] != cycles[1] and cycles[0] != sorted(cycles[0]), "shuffled, in each cycle anew"


def test_buckets_of_one_count_are_not_shuffled_alike() -> None:
    order = BucketOrder(torch.arange(2).repeat_interleave(50), 50, seed=0)
    a, b = (order._orders[k].ids(0) for k in (0, 1))
    assert not torch.equal(a, b)


def test_the_order_is_that_of_the_samples() -> None:
    plain = Digits().open("train")
    assert order_of(plain, 4, 1) == Order(len(plain), 4, 1)
    several = Groups([Failing(0, broken), replace_size(Failing(0, broken), (2,))])
    order = order_of(several, 4, 1, rank=1, world=2)
    assert isinstance(order, BucketOrder) and order.positions.tolist() == [2, 3]
    with pytest.raises(ValueError, match="got 0 samples"):
        BucketOrder(torch.zeros(0, dtype=torch.long), 4, 0).ids(0)


def replace_size(samples: Failing, size: tuple[int, ...]) -> Any:
    """The same samples, said to be of another size."""

    class Other(Failing):
        @property
        def facts(self) -> Facts:
            return Facts(1, size)

    return Other(samples.bad, samples.fault)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_several_sizes_are_read_ahead(workers: int) -> None:
    sizes = [(2, 3), (3, 2)]
    groups = [
        ArraySamples(np.arange(9 * 6, dtype=np.float32).reshape(9, 1, *size) + 1000 * k, Facts(1, size))
        for k, size in enumerate(sizes)
    ]
    samples = Groups(groups)
    order = order_of(samples, 4, 0)
    for step, batch in enumerate(some(read_ahead(samples, order, 5, workers), 12), 5):
        assert torch.equal(batch.ids, order.ids(step))
        assert torch.equal(batch.x, samples.read(order.ids(step)).x)
