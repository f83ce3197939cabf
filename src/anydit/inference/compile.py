"""torch.compile applied from outside, block by block: the first step costs seconds, and all blocks share the code.

And kernels in Triton, in place of what PyTorch does in several passes over the tokens.
"""

import importlib
import os
import shutil

import torch
from torch import nn

from anydit.model.blocks import Between, Block
from anydit.model.dit import DiT

MOST_VARIANTS = 128
"""How often a line of code may be compiled. PyTorch counts over all networks of a process: the 9th would be refused."""


def compile_blocks(model: DiT) -> None:
    """Compile each block and the output layer of `model` in place; its state dict keeps its keys.

    Raises:
        ValueError: compiling for this device needs a C++ compiler and there is none.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ValueError("compile: found no C++ compiler (g++ or clang++); install one, or set compile to False")
    limits = importlib.import_module("torch._dynamo").config
    limits.recompile_limit = max(limits.recompile_limit, MOST_VARIANTS)
    for module in (*model.blocks, model.output):
        _compile(module)


def fuse_blocks(model: DiT) -> None:
    """Let `anydit.kernels` do what the blocks of `model` do between products; compile them afterwards, if at all.

    What is computed stays the same to rounding. Norms outside of blocks, and those of tokens that are only read, are
    left to PyTorch.

    Raises:
        ValueError: the kernels do not run on this device, or not at this width.
    """
    check_kernels(next(model.parameters()).device, "leave out fuse_blocks")
    from anydit.kernels.tokens import WIDEST, enter, join, leave

    if model.config.width > WIDEST:
        raise ValueError(f"kernels: got a model of width {model.config.width}, expected at most {WIDEST}")
    for module in model.modules():
        if isinstance(module, Block):
            module.between = Between(enter, join, leave)


def check_kernels(device: torch.device, instead: str = "set train.kernels to None") -> None:
    """Refuse kernels where they would not run, and say what to do `instead`.

    Raises:
        ValueError: that is so.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        raise ValueError(f"kernels: got some on {device.type}, expected a GPU for them; {instead}")
    try:
        import triton  # noqa: F401
    except ImportError:
        raise ValueError(f"kernels: found no Triton, in which they are; pip install triton, or {instead}") from None


def _compile(module: nn.Module) -> None:
    # One graph per block: a break would cost what compiling saves. Shapes that change, as a smaller last batch does,
    # are made symbolic by the second one.
    module.compile(fullgraph=True)


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """A context in which products run in bfloat16 (weights stay float32), or one that changes nothing.

    It changes nothing either where bfloat16 would only be emulated, ten times slower than float32.

    Raises:
        ValueError: this GPU has no bfloat16.
    """
    check_bf16(device, bf16)
    half = product_dtype(device, bf16) == torch.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)


def check_bf16(device: torch.device, bf16: bool) -> None:
    """Refuse bfloat16 where it is asked for and the GPU has none.

    Raises:
        ValueError: that is so.
    """
    if bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"bf16: got True, but {torch.cuda.get_device_name(device)} has no bfloat16; set bf16 to False")


def product_dtype(device: torch.device, bf16: bool) -> torch.dtype:
    """What products run in: bfloat16 where it is asked for and not emulated."""
    return torch.bfloat16 if bf16 and not emulates_bf16(device) else torch.float32


def emulates_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is slow on `device`: an x86 processor without instructions for it."""
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch does not tell
        return False
    can = torch.cpu.get_capabilities()
    return can.get("architecture") == "x86_64" and not (can.get("avx512_bf16") or can.get("amx_bf16"))
