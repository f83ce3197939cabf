"""Gradients that are a million times too large: code that makes them so, here and in processes of their own."""

import zlib
from collections.abc import Callable

import torch

from anydit.data import Digits
from anydit.data.loader import Order
from anydit.tensors import Batch
from anydit.train.step import LOSS, Terms, TrainStep

ORDER = Order(len(Digits().open("train")), 8, seed=0)
"""What `tiny` reads."""

When = Callable[[Batch, int], bool]
"""Says of a batch and a step whether the gradient is to be too large."""

SPIKES = """
from anydit.train.step import TrainStep
from tests.train.spiking import of_batches, spiking
TrainStep.terms = spiking({when})
"""
"""The same as code that a process runs first."""


def spiking(when: When) -> Callable[[TrainStep, Batch, torch.Tensor, int], Terms]:
    """A step's terms with such gradients; the losses stay as they are."""
    real = TrainStep.terms

    def terms(self: TrainStep, batch: Batch, rows: torch.Tensor, step: int) -> Terms:
        found = real(self, batch, rows, step)
        if when(batch, step):
            found[LOSS] = found[LOSS].detach() + 1e6 * (found[LOSS] - found[LOSS].detach())
        return found

    return terms


def of_batches(*bad: int) -> When:
    """Says whether a batch is one of these."""
    first = {int(ORDER.ids(k)[0]) for k in bad}
    return lambda batch, step: int(batch.ids[0]) in first


def ids_of(batch: int) -> int:
    """How the log tells of the ids of a batch."""
    return zlib.crc32(ORDER.ids(batch).numpy().tobytes())
