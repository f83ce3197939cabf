"""Which kernel computes attention: the one that PyTorch would take, or one that was found to be the fastest.

The choice is the process's, as the number of threads is. What is computed is the same to rounding.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Backend = Literal["flash", "cudnn", "efficient", "math"]
"""By their names in PyTorch (`torch.nn.attention.SDPBackend`). On a CPU `math` is plain products, where gradients are
asked for."""

ORDER: dict[Backend, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
"""What comes after the chosen one where that cannot do what is asked for, as flash attention no masks."""

OF: dict[str, tuple[Backend, ...]] = {"cpu": ("flash", "math"), "cuda": ("flash", "cudnn", "efficient", "math")}
"""Between which a kind of device has the choice."""

SHORT_TOKENS = 1024
"""Up to so many tokens the scores of all pairs are small enough to be stored."""


class _Chosen:
    """The process's choice. `order`: PyTorch's, which is put back when another is made."""

    backend: Backend | None = None
    order = ExitStack()


def check_backend(device: torch.device, backend: Backend | None, name: str = "attention_backend") -> None:
    """Refuse a backend that this kind of device has not.

    Raises:
        ValueError: that is so.
    """
    if backend is not None and backend not in (own := OF.get(device.type, ())):
        expected = f"one of {', '.join(own)}" if own else "None"
        raise ValueError(f"{name}: got {backend} on {device.type}, expected {expected}")


def settle(device: torch.device) -> None:
    """Let PyTorch put its kernels into its own order, which it does in a GPU's first attention, over any other."""
    if device.type == "cuda":
        q = torch.zeros(1, 1, 8, 64, dtype=torch.float16, device=device)
        F.scaled_dot_product_attention(q, q, q)


def use(backend: Backend | None) -> None:
    """From here on compute attention by this backend, where it can do what is asked for; None: as PyTorch likes."""
    _Chosen.order.close()
    if backend is not None:
        kernels = [ORDER[backend], *(kernel for name, kernel in ORDER.items() if name != backend)]
        _Chosen.order.enter_context(sdpa_kernel(kernels, set_priority=True))  # pyright: ignore[reportUnknownArgumentType]
    _Chosen.backend = backend


def used() -> Backend | None:
    """The backend that was chosen."""
    return _Chosen.backend


@contextmanager
def using(backend: Backend | None) -> Generator[None]:
    """Within it attention is computed by this backend; afterwards as before."""
    before = used()
    use(backend)
    try:
        yield
    finally:
        use(before)


def in_products(q: Tensor, k: Tensor) -> bool:
    """Whether attention of these is done in plain products, all scores being stored: on a CPU, in training.

    Unless it was tried, that is taken to be faster for short sequences in bfloat16 alone: PyTorch's kernel is slow
    backward there, at 16 tokens 8 times, at 256 twice as slow as plain products.
    """
    if _Chosen.backend is None:  # read before all else: what is compiled is then compiled anew for another choice
        chosen = q.dtype is torch.bfloat16 and max(q.shape[2], k.shape[2]) <= SHORT_TOKENS
    else:
        chosen = _Chosen.backend == "math"
    return chosen and q.device.type == "cpu" and q.requires_grad
