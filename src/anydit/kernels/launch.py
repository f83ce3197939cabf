"""How a kernel is run."""

from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], on: Tensor, *given: object, warps: int) -> None:
    """Run so many programs of a kernel, of so many warps each, on the device of a tensor."""
    with torch.cuda.device_of(on):
        kernel[grid](*given, num_warps=warps)
