"""The seam: a codec's config, and the module it builds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from anydit.config import config
from anydit.tensors import MASK

CPU = torch.device("cpu")

Typical = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of data on their own scale, of each channel or of all alike."""

PLACES_AT_ONCE = 2**19
"""Places of data (pixels, voxels, frames times pixels) that go through a codec in one call, to bound its memory."""


class Codec(nn.Module, ABC):
    """Data to latents and back. Frozen while a DiT trains; its weights are saved beside the DiT's."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c_z *space_z"]:
        """Data on its own scale to what the network sees, about mean 0 and deviation 1."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "b c_z *space_z"]) -> Float[Tensor, "b c *space"]:
        """The inverse, on the data's own scale."""

    def log_volume(self, shape: tuple[int, ...]) -> float:
        """The log of |dz / dx|, by which encoding changes volumes, for samples of a shape `(c, *space)`.

        Raises:
            ValueError: encoding is not one to one, or does not change all volumes alike.
        """
        raise ValueError(f"codec: got {type(self).__name__}, which tells no density; expected one such as Normalize")

    def typical(self, shape: tuple[int, ...]) -> Typical | None:
        """Mean and deviation of the data that the codec is for, as samples `(c, *space)`; None: it does not tell."""
        return None

    def frozen(self) -> "Codec":
        """The codec itself, its weights without gradients from now on."""
        return self.eval().requires_grad_(False)


@dataclass(frozen=True)
class Survey:
    """The data, as a codec looks at them to fill in what its config leaves to them.

    `batches(n)` reads at most `n` samples, evenly spread, or all of them (None), and nothing before it is asked for.
    A value is NaN where a sample does not exist. `bounds`: the least and the largest value, where they are known, as
    black and white of images are. `device`: where a network is to run. `per_second`: how many places along the last
    axis make a second, where it is time.
    """

    batches: Callable[[int | None], Iterable[Float[Tensor, "b c *space"]]]
    bounds: tuple[float, float] | None = None
    device: torch.device = CPU
    per_second: float | None = None


@config
class CodecConfig(ABC):
    """What a codec is; what it has to learn from the data is None until `measured` fills it in.

    `has_weights`: whether its module has weights, which are saved beside the network's.
    """

    has_weights: ClassVar[bool] = False

    @abstractmethod
    def build(self) -> Codec:
        """The module; its weights, if it has any, are random. Raises ValueError where something is not measured yet."""

    def restored(self) -> Codec:
        """The module with its weights, from where the config says that they are.

        Raises:
            ValueError: it does not say, or they are not there, or they are others than when the config was measured.
        """
        return self.build()

    @abstractmethod
    def latent_channels(self, channels: int) -> int:
        """Channels of the latents of data with `channels` channels.

        Raises:
            ValueError: the codec is for another number of channels.
        """

    def data_channels(self, channels: int) -> int:
        """Channels of the data behind latents of `channels` channels; as many, unless the codec says otherwise."""
        return channels

    @abstractmethod
    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the latents of data of shape `size`.

        Raises:
            ValueError: the codec has no latents for such data.
        """

    @abstractmethod
    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the data behind latents of a shape: the inverse of `latent_size`."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to the data."""
        return True

    def measured(self, survey: Survey) -> "CodecConfig":
        """The config with all that it leaves to the data measured on them; they are read only if need be.

        Raises:
            ValueError: the codec does not fit the data.
        """
        return self


def in_parts(
    code: Callable[[Tensor], Tensor], x: Float[Tensor, "b c *space"], size: tuple[int, ...] | None = None
) -> Float[Tensor, "b c_out *space_out"]:
    """`code(x)`, so many samples at a time that they have `PLACES_AT_ONCE`. `size`: of the data, if `x` is latents."""
    places = prod(tuple(x.shape[2:]) if size is None else size)
    parts = [code(part) for part in x.split(max(1, PLACES_AT_ONCE // places))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class Grouped:
    """A codec for `count` samples, one after the other in their channels, each encoded by itself."""

    codec: Codec
    count: int

    def encode(self, x: Float[Tensor, "b kc *space"]) -> Float[Tensor, "b kz *space_z"]:
        """All of them, their latents one after the other in their channels."""
        return self.codec.encode(apart(x, self.count)).unflatten(0, (len(x), self.count)).flatten(1, 2)


def apart(x: Float[Tensor, "b kc *space"], count: int) -> Float[Tensor, "bk c *space"]:
    """Samples that lie one after the other in their channels, as samples of a batch."""
    return x.unflatten(1, (count, -1)).flatten(0, 1)


MAX_POOL = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
"""By the number of axes."""


def coarser(flags: Bool[Tensor, "b *size"], space: tuple[int, ...]) -> Bool[Tensor, "b *space"]:
    """Which latents have any place of data behind them that is flagged.

    Raises:
        ValueError: latents have other axes than the data, or there are more than three.
    """
    size = tuple(flags.shape[1:])
    if size == space:
        return flags
    if len(size) != len(space) or len(size) not in MAX_POOL:
        raise ValueError(f"{MASK}: got data of size {size} with latents of {space}, expected as many axes, 1 to 3")
    return MAX_POOL[len(size)](flags[:, None].float(), space)[:, 0] > 0


def divided(size: tuple[int, ...], factors: tuple[int, ...], who: str) -> tuple[int, ...]:
    """`size` with each axis divided by its factor.

    Raises:
        ValueError: another number of axes, or one that its factor does not divide.
    """
    if len(size) != len(factors):
        raise ValueError(f"codec: got data with {len(size)} axes, expected {len(factors)}, as {who} has")
    if any(s % f for s, f in zip(size, factors, strict=True)):
        raise ValueError(f"codec: got data of size {size}, expected multiples of {factors}, by which {who} shrinks it")
    return tuple(s // f for s, f in zip(size, factors, strict=True))
