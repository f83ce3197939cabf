"""Speed of a forward pass and of a training step, side by side with diffusers' DiT of the same size, in one run.

    python benchmarks/speed.py                        # this machine's rows
    python benchmarks/speed.py --official ~/DiT       # with a checkout of facebookresearch/DiT too

Every contender has the same size, the same optimizer (fused AdamW) and average of weights; they take turns, round
after round, so that a machine whose speed drifts is fair to all. Medians; a ratio below 1 means anydit is faster.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from results import publish, table
from torch import Tensor, nn

from anydit.inference.compile import compile_blocks, fuse_blocks
from anydit.model.backend import Backend, settle, using
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.flops import cost
from anydit.train.kernels import Kernels
from anydit.train.profile import product_ceiling
from anydit.train.trial import by_backends

Call = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Size:
    """A model and a batch."""

    name: str
    width: int
    depth: int
    heads: int
    patch: int
    side: int
    channels: int
    batch: int

    @property
    def config(self) -> DiTConfig:
        """Ours."""
        return DiTConfig(
            width=self.width, depth=self.depth, heads=self.heads, patch=(self.patch,) * 2, channels=self.channels,
            size=(self.side,) * 2, conditions={"label": Label(1000)}, learned_variance=True,
        )  # fmt: skip


CPU_SIZES = (
    Size("S/2, 256 tokens", 384, 12, 6, 2, 32, 4, 8),
    Size("width 96, 16 tokens", 96, 4, 4, 2, 8, 1, 128),
    Size("width 192, 16 tokens", 192, 6, 6, 2, 8, 1, 64),
    Size("width 96, 64 tokens", 96, 4, 4, 2, 16, 1, 32),
)
GPU_SIZES = (
    Size("XL/2, 256 tokens", 1152, 28, 16, 2, 32, 4, 128),
    Size("XL/2, one guided image", 1152, 28, 16, 2, 32, 4, 2),
)


@dataclass(frozen=True)
class Contender:
    """A network as somebody would run it."""

    name: str
    module: nn.Module
    call: Call
    bf16: bool
    kernels: bool = False


def ours(size: Size, bf16: bool, compiled: bool, device: str, kernels: bool = False) -> Contender:
    """Anydit's DiT; `kernels`: with anydit's own in its blocks, and in the update."""
    model = DiT(size.config).to(device)
    if kernels:
        fuse_blocks(model)
    if compiled:
        compile_blocks(model)
    name = f"anydit, {'bf16' if bf16 else 'float32'}{', compiled' * compiled}{', kernels' * kernels}"
    return Contender(name, model, lambda x, t, y: model(x, (t + 1) / 1000, {"label": y}), bf16, kernels)


def of_diffusers(size: Size, bf16: bool, device: str) -> Contender:
    """Diffusers' DiTTransformer2DModel."""
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=size.heads, attention_head_dim=size.width // size.heads, in_channels=size.channels,
        out_channels=2 * size.channels, num_layers=size.depth, sample_size=size.side, patch_size=size.patch,
        num_embeds_ada_norm=1000,
    ).to(device)  # fmt: skip
    name = f"diffusers, {'bf16' if bf16 else 'float32'}"
    return Contender(name, model, lambda x, t, y: model(x, timestep=t, class_labels=y).sample, bf16)


def official(size: Size, checkout: Path, bf16: bool, device: str) -> Contender:
    """The published code, from a checkout given by path."""
    sys.path.insert(0, str(checkout))
    from models import DiT as OfficialDiT  # pyright: ignore[reportMissingImports]

    model: Any = OfficialDiT(
        input_size=size.side, patch_size=size.patch, in_channels=size.channels, hidden_size=size.width,
        depth=size.depth, num_heads=size.heads, num_classes=1000, learn_sigma=True,
    ).to(device)  # fmt: skip
    return Contender(f"official, {'bf16' if bf16 else 'float32'}", model, lambda x, t, y: model(x, t, y), bf16)


class Timer:
    """Forward passes and training steps of one contender, timed one by one."""

    def __init__(self, contender: Contender, size: Size, device: str, backend: Backend | None = None) -> None:
        self.contender, self.size, self.device, self.backend = contender, size, device, backend
        generator = torch.Generator().manual_seed(0)
        shape = (size.batch, size.channels, size.side, size.side)
        self.x = torch.randn(shape, generator=generator).to(device)
        self.t = torch.randint(1000, (size.batch,), generator=generator).to(device)
        self.y = torch.randint(1000, (size.batch,), generator=generator).to(device)
        self.parameters = [p for p in contender.module.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, fused=True)
        named = {str(i): p for i, p in enumerate(self.parameters)}
        averages = dict(zip(named, self.average, strict=True))
        self.one_pass = Kernels().one_pass(self.optimizer, named, averages) if contender.kernels else None
        self.one = torch.ones((), device=device)

    def forward(self) -> None:
        """One pass without gradients."""
        with torch.inference_mode(), self._autocast():
            self.contender.call(self.x, self.t, self.y)

    def step(self) -> None:
        """One training step."""
        with self._autocast():
            loss = (self.contender.call(self.x, self.t, self.y).float() ** 2).mean()
        loss.backward()
        if self.one_pass is None:
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1e-4)
        else:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None], foreach=True)
            self.one_pass(norm.clamp(min=1), self.one, 1e-4 * self.one)
        self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, work: Callable[[], None]) -> float:
        """How long `work` takes, the device's queue included."""
        self._wait()
        with using(self.backend):
            begin = time.perf_counter()
            work()
            self._wait()
            return time.perf_counter() - begin

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.contender.bf16)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def contenders(size: Size, device: str, checkout: Path | None) -> list[Contender]:
    """Everybody, ours first."""
    out = [ours(size, bf16, compiled, device) for bf16 in (True, False) for compiled in (True, False)]
    if device == "cuda":
        out.insert(0, ours(size, True, True, device, kernels=True))
    out += [of_diffusers(size, bf16, device) for bf16 in (True, False)]
    if checkout is not None:
        out += [official(size, checkout, bf16, device) for bf16 in (True, False)]
    return out


def fastest_attention(size: Size, device: str) -> Backend | None:
    """By which backend our attention is fastest on a GPU in bfloat16, as a run finds at its start."""
    if device != "cuda":
        return None
    timer = Timer(ours(size, True, False, device), size, device)
    settle(torch.device(device))
    found, failed = by_backends(timer.step, [None, "flash", "cudnn", "efficient"], torch.device(device))
    print(
        f"{size.name}, attention: " + ", ".join(f"{name}: {1e3 * each:.1f} ms" for name, each in found.items()), failed
    )
    return min(found, key=lambda name: found[name])


def compare(size: Size, device: str, checkout: Path | None, rounds: int) -> list[list[object]]:
    """Rows of the table for one size."""
    torch.compiler.reset()  # or the variants of one size count towards the next one's limit
    chosen = fastest_attention(size, device)
    timers = [
        Timer(c, size, device, chosen if "anydit" in c.name else None) for c in contenders(size, device, checkout)
    ]
    first = [timer.seconds(timer.step) for timer in timers]
    forward: list[list[float]] = [[] for _ in timers]
    step: list[list[float]] = [[] for _ in timers]
    for timer in timers:
        timer.seconds(timer.forward), timer.seconds(timer.step)
    for _ in range(rounds):
        for i, timer in enumerate(timers):
            forward[i].append(timer.seconds(timer.forward))
            step[i].append(timer.seconds(timer.step))
    gflop = cost(size.config).forward * size.batch / 1e9
    best = [
        min(median(times) for t, times in zip(timers, kind, strict=True) if "anydit" not in t.contender.name)
        for kind in (forward, step)
    ]
    rows: list[list[object]] = []
    for i, timer in enumerate(timers):
        f, s = median(forward[i]), median(step[i])
        rows.append([f"{size.name}, batch {size.batch}", timer.contender.name, 1e3 * f, f / best[0], gflop / f,
                     1e3 * s, s / best[1], 3 * gflop / s, size.batch / s, first[i]])  # fmt: skip
    return rows


def main() -> None:
    """Run the comparison and publish its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help="sizes whose name holds this")
    parser.add_argument("--official", type=Path, help="a checkout of facebookresearch/DiT (needs timm)")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch._dynamo.config.recompile_limit = 64  # all models here share one Block.forward
    rows: list[list[object]] = []
    for size in GPU_SIZES if device == "cuda" else CPU_SIZES:
        if arguments.only and arguments.only not in size.name:
            continue
        rows += compare(size, device, arguments.official, arguments.rounds)
        gc.collect()
    header = [
        "model",
        "code",
        "forward ms",
        "of best peer",
        "GFLOP/s",
        "step ms",
        "of best peer",
        "GFLOP/s",
        "samples/s",
        "first step s",
    ]
    reach = [
        f"{product_ceiling(torch.device(device), kind) / 1e9:.0f} in {kind}" for kind in (torch.bfloat16, torch.float32)
    ]
    note = f"Large products alone reach, in GFLOP/s: {', '.join(reach)}."
    publish(f"speed-{device}", "Speed beside diffusers", f"{table(header, rows)}\n\n{note}")


if __name__ == "__main__":
    main()
