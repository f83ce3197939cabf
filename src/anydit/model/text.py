"""Text as a condition: what an encoder made of it enters as a vector (adaLN), by cross-attention or by joint attention.

Each way in has a null of its own, learned while training drops the text.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anydit.config import config
from anydit.tensors import Tokens


@config
class Pooled:
    """The pooled vector through a small network, added to the condition vector (adaLN, as SD3 has it)."""


@config
class Cross:
    """Cross-attention to the tokens after each block's self-attention (PixArt-alpha, Chen 2023, arXiv 2310.00426).

    `pooled`: also the pooled vector, through adaLN.
    """

    pooled: Pooled | None = None


@config
class Joint:
    """Attention of sample and text together, in two streams (MM-DiT of SD3, Esser 2024, arXiv 2403.03206).

    `pooled`: also the pooled vector, through adaLN. `dual`: so many blocks, from the first, in which the sample attends
    to itself alone as well (Stable Diffusion 3.5 medium).
    """

    pooled: Pooled | None = Pooled()
    dual: int = 0

    def __post_init__(self) -> None:
        if self.dual < 0:
            raise ValueError(f"dual: got {self.dual}, expected at least 0")


@config
class Text:
    """What an encoder made of a text. Values: `Tokens`.

    `width`: of its tokens, `pooled`: of its pooled vector; None takes both from the encoder. `entry`: how the network
    takes it in. `dropout`: how often training makes the text null; 0 means that no null is learned. `standard`: a
    network that nothing is known of begins as if each channel of the tokens had mean 0 and deviation 1 over the data's
    texts; an encoder's own may be a hundred times apart.
    """

    width: int | None = None
    pooled: int | None = None
    entry: Pooled | Cross | Joint = Cross()
    dropout: float = 0.1
    standard: bool = False

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        for name in ("width", "pooled"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if self.standard and not self.as_tokens:
            raise ValueError("standard: got True for a text whose pooled vector alone enters, expected False")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to the encoder."""
        return not (self.as_tokens and self.width is None) and not (self.as_vector and self.pooled is None)

    @property
    def as_vector(self) -> bool:
        """Whether the pooled vector enters."""
        return isinstance(self.entry, Pooled) or self.entry.pooled is not None

    @property
    def as_tokens(self) -> bool:
        """Whether the tokens enter."""
        return not isinstance(self.entry, Pooled)


class TextVector(nn.Module):
    """A text's pooled vector through a small network; the null is a vector of its own."""

    def __init__(self, config: Text, width: int) -> None:
        super().__init__()
        if config.pooled is None:
            raise ValueError("pooled: got None, expected a number: resolve the config with its text encoder first")
        self.up = nn.Linear(config.pooled, width)
        self.down = nn.Linear(width, width)
        self.unknown = nn.Parameter(torch.zeros(width)) if config.dropout else None

    def forward(self, text: Tokens, present: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        """Embed each sample's text.

        Raises:
            ValueError: there is no pooled vector, or it is of another width.
        """
        pooled, width = text.pooled, self.up.in_features
        if pooled is None or pooled.shape[1] != width:
            got = "no pooled vector" if pooled is None else f"a pooled vector of width {pooled.shape[1]}"
            raise ValueError(f"cond: got a text with {got}, expected one of width {width}: it is another encoder's")
        pooled = pooled.type_as(self.up.weight)
        if present is None:
            return self.down(F.silu(self.up(pooled)))
        # What is not known may be anything, even NaN, which would reach the gradient.
        vector = self.down(F.silu(self.up(pooled.masked_fill(~present[:, None], 0))))
        return torch.where(present[:, None], vector, self.null(len(vector)).type_as(vector))

    def null(self, batch: int) -> Float[Tensor, "b width"]:
        """The learned null for every sample."""
        assert self.unknown is not None
        return self.unknown.expand(batch, -1)


class TextTokens(nn.Module):
    """A text's tokens at the blocks' width; the null is one token of its own."""

    def __init__(self, config: Text, width: int) -> None:
        super().__init__()
        if config.width is None:
            raise ValueError("width: got None, expected a number: resolve the config with its text encoder first")
        self.up = nn.Linear(config.width, width)
        self.down = nn.Linear(width, width) if isinstance(config.entry, Cross) else None
        self.unknown = nn.Parameter(torch.zeros(width)) if config.dropout else None

    def forward(
        self, text: Tokens, present: Bool[Tensor, " b"] | None
    ) -> tuple[Float[Tensor, "b n width"], Bool[Tensor, "b n"]]:
        """Each sample's tokens, and which of them exist: at least one, for a text without tokens is null.

        Raises:
            ValueError: the tokens are of another width.
        """
        values, exists = text.values, text.exists
        if values.shape[2] != self.up.in_features:
            expected = f"{self.up.in_features}: they are another encoder's"
            raise ValueError(f"cond: got a text with tokens of width {values.shape[2]}, expected {expected}")
        exists = exists if present is None else exists & present[:, None]
        known = exists.any(dim=1, keepdim=True)
        tokens = self.up(values.type_as(self.up.weight).masked_fill(~exists[..., None], 0))
        if self.down is not None:
            tokens = self.down(F.gelu(tokens, approximate="tanh"))
        if self.unknown is not None:
            tokens = torch.where(known[..., None], tokens, self.unknown.type_as(tokens))
        first = torch.arange(exists.shape[1], device=exists.device) == 0
        return tokens, exists | (first & ~known)

    @torch.no_grad()
    def standardise(self, mean: Float[Tensor, " d"], std: Float[Tensor, " d"]) -> None:
        """Answer from now on as for tokens each of whose channels had `mean` taken away and was divided by `std`."""
        self.up.weight.div_(std)
        self.up.bias.sub_(self.up.weight @ mean)

    def null(self, batch: int) -> tuple[Float[Tensor, "b 1 width"], Bool[Tensor, "b 1"]]:
        """The learned null for every sample."""
        assert self.unknown is not None
        return self.unknown.expand(batch, 1, -1), self.unknown.new_ones((batch, 1), dtype=torch.bool)


def check_dropout(dropout: float) -> None:
    """Refuse a share of samples whose condition training makes null that leaves none with it."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: got {dropout}, expected at least 0 and below 1")
