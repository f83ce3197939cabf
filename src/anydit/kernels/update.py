"""What comes after the backward pass, in one pass over the weights: clipping, AdamW, and the moving average.

It reads weight, gradient, both moments and average, and writes all but the gradient: 9 numbers for each weight, where
PyTorch's operations one after the other move 16. It waits for nothing: by what gradients are divided, and whether the
step is taken, is read on the device.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import log2
from typing import Any

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from anydit.kernels.launch import launch
from anydit.kernels.weights import update

BLOCK = 1024
WARPS = 4

Row = tuple[int, ...]
"""Of one tensor: the addresses of weights, gradient, both moments, average and step; and how many weights it has."""


class OnePass:
    """Takes the place of an AdamW's step with that of an average after it; the optimizer's state is as it leaves it.

    `averages`: of each parameter. All are in float32.
    """

    def __init__(self, optimizer: torch.optim.AdamW, averages: Mapping[Tensor, Tensor]) -> None:
        self.optimizer, self.averages = optimizer, averages
        self._kept: dict[object, tuple[object, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, divisor: Float[Tensor, ""], applied: Float[Tensor, ""], towards: Float[Tensor, ""]) -> None:
        """Step by gradients over `divisor`, and the averages by the share `towards`, where `applied` is not 0."""
        told = torch.stack([divisor, applied, towards])
        for number, group in enumerate(self.optimizer.param_groups):
            taken = [p for p in group["params"] if p.grad is not None]
            steps = [self._state(p)["step"] for p in taken]
            if steps:
                torch._foreach_add_(steps, applied)  # pyright: ignore[reportPrivateImportUsage]
            rows = sorted((self._row(p) for p in group["params"]), key=_aligned)
            for aligned, some in groupby(rows, _aligned):
                self._launch((number, aligned), list(some), told, _rates(group))

    def _launch(self, of: tuple[int, bool], rows: Sequence[Row], told: Tensor, rates: tuple[float, ...]) -> None:
        sizes = [row[-1] for row in rows]
        table = self._on(told.device, ("rows", *of), rows, lambda: torch.tensor(rows))
        places = self._on(told.device, ("places", *of), sizes, lambda: _places(sizes))
        launch(update, (len(places),), told, table, places, told, rates, of[1], BLOCK, warps=WARPS)

    def _row(self, p: Tensor) -> Row:
        state, gradient = self._state(p), p.grad
        given = (p, state["exp_avg"], state["exp_avg_sq"], self.averages[p], state["step"])
        for x in (*given, *([] if gradient is None else [gradient])):
            assert x.dtype == torch.float32
            assert x.is_contiguous()
        weights, *others = (x.data_ptr() for x in given)
        return weights, 0 if gradient is None else gradient.data_ptr(), *others, p.numel()

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        state = self.optimizer.state[p]
        if not state:
            state["step"] = torch.zeros((), device=p.device)
            state |= {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
        return state

    def _on(self, device: torch.device, name: object, of: object, make: Any) -> Tensor:
        """A table on the device, sent there again only when it changes; gradients mostly lie where they lay before."""
        known, table = self._kept.get(name, (None, None))
        if table is None or known != of:
            table = make()
            table = table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table
            self._kept[name] = of, table
        return table


def _rates(group: Mapping[str, Any]) -> tuple[float, ...]:
    """Of a group of parameters, as the kernel reads them: in float32, so that nothing is to be taken away from 1."""
    beta1, beta2 = group["betas"]
    stays = 1 - group["lr"] * group["weight_decay"]
    return group["lr"], stays, group["eps"], beta1, beta2, 1 - beta1, 1 - beta2, _log2(beta1), _log2(beta2)


def _log2(beta: float) -> float:
    """Of 0 what no power of 2 comes near, as a finite number."""
    return log2(beta) if beta else -1e30


def _aligned(row: Row) -> bool:
    return row[-1] % 4 == 0 and all(address % 16 == 0 for address in row[:5])


def _places(sizes: Sequence[int]) -> Tensor:
    """Of each program, its tensor and its block."""
    blocks = torch.tensor([triton.cdiv(size, BLOCK) for size in sizes])
    tensors = torch.repeat_interleave(torch.arange(len(sizes)), blocks)
    first = torch.repeat_interleave(blocks.cumsum(0) - blocks, blocks)
    return torch.stack([tensors, torch.arange(len(tensors)) - first], 1).int()
