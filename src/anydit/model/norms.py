"""The norms and feed-forward networks that a DiT's options choose from."""

from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import check_at_least, check_positive, config


@config
class LayerNorm:
    """Mean 0 and variance 1 over a token's channels (Ba 2016)."""

    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_at_least("eps", self.eps, 0)

    def build(self, width: int, *, affine: bool) -> nn.Module:
        """The module; `affine` adds a learned scale and shift."""
        return nn.LayerNorm(width, eps=self.eps, elementwise_affine=affine)


@config
class RMSNorm:
    """Mean square 1 over a token's channels (Zhang & Sennrich 2019)."""

    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_at_least("eps", self.eps, 0)

    def build(self, width: int, *, affine: bool) -> nn.Module:
        """The module; `affine` adds a learned scale."""
        return RMSNormNetwork(width, eps=self.eps, elementwise_affine=affine)


Norm = LayerNorm | RMSNorm


@config
class GELU:
    """Two products with a tanh-approximated GELU between, `ratio` times as wide as the tokens (as published)."""

    ratio: float = 4.0

    def __post_init__(self) -> None:
        check_positive("ratio", self.ratio)

    def build(self, width: int) -> nn.Module:
        """The module."""
        return GELUNetwork(width, self.hidden(width))

    def hidden(self, width: int) -> int:
        """How wide it is inside."""
        return max(1, round(width * self.ratio))


@config
class SwiGLU:
    """A gated feed-forward network (Shazeer 2020); 8/3 as wide, it has as many weights as a GELU of ratio 4."""

    ratio: float = 8 / 3

    def __post_init__(self) -> None:
        check_positive("ratio", self.ratio)

    def build(self, width: int) -> nn.Module:
        """The module."""
        return SwiGLUNetwork(width, self.hidden(width))

    def hidden(self, width: int) -> int:
        """How wide it is inside."""
        return max(1, round(width * self.ratio))


MLP = GELU | SwiGLU


class RMSNormNetwork(nn.RMSNorm):
    """PyTorch's, in one kernel under autocast too, where the tokens are narrower than the weights."""

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Normalise over the last axis."""
        weight = cast("Tensor | None", self.weight)
        return F.rms_norm(x, self.normalized_shape, None if weight is None else weight.type_as(x), self.eps)


class GELUNetwork(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        """Apply to each token on its own."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class SwiGLUNetwork(nn.Module):
    """down(silu(gate(x)) * up(x)), gate and up as one product."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        """Apply to each token on its own."""
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
