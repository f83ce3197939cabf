"""Tokens that are points in space: attention knows how far apart two are, and where those that it looks at lie."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.config import check_at_least, check_positive, config
from anydit.tensors import Constants

HIDDEN = 32
"""Width of the network that makes scores of distances."""

ROUNDING = 1e-8
"""Added to squared distances: the root has a gradient where two points are one."""


@config
class Points:
    """A set of points: each token stands where the first `axes` channels of the sample, which is being drawn, say.

    Their distance, in `bands` smooth bins up to `reach` (on the network's scale), adds to the score of two tokens, in
    each head and block by learned weights; and each head tells how far from here what it looks at lies, on average.
    Both are relative, as messages among points are in equivariant networks (Satorras 2021, arXiv 2102.09844).
    """

    axes: int = 3
    reach: float = 4.0
    bands: int = 16

    def __post_init__(self) -> None:
        check_at_least("axes", self.axes, 1)
        check_at_least("bands", self.bands, 2)
        check_positive("reach", self.reach)


class Relation(NamedTuple):
    """How the points of a sample stand to each other, as one block sees it: what adds to scores, and where they are."""

    bias: Float[Tensor, "b heads n n"]
    places: Float[Tensor, "b n axes"]


class Relations(nn.Module):
    """Makes what each of `depth` blocks is told."""

    def __init__(self, config: Points, depth: int, heads: int) -> None:
        super().__init__()
        self.config, self.depth = config, depth
        self.constants = Constants()
        self.up, self.down = nn.Linear(config.bands, HIDDEN), nn.Linear(HIDDEN, depth * heads)

    def forward(self, x: Float[Tensor, "b c *space"], mask: Bool[Tensor, "b n"] | None) -> list[Relation]:
        """One for each block; what the mask says does not exist is out of reach."""
        places = x[:, : self.config.axes].flatten(2).transpose(1, 2)
        apart = ((places[:, :, None] - places[:, None]).square().sum(-1) + ROUNDING).sqrt()
        centres = self.constants.get("centres", x.device, self._centres)
        bins = torch.exp(-(((apart[..., None] - centres) / centres[1]) ** 2) / 2)
        bias = self.down(F.silu(self.up(bins.type_as(self.up.weight))))
        bias = rearrange(bias, "b n m (depth heads) -> depth b heads n m", depth=self.depth)
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None], -torch.inf)
        return [Relation(each, places) for each in bias.unbind(0)]

    def _centres(self) -> Float[Tensor, " bands"]:
        return torch.linspace(0, self.config.reach, self.config.bands, device="cpu")


def attend_to_points(
    q: Float[Tensor, "b heads n k"], k: Float[Tensor, "b heads n k"], v: Float[Tensor, "b heads n k"], among: Relation
) -> Float[Tensor, "b heads n k_axes"]:
    """Softmax(q k^T / sqrt(width) + bias) v, and after it the mean place of what is attended to, from here."""
    weights = ((q * q.shape[3] ** -0.5) @ k.transpose(2, 3) + among.bias).softmax(-1).type_as(v)
    places = among.places[:, None].type_as(v).expand(-1, q.shape[1], -1, -1)
    return torch.cat([weights @ v, weights @ places - places], dim=-1)
