"""Samples that are as likely mirrored left to right, on any number of axes."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from anydit.data.base import Wrapped
from anydit.tensors import Batch


@dataclass(frozen=True)
class Mirrored(Wrapped):
    """Every sample twice, the second time mirrored left to right, under ids of its own."""

    def __len__(self) -> int:
        return 2 * len(self.samples)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        batch = self.samples.read(ids % len(self.samples))
        mirrored = (ids >= len(self.samples)).reshape(-1, *(1,) * (batch.x.ndim - 1))
        return replace(batch, x=torch.where(mirrored, batch.x.flip(-1), batch.x), ids=ids)
