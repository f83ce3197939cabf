"""Each kernel of `anydit.kernels` beside what it takes the place of: equal, and faster? Needs a GPU.

    python benchmarks/kernels.py                          # each kernel, at the size of DiT-XL/2 and smaller ones
    python benchmarks/kernels.py --tile PER_WARP=256      # with another constant of anydit.kernels.operators
    python benchmarks/speed.py --only XL                  # whole training steps, with and without all of them

Tokens and modulation are in bfloat16, as in training. PyTorch's operations are taken as they are, and compiled. A
kernel pays where it takes at most 0.95 of the time of the faster one of these, forward and backward together. Bytes are
those that the kernel has to move; the copy is that of a tensor of 1 GiB. Small tokens stay in the GPU's cache.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from results import publish, table
from torch import Tensor, nn
from torch._functorch import config as functorch

from anydit.model.blocks import Between
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.train.ema import EMA
from anydit.train.kernels import Kernels
from anydit.train.optim import AdamW, switches

PAYS, REPEATS, WITHIN = 0.95, 50, 1e-2
EAGER, COMPILED, KERNEL = "PyTorch", "PyTorch, compiled", "kernel"

SIZES = {"XL/2": (128, 256, 1152), "S/2": (128, 256, 384), "width 192, 16 tokens": (128, 16, 192)}
"""Samples, tokens, width."""

MOVED = {"enter": (2, 4), "join": (4, 6), "leave": (3, 3)}
"""Tensors of the size of the tokens, forward and backward."""

Call = Callable[..., Any]


@dataclass(frozen=True)
class Given:
    """What goes in: tokens, what was found for them, and modulation; and the gradients of what comes out."""

    x: Tensor
    h: Tensor
    modulation: Tensor
    gradients: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, b: int, n: int, width: int) -> "Given":
        """As a block has them: three rows of modulation are parts of a tensor for six."""
        generator = torch.Generator("cuda").manual_seed(0)
        x, h, one, two = (torch.randn(b, n, width, device="cuda", generator=generator) for _ in range(4))
        modulation = torch.randn(b, 6, width, device="cuda", generator=generator)
        x, h, modulation = (v.bfloat16().requires_grad_() for v in (x, h, modulation))
        return cls(x, h, modulation, (one.bfloat16(), two.bfloat16()))

    def double(self) -> "Given":
        """The same in float64."""
        x, h, modulation = (v.detach().double().requires_grad_() for v in (self.x, self.h, self.modulation))
        return Given(x, h, modulation, (self.gradients[0].double(), self.gradients[1].double()))


def work(name: str, between: Between, norm: nn.Module) -> Call:
    """What a block does at one place, on tokens, what was found, and modulation; it makes one tensor or two."""

    def enter(x: Tensor, h: Tensor, modulation: Tensor) -> tuple[Tensor, ...]:
        rows = modulation.unsqueeze(2).unbind(1)
        x, y = between.enter(norm, x, *rows[:2])
        return x, y.type_as(x)  # the product after it is in bfloat16

    def join(x: Tensor, h: Tensor, modulation: Tensor) -> tuple[Tensor, ...]:
        rows = modulation.unsqueeze(2).unbind(1)
        x, y = between.join(norm, x, rows[2], h, *rows[3:5])
        return x, y.type_as(x)

    def leave(x: Tensor, h: Tensor, modulation: Tensor) -> tuple[Tensor, ...]:
        return (between.leave(x, modulation.unsqueeze(2).unbind(1)[5], h),)

    return {"enter": enter, "join": join, "leave": leave}[name]


def gradients(outputs: Sequence[Tensor], given: Given) -> list[Tensor]:
    """Of all that goes in and counts."""
    inputs = (given.x, given.h, given.modulation)
    found = torch.autograd.grad(outputs, inputs, given.gradients[: len(outputs)], retain_graph=True, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def run(call: Call, given: Given) -> tuple[Tensor, ...]:
    """Forward, in autocast."""
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=given.x.dtype == torch.bfloat16):
        return call(given.x, given.h, given.modulation)


def milliseconds(call: Callable[[], object]) -> float:
    """The median of many, on the GPU's own clock."""
    for _ in range(5):
        call()
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPEATS)]
    for begin, end in pairs:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return median(begin.elapsed_time(end) for begin, end in pairs)


def copy_bandwidth() -> float:
    """Bytes a second, read and written."""
    a, b = (torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * a.numel() / milliseconds(lambda: b.copy_(a)) * 1e3


def of_tokens(name: str, size: str, copy: float) -> tuple[list[list[object]], str]:
    """Rows of one kernel at one size, and what follows from them."""
    from anydit.kernels import tokens

    given, norm = Given.of(*SIZES[size]), nn.LayerNorm(SIZES[size][2], eps=1e-6, elementwise_affine=False)
    plain = work(name, Between(), norm)
    calls = {
        EAGER: plain,
        COMPILED: torch.compile(plain, fullgraph=True),
        KERNEL: work(name, Between(tokens.enter, tokens.join, tokens.leave), norm),
    }
    exact = given.double()
    expected = run(plain, exact)
    check(name, size, given, calls[KERNEL], [*expected, *gradients(expected, exact)])
    rows, totals = list[list[object]](), dict[str, float]()
    for code, call in calls.items():
        outputs = run(call, given)
        times = (
            milliseconds(lambda call=call: run(call, given)),
            milliseconds(lambda outputs=outputs: gradients(outputs, given)),
        )
        moved = [count * given.x.numel() * given.x.element_size() for count in MOVED[name]]
        rates = [of / ms * 1e3 for of, ms in zip(moved, times, strict=True)]
        cells = [cell for ms, rate in zip(times, rates, strict=True) for cell in (ms, rate / 1e9, rate / copy)]
        rows.append([name, size, code, *cells])
        totals[code] = sum(times)
    return rows, decision(f"`{name}`, {size}", totals)


def check(name: str, size: str, given: Given, call: Call, expected: Sequence[Tensor]) -> None:
    """Refuse to time what computes something else."""
    outputs = run(call, given)
    for i, (got, right) in enumerate(zip([*outputs, *gradients(outputs, given)], expected, strict=True)):
        error = float((got.detach().double() - right).norm() / right.norm())
        if not error < WITHIN:
            sys.exit(f"{name}, {size}: number {i} of what comes out is off by {error:.2g} of it; nothing was measured")


def decision(what: str, totals: dict[str, float]) -> str:
    """Whether a kernel pays."""
    best = min(ms for code, ms in totals.items() if code != KERNEL)
    share = totals[KERNEL] / best
    return f"- {what}: {'pays' if share <= PAYS else 'does not pay'}, {share:.2f} of the best of PyTorch."


def of_update(copy: float) -> tuple[list[list[object]], str]:
    """The same of clipping, AdamW and average, over the weights of DiT-XL/2; the norm is found before, by all."""
    config = DiTConfig(1152, 28, 16, (2, 2), 4, (32, 32), {"label": Label(1000)}, learned_variance=True)
    model = DiT(config).cuda()
    trained = dict(model.named_parameters())
    ema, optimizer = EMA(model, 0.9999), AdamW().build(trained)
    for p in trained.values():
        p.grad = torch.randn_like(p)
    one, divisor = torch.ones((), device="cuda"), torch.tensor(1.5, device="cuda")
    one_pass = Kernels(tokens=False).one_pass(optimizer, trained, ema.own)
    assert one_pass is not None

    def passes() -> None:
        switches(optimizer, divisor, one)
        optimizer.step()
        ema.update(10_000, one)

    def clipped() -> None:
        torch.nn.utils.clip_grads_with_norm_(trained.values(), 1.0, divisor, foreach=True)
        switches(optimizer, one, one)
        optimizer.step()
        ema.update(10_000, one)

    codes = {
        "PyTorch, clipping for itself": clipped,
        "PyTorch, clipping in AdamW": passes,
        KERNEL: lambda: one_pass(divisor, one, 1e-4 * one),
    }
    times = {code: milliseconds(call) for code, call in codes.items()}
    moved = 9 * 4 * sum(p.numel() for p in trained.values())
    rows = [[code, ms, moved / ms / 1e6, moved / ms * 1e3 / copy] for code, ms in times.items()]
    return rows, decision("the update of XL/2", times)


def main() -> None:
    """Check, time, decide, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile", nargs="+", default=[], metavar="NAME=NUMBER", help="constants of kernels/operators")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("kernels: found no GPU, expected one: on a CPU these kernels run in an interpreter, as in tests/kernels")
        sys.exit(2)
    from anydit.kernels import operators

    for given in arguments.tile:
        name, _, number = given.partition("=")
        if not hasattr(operators, name):
            sys.exit(f"tile: got {name}, expected VALUES, PER_WARP, PROGRAMS, LONGEST or AT_ONCE")
        setattr(operators, name, int(number))
    functorch.donated_buffer = False  # backward passes are run again and again
    copy = copy_bandwidth()
    found = [of_tokens(name, size, copy) for size in SIZES for name in MOVED]
    updates, of_all = of_update(copy)
    each = ["ms", "GB/s", "of copy"]
    header = ["kernel", "tokens", "code", *(f"{way} {what}" for way in ("forward", "backward") for what in each)]
    parts = [
        table(header, [row for rows, _ in found for row in rows]),
        table(["update of XL/2", *each], updates),
        "\n".join([*(said for _, said in found), of_all]),
        f"A copy moves {copy / 1e9:.0f} GB/s. `enter`: norm and modulation, with the sum of both gradients of the "
        "tokens. `join`: gate and residual, then `enter`. `leave`: gate and residual.",
    ]
    publish("kernels", "Kernels, and whether they pay", "\n\n".join(parts))


if __name__ == "__main__":
    main()
