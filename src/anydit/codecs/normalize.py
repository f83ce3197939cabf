"""The pixel-space codec: a shift and a scale for each channel."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite, log, prod, sqrt
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.codecs.base import Codec, CodecConfig, Survey, Typical
from anydit.config import check_at_least, check_positive, config
from anydit.tensors import Constants


@config
class Normalize(CodecConfig):
    """z = (x - shift) / scale. One number per channel, or one for all; None measures mean and deviation per channel.

    Data in [low, high] comes to [-1, 1] by `Normalize.to_unit(low, high)`.
    """

    shift: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.shift is None) != (self.scale is None):
            raise ValueError("shift, scale: got only one of them, expected both or neither")
        if self.shift is not None and not all(map(isfinite, self.shift)):
            raise ValueError(f"shift: got {self.shift}, expected finite numbers")
        if self.scale is not None and not all(0 < s < inf for s in self.scale):
            raise ValueError(f"scale: got {self.scale}, expected finite numbers above 0")

    @classmethod
    def to_unit(cls, low: float, high: float) -> "Normalize":
        """What takes [low, high] to [-1, 1]."""
        return cls(shift=((low + high) / 2,), scale=((high - low) / 2,))

    def build(self) -> Codec:
        if self.shift is None or self.scale is None:
            raise ValueError(
                "codec.shift, codec.scale: got None, expected numbers: resolve the config with its data first"
            )
        return Normalizer(self.shift, self.scale)

    def latent_channels(self, channels: int) -> int:
        return channels

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return size

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        return latent_size

    @property
    def complete(self) -> bool:
        return self.shift is not None

    def measured(self, survey: Survey) -> "Normalize":
        """Mean and standard deviation of each channel."""
        return Normalize(*moments(survey.batches(None))) if self.shift is None else self


@config
class Isotropic(CodecConfig):
    """z = x / scale, alike in all channels, so that what lies in space keeps its shape. There is no shift.

    `scale`: None measures it, the root mean square of the first `axes` channels, which are places in space.
    """

    axes: int = 3
    scale: float | None = None

    def __post_init__(self) -> None:
        check_at_least("axes", self.axes, 1)
        if self.scale is not None:
            check_positive("scale", self.scale)

    def build(self) -> Codec:
        if self.scale is None:
            raise ValueError("codec.scale: got None, expected a number: resolve the config with its data first")
        return Normalizer((0.0,), (self.scale,))

    def latent_channels(self, channels: int) -> int:
        return channels

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return size

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        return latent_size

    @property
    def complete(self) -> bool:
        return self.scale is not None

    def measured(self, survey: Survey) -> "Isotropic":
        if self.scale is not None:
            return self
        count, square = 0, 0.0
        for x in survey.batches(None):
            places = x[:, : self.axes].double()
            count, square = count + int((~places.isnan()).sum()), square + float(places.square().nansum())
        if not count:
            raise ValueError("data: got no samples to measure, expected at least one")
        return Isotropic(self.axes, sqrt(square / count) or 1.0)


def moments(batches: Iterable[Float[Tensor, "b c *space"]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over all samples and the places that exist, in doubles.

    A channel that never varies has a deviation of 1 here: it carries nothing, and dividing by 1 keeps it where it is.

    Raises:
        ValueError: there are no samples.
    """
    count, total, square, origin = 0, torch.zeros(()), torch.zeros(()), None
    for x in batches:
        values = x.double().transpose(0, 1).flatten(1)
        values = values[:, ~values.isnan().all(0)]
        # Squares are taken about the first batch's mean: far from zero, their differences would lose all digits.
        origin = values.mean(1, keepdim=True) if origin is None else origin
        count += values.shape[1]
        total, square = total + (values - origin).sum(1), square + ((values - origin) ** 2).sum(1)
    if origin is None:
        raise ValueError("data: got no samples to measure, expected at least one")
    mean = origin[:, 0] + total / count
    std = (square / count - (total / count) ** 2).clamp(min=0).sqrt()
    std = torch.where(std > 1e-9 * mean.abs(), std, torch.ones_like(std))
    return tuple(_floats(mean)), tuple(_floats(std))


class Normalizer(Codec):
    """The module of `Normalize`."""

    def __init__(self, shift: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.shift, self.scale = tuple(shift), tuple(scale)
        self.constants = Constants()

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return (x - self._per_channel(self.shift, x)) / self._per_channel(self.scale, x)

    def decode(self, z: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return z * self._per_channel(self.scale, z) + self._per_channel(self.shift, z)

    def log_volume(self, shape: tuple[int, ...]) -> float:
        channels, places = shape[0], prod(shape[1:])
        return -sum(log(scale) for scale in self._of_each(self.scale, channels)) * places

    def typical(self, shape: tuple[int, ...]) -> Typical:
        return self.shift, self.scale

    def _per_channel(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        channels, dtype = like.shape[1], like.dtype
        made = self.constants.get(
            (values, channels, dtype), like.device, lambda: torch.tensor(self._of_each(values, channels), dtype=dtype)
        )
        return made.reshape(-1, *(1,) * (like.ndim - 2))

    def _of_each(self, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
        if len(values) not in (1, channels):
            raise ValueError(f"codec: got samples of {channels} channels, expected {len(values)}")
        return values * channels if len(values) == 1 else values


def _floats(values: Tensor) -> list[float]:
    return cast("list[float]", values.tolist())
