"""Processes that train one model together: each has its share of every batch.

`torchrun --nproc-per-node 2 -m anydit train RECIPE` starts them. Gradients are summed while the backward pass goes on,
by PyTorch's DistributedDataParallel where each process has the whole model, and else by FSDP2 (`Split`). What a step
draws for a sample is a function of the sample's place in the whole batch, so that a curve does not depend on how many
processes make it.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from anydit.config import Json
from anydit.inference.device import free_bytes
from anydit.train.mesh import Mesh

PATIENCE = timedelta(days=1)
"""How long processes wait while one prepares data for all, or draws a preview."""

ONE = Mesh(replicate=1)

BROKEN = ("gloo", "NCCL", "Connection closed", "Connection reset", "Socket", "Broken pipe")
"""How PyTorch says that another process is gone or does not answer."""


class Deserted(RuntimeError):
    """Another process ended or did not answer, so that this one cannot go on."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees it; alone there is nothing to exchange.

    `mesh`: filled in. `free`: bytes that each may take, before any has taken some; None is not known. `control`: the
    group by which they agree on what is not on a device. `store`: where one of them leaves word for the others.
    `batch`: those that have different parts of a batch, by (part, context, tensor). `model`: those that hold pieces of
    the model, by (copy, piece). `alike`: of these, those that have the same heads and hidden units, likewise.
    """

    rank: int = 0
    world: int = 1
    mesh: Mesh = ONE
    free: int | None = None
    control: Any = None
    store: Store | None = None
    batch: DeviceMesh | None = None
    model: DeviceMesh | None = None
    alike: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this one writes the run's folder, and says what is to be said."""
        return self.rank == 0

    @property
    def part(self) -> int:
        """Which part of every batch this one has, of `mesh.parts`."""
        return self.rank // self.mesh.per_part

    @property
    def piece(self) -> int:
        """Which piece of the model it has, of `pieces`."""
        return self.rank % self.pieces

    @property
    def pieces(self) -> int:
        """In how many pieces the model is."""
        return self.mesh.pieces

    @property
    def different(self) -> int:
        """How many of them compute gradients of their own: those that share products compute the same loss."""
        return self.world // self.mesh.tensor

    @property
    def writes(self) -> bool:
        """Whether it writes its piece into checkpoints: those of the first copy do."""
        return self.rank < self.pieces

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The block in the first process, then in all others: what it leaves on disk is there for them.

        All go on together, however long the block takes in any of them.
        """
        if not self.first:
            self.meet()
        yield
        if self.first:
            self.meet()
        self.meet()

    def agreed(self, name: str, make: Callable[[], Json]) -> Json:
        """What the first process makes, for all; the others ask for it when it is made."""
        if self.store is None:
            return make()
        if self.first:
            self.store.set(name, json.dumps(make()))
        return json.loads(self.store.get(name))

    def total(self, x: Shaped[Tensor, "*s"]) -> Shaped[Tensor, "*s"]:
        """The sum of a tensor over all parts of a batch; it stays on its device."""
        if self.batch is None:
            return x
        x = x.clone()
        dist.all_reduce(x, group=self.batch.get_group("part"))
        return x

    def norm(self, own: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The norm of the whole, from that of this process's piece of it."""
        if self.model is None:
            return own
        squared = own.square()
        dist.all_reduce(squared, group=self.model.get_group("piece"))
        return squared.sqrt()

    def most(self, value: int) -> int:
        """The largest of a number of each process."""
        if self.world == 1:
            return value
        x = torch.tensor(value)
        dist.all_reduce(x, dist.ReduceOp.MAX, self.control)
        return int(x)

    def said(self, x: Shaped[Tensor, " n"]) -> "Word":
        """Begin to tell all others `x`, on the CPU and of one size everywhere, and go on meanwhile."""
        if self.world == 1:
            return Word([x])
        all_ = [torch.empty_like(x) for _ in range(self.world)]
        return Word(all_, dist.all_gather(all_, x.contiguous(), self.control, async_op=True))

    def replicated(self, module: nn.Module, *, idle: bool = False) -> nn.Module:
        """The module, whose gradients come to be the means of those of all processes as they are found.

        `idle`: some of its parameters may have no part in what it returns, so that no gradient of theirs is awaited.
        """
        if self.world == 1 or self.model is not None:
            return module
        return DistributedDataParallel(module, gradient_as_bucket_view=True, find_unused_parameters=idle)

    def meet(self) -> None:
        """Wait until all processes are here, with patience for what one of them does alone."""
        if self.world > 1:
            dist.monitored_barrier(self.control, PATIENCE)


@dataclass
class Word:
    """What each process says, which is under way until it is heard."""

    of_each: list[Tensor]
    under_way: Any = None

    def heard(self) -> Shaped[Tensor, "world n"]:
        """All that was said, by rank; waits for it, if need be."""
        if self.under_way is not None:
            self.under_way.wait()
            self.under_way = None
        return torch.stack(self.of_each)


ALONE = Processes()


def held_back(module: nn.Module) -> AbstractContextManager[None]:
    """Gradients of a module that are not exchanged yet: they add up to those that come after the block."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


@contextmanager
def together(device: torch.device, timeout: float, mesh: Mesh) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started, if it did; with the device of this one.

    `timeout`: seconds that one waits for another in a step. Where the block fails they do not part in peace: on GPUs
    NCCL would wait for those that are gone, and what failed would not be told.

    Raises:
        ValueError: there are more processes than GPUs, or their number is not that of the mesh.
        Deserted: another process ended, or did not answer in time.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    mesh = mesh.of(world)
    if world == 1:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if torch.cuda.device_count() <= (device.index or 0):
            raise ValueError(
                f"nproc-per-node: got a process {device.index}, expected at most {torch.cuda.device_count()}, one for "
                "each GPU of this machine; --device cpu trains without"
            )
        torch.cuda.set_device(device)
    peaceful = device.type == "cpu"  # gloo parts from whoever is gone
    try:
        yield _joined(device, timedelta(seconds=timeout), mesh), device
        peaceful = True
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in BROKEN):
            raise
        raise Deserted(
            f"a process that trains with this one ended, or did not answer in {timeout:g} s; its own error is the one "
            f"to look at ({str(error).splitlines()[0][:120]})"
        ) from error
    finally:
        if dist.is_initialized() and peaceful:
            dist.destroy_process_group()


def _joined(device: torch.device, patience: timedelta, mesh: Mesh) -> Processes:
    store, rank, world = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
    found = PrefixStore("agreed", _fresh(store))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=_fresh(store), rank=rank, world_size=world, timeout=patience
    )
    control = dist.new_group(backend="gloo", timeout=patience)

    def grid(counts: tuple[int, ...], *names: str) -> DeviceMesh:
        made = init_device_mesh(device.type, counts, mesh_dim_names=names)
        for name in names:
            _wait_at_most(patience, made.get_group(name))  # or groups of some processes have PyTorch's own
        return made

    batch = grid((mesh.parts, mesh.context, mesh.tensor), "part", "context", "tensor")
    model = grid((mesh.copies, mesh.pieces), "copy", "piece") if mesh.splits else None
    alike = model
    if mesh.tensor > 1:
        each = (mesh.copies, mesh.pieces // mesh.tensor, mesh.tensor)
        alike = grid(each, "copy", "piece", "tensor")["copy", "piece"]
    return Processes(rank, world, mesh, _least_free(device, control), control, found, batch, model, alike)


def _least_free(device: torch.device, control: Any) -> int | None:
    """What is free to the process that has least; on a CPU those of a machine share it."""
    own = free_bytes(device)
    if own is not None and device.type == "cpu":
        own //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    least = torch.tensor(-1 if own is None else own)
    dist.all_reduce(least, dist.ReduceOp.MIN, control)
    return None if least < 0 else int(least)


def _wait_at_most(patience: timedelta, group: Any) -> None:
    """Give a group of processes our patience; PyTorch before 2.14 has it under another name."""
    from torch.distributed import distributed_c10d

    (getattr(dist, "set_timeout", None) or distributed_c10d._set_pg_timeout)(patience, group)  # pyright: ignore[reportPrivateUsage]


def _fresh(store: Store) -> Store:
    """The store by which processes find each other, without what those before a restart have left in it.

    torchrun keeps one store for all of its attempts, in which addresses of dead processes stay. Of several machines
    each counts attempts of its own, so that there the count says nothing.
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
