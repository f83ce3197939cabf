"""How the network is told the time."""

from math import ceil, isfinite, log2

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import check_positive, config
from anydit.model.tokens import check_period, frequencies
from anydit.tensors import Constants


@config
class TimeEmbedding:
    """How the network sees time: sinusoids of `scale * t + shift`, then a small network (Peebles & Xie 2022).

    With scale N and shift -1 the network sees the published index i of N discrete steps, where t = (i + 1) / N.
    """

    scale: float = 1000.0
    shift: float = -1.0
    frequencies: int = 256
    max_period: float = 10_000.0

    def __post_init__(self) -> None:
        check_period(self.max_period)
        check_positive("scale", self.scale)
        if not isfinite(self.shift):
            raise ValueError(f"shift: got {self.shift}, expected a finite number")
        if self.frequencies < 2 or self.frequencies % 2:
            raise ValueError(f"frequencies: got {self.frequencies}, expected an even number: sines and cosines")


class TimeVector(nn.Module):
    """`t: Float[b]` to `Float[b width]`."""

    def __init__(self, config: TimeEmbedding, width: int) -> None:
        super().__init__()
        self.config = config
        self.constants = Constants()
        self.up = nn.Linear(config.frequencies, width)
        self.down = nn.Linear(width, width)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        """Embed each sample's time."""
        # A float32 t = (i + 1) / N misses i after scaling; rounded to about 2^-22 of the scale, it gives i exactly.
        finest = 2.0 ** (22 - ceil(log2(self.config.scale)))
        place = torch.round((self.config.scale * t + self.config.shift) * finest) / finest
        angles = place[:, None].float() * self.constants.get("omega", t.device, self._omega)
        return self.down(F.silu(self.up(torch.cat([angles.cos(), angles.sin()], dim=-1).type_as(self.up.weight))))

    def _omega(self) -> Float[Tensor, " k"]:
        # In float32 as published: at angles of 1,000 its rounding shows, and published weights were trained with it.
        return frequencies(self.config.frequencies // 2, self.config.max_period, torch.float32)
