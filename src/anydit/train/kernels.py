"""Which kernels of `anydit.kernels` a training uses in place of PyTorch's operations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from anydit.config import config
from anydit.inference.compile import check_kernels, fuse_blocks
from anydit.model.dit import DiT

if TYPE_CHECKING:
    from anydit.kernels.update import OnePass


@config
class Kernels:
    """Kernels in Triton, which do in one pass what PyTorch does in several, the same to rounding.

    `tokens`: in blocks, norm with modulation, and gate with residual. `update`: clipping, AdamW and the average.
    """

    tokens: bool = True
    update: bool = True

    def fuse(self, model: DiT) -> None:
        """Let the blocks of `model` use them.

        Raises:
            ValueError: this device runs none, or not for this model.
        """
        if self.tokens:
            fuse_blocks(model)

    def one_pass(
        self, optimizer: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter], averages: Mapping[str, Tensor]
    ) -> "OnePass | None":
        """What takes the place of the optimizer's step and of the average's, both by parameters' names; None: nothing.

        Raises:
            ValueError: this device runs none.
        """
        if not self.update:
            return None
        check_kernels(next(iter(averages.values())).device)
        from anydit.kernels.update import OnePass  # only here is Triton imported

        assert isinstance(optimizer, torch.optim.AdamW)
        return OnePass(optimizer, {p: averages[name] for name, p in trained.items()})
