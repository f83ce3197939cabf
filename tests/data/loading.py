"""What every loader has to do, whatever its samples are."""

from collections.abc import Sequence

import torch

from anydit.data import Samples
from anydit.data.loader import BucketOrder, Order, read_ahead
from anydit.tensors import Batch


def goes_on(samples: Samples, order: Order | BucketOrder, step: int, expected: Sequence[Batch]) -> None:
    """From a step on, a new reader gives the batches that an earlier one gave."""
    later = read_ahead(samples, order, step)
    for batch in expected:
        again = next(later)
        assert torch.equal(again.ids, batch.ids) and torch.equal(again.x, batch.x)
    later.close()  # type: ignore[attr-defined]
