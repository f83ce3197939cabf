"""Muon: a matrix moves along the momentum of its gradient, in which all directions have been made equally strong.

Jordan 2024 (https://kellerjordan.github.io/posts/muon), with the size of AdamW's moves as in Liu 2025 (arXiv
2502.16982). `torch.optim.Muon` is the same, but its products are in bfloat16 whatever the machine: where that is
emulated they take 20 to 30 times as long as in float32. And it reads nothing on the device that could skip a step.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.inference.compile import product_dtype

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of an iteration that brings singular values near 1 fast; it leaves them at 0.7 to 1.2."""

LIKE_ADAMW = 0.2
"""The root mean square of AdamW's moves, in learning rates, of which theirs is made (Liu 2025, section 2.2)."""


class MuonBesideAdamW(torch.optim.AdamW):
    """Muon for the groups that have `parts`, and AdamW for the others; both obey `found_inf`.

    `parts`: for each parameter of a group, how many matrices it holds, one above the other, each of which is moved for
    itself. Beside it such a group has `momentum` and `iterations`.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move all parameters that have a gradient; those that Muon moves have none afterwards."""
        for group in self.param_groups:
            if group.get("parts"):
                self._move(group)
        super().step(closure)

    def _move(self, group: dict[str, Any]) -> None:
        """Move one group's matrices, or leave them and their momentum as they are, without waiting for the device."""
        some = [(p, n) for p, n in zip(group["params"], group["parts"], strict=True) if p.grad is not None]
        skipped = [self._skipped(p) for p, _ in some]
        if some and (divisor := getattr(self, "grad_scale", None)) is not None:
            torch._foreach_div_([p.grad for p, _ in some], divisor)  # pyright: ignore[reportPrivateImportUsage]
        ways = [self._way(p, group["momentum"], skip) for (p, _), skip in zip(some, skipped, strict=True)]
        matrices = [part for way, (_, n) in zip(ways, some, strict=True) for part in way.chunk(n)]
        turned = iter(orthogonal_each(matrices, group["iterations"]))
        for (p, n), skip in zip(some, skipped, strict=True):
            parts = [next(turned) for _ in range(n)]
            rate = group["lr"] * LIKE_ADAMW * sqrt(max(parts[0].shape))
            moved = p * (1 - group["lr"] * group["weight_decay"]) - rate * torch.cat(parts)
            p.copy_(torch.where(skip, p, moved))
            p.grad = None  # AdamW passes over what has none

    def _way(self, p: nn.Parameter, momentum: float, skip: Bool[Tensor, ""]) -> Float[Tensor, "a b"]:
        """The momentum after this gradient, looked ahead by one more (Nesterov)."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        after = state["momentum"].lerp(p.grad, 1 - momentum)
        state["momentum"].copy_(torch.where(skip, state["momentum"], after))
        return p.grad.lerp(after, momentum)

    def _skipped(self, p: nn.Parameter) -> Bool[Tensor, ""]:
        found = getattr(self, "found_inf", None)
        return torch.zeros((), dtype=torch.bool, device=p.device) if found is None else found.bool()


def orthogonal_each(matrices: Sequence[Float[Tensor, "_ _"]], iterations: int) -> list[Float[Tensor, "_ _"]]:
    """`orthogonal` of each, those of one shape as one batch; in their order."""
    shapes: dict[torch.Size, list[int]] = {}
    for place, matrix in enumerate(matrices):
        shapes.setdefault(matrix.shape, []).append(place)
    done = dict[int, Tensor]()
    for places in shapes.values():
        done |= zip(places, orthogonal(torch.stack([matrices[i] for i in places]), iterations), strict=True)
    return [done[place] for place in range(len(matrices))]


def orthogonal(x: Float[Tensor, "m a b"], iterations: int = 5) -> Float[Tensor, "m a b"]:
    """U V' of each matrix U S V', roughly: the singular values come to be between 0.7 and 1.2, but for tiny ones.

    By products alone (Newton-Schulz), in bfloat16 where the processor has it. A matrix of zeros remains one.
    """
    tall = x.shape[1] > x.shape[2]
    y = x.mT if tall else x  # the products are among the fewer rows
    y = y / torch.linalg.matrix_norm(y, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    y = y.to(product_dtype(x.device, bf16=True))
    a, b, c = QUINTIC
    for _ in range(iterations):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return (y.mT if tall else y).type_as(x)
