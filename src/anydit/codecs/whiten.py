"""A codec for what has ever less energy at higher frequencies, as flows and sounds: it lifts what is weak, and back."""

from collections.abc import Iterator, Sequence
from math import inf, isfinite
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.codecs.base import Codec, CodecConfig, Survey, Typical
from anydit.config import check_fraction, config
from anydit.tensors import Constants

BINS = 64
"""Bins of frequency, of equal width, in one cycle per point."""

ALL_BINS = 2 * BINS
"""More than the samples of fifteen axes have, along whose diagonal frequencies are the highest."""

ROUNDING = 1e-15
"""Energy, as a part of the mean's, that is none but what doubles are rounded by."""

LEAST = 1e-8
"""Energy, as a part of a channel's largest, below which a frequency counts as empty: it is lifted no further."""


@config
class Whiten(CodecConfig):
    """z = gain (x - shift), with a gain for each channel and frequency, whatever its direction.

    The deviation that a frequency has left is its own to the power 1 - `power`, so that 0 is `Normalize` and 1 makes
    noise of data; then each channel has a deviation of 1. A network's errors, alike at all frequencies, become errors
    in proportion. What is None is measured. Axes are taken as periodic; where they are not it lifts less, no more.
    """

    power: float = 0.5
    shift: tuple[float, ...] | None = None
    gain: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        check_fraction("power", self.power)
        shift, gain = self.shift, self.gain
        if (shift is None) != (gain is None):
            raise ValueError("shift, gain: got only one of them, expected both or neither")
        if shift is not None and not all(map(isfinite, shift)):
            raise ValueError(f"shift: got {shift}, expected finite numbers")
        if gain is not None and (len(gain) != len(shift or ()) or len({len(each) for each in gain}) > 1):
            raise ValueError(
                f"gain: got {len(gain)} channels, expected {len(shift or ())}, of as many frequencies each"
            )
        if gain is not None and not all(0 < g < inf for each in gain for g in each):
            raise ValueError("gain: got a number that is not above 0 and finite")

    def build(self) -> Codec:
        if self.shift is None or self.gain is None:
            raise ValueError(
                "codec.shift, codec.gain: got None, expected numbers: resolve the config with its data first"
            )
        return Whitener(self.shift, self.gain, self.power)

    def latent_channels(self, channels: int) -> int:
        return channels

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return size

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        return latent_size

    @property
    def complete(self) -> bool:
        return self.gain is not None

    def measured(self, survey: Survey) -> "Whiten":
        """The mean of each channel, and its energy at each frequency, over all samples, each as long as it is."""
        if self.gain is not None:
            return self
        values, total, found = 0, torch.zeros(()), torch.zeros(())
        counts = torch.zeros(ALL_BINS, dtype=torch.float64)
        for x in (some for batch in survey.batches(None) for some in _by_size(batch)):
            axes, where = tuple(range(2, x.ndim)), _bins(tuple(x.shape[2:])).flatten()
            power = torch.fft.fftn(x.double(), dim=axes, norm="ortho").abs().square().sum(0).flatten(1)
            found = found + torch.zeros(len(power), ALL_BINS, dtype=power.dtype).index_add_(1, where, power)
            counts += len(x) * torch.bincount(where, minlength=ALL_BINS)
            values, total = values + x[:, 0].numel(), total + x.double().sum((0, *axes))
        if not values:
            raise ValueError("data: got no samples to measure, expected at least one")
        mean = total / values
        found[:, 0] -= values * mean.square()  # the mean is in the frequency 0 alone
        found[found < ROUNDING * values * mean.square()[:, None]] = 0
        gain = _gains(_smooth(found, counts), counts, self.power)
        return Whiten(self.power, tuple(_floats(mean)), tuple(tuple(_floats(g)) for g in gain))


class Whitener(Codec):
    """The module of `Whiten`."""

    def __init__(self, shift: Sequence[float], gain: Sequence[Sequence[float]], power: float) -> None:
        super().__init__()
        self.shift, self.gain, self.power = tuple(shift), tuple(map(tuple, gain)), power
        self.constants = Constants()

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return self._times(x - self._shift(x), 1)

    def decode(self, z: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return self._times(z, -1) + self._shift(z)

    def log_volume(self, shape: tuple[int, ...]) -> float:
        return float(self._gain(tuple(shape[1:])).log().sum())

    def typical(self, shape: tuple[int, ...]) -> Typical:
        log_gain = self._gain(tuple(shape[1:])).flatten(1).log()
        if not self.power:
            return self.shift, tuple(_floats((-log_gain).exp().square().mean(1).sqrt()))
        # Of energies E, `_gains` makes E^(-power / 2) / sqrt(mean E^(1 - power)): this is E, but for a factor.
        log_energy = -2 / self.power * log_gain
        left = ((1 - self.power) * log_energy).logsumexp(1)
        return self.shift, tuple(_floats(((log_energy.logsumexp(1) - left) / 2).exp()))

    def _times(self, x: Float[Tensor, "b c *space"], exponent: int) -> Float[Tensor, "b c *space"]:
        space, axes = tuple(x.shape[2:]), tuple(range(2, x.ndim))
        half = space[-1] // 2 + 1
        gain = self.constants.get(
            (space, exponent), x.device, lambda: (self._gain(space)[..., :half] ** exponent).float()
        )
        return torch.fft.irfftn(torch.fft.rfftn(x.float(), dim=axes) * gain, s=space, dim=axes).type_as(x)

    def _gain(self, space: tuple[int, ...]) -> Float[Tensor, "c *space"]:
        """Of every mode of samples of a shape, measured or not; beyond the last frequency measured it is that one's."""
        gain = torch.tensor(self.gain, dtype=torch.float64)
        return gain[:, _bins(space).clamp(max=gain.shape[1] - 1)]

    def _shift(self, like: Tensor) -> Tensor:
        if like.shape[1] != len(self.shift):
            raise ValueError(f"codec: got samples of {like.shape[1]} channels, expected {len(self.shift)}")
        shift = self.constants.get(like.dtype, like.device, lambda: torch.tensor(self.shift, dtype=like.dtype))
        return shift.reshape(-1, *(1,) * (like.ndim - 2))


def _bins(space: tuple[int, ...]) -> Int[Tensor, "*space"]:
    """The bin of each mode's frequency, in cycles per point, of samples of a shape."""
    square = torch.zeros(())
    for n in space:
        square = square[..., None] + torch.fft.fftfreq(n, dtype=torch.float64) ** 2
    return (square.sqrt() * BINS).round().long()


def _by_size(x: Float[Tensor, "b c *space"]) -> Iterator[Float[Tensor, "n c *size"]]:
    """The samples of a batch by how large each is: its values are NaN from where it ends. ValueError: or before it."""
    there = ~x.isnan().any(1)[..., None]
    along = range(1, there.ndim - 1)
    sizes = torch.stack([there.movedim(axis, 1).flatten(2).any(2).sum(1) for axis in along], 1)
    for size in sizes.unique(dim=0):
        some = x[(sizes == size).all(1)][:, :, *(slice(int(n)) for n in size)]
        if some.isnan().any():
            raise ValueError("codec: got NaN within a sample, expected Normalize, or data without gaps, for Whiten")
        if some.numel():
            yield some


def _smooth(found: Float[Tensor, "c all"], counts: Float[Tensor, " all"]) -> Float[Tensor, "c f"]:
    """The mean energy of the modes in each bin; of a bin without modes, or without energy, that of the one before."""
    bins = int(counts.nonzero().max()) + 1
    energy = found[:, :bins] / counts[:bins].clamp(min=1)
    weak = energy <= LEAST * energy.max(1, keepdim=True).values
    strongest = torch.where(weak, -1, torch.arange(bins)).cummax(1).values
    first = (~weak).long().argmax(1, keepdim=True)  # a channel that never varies has none: all of it is 0
    energy = energy.gather(1, torch.where(strongest < 0, first, strongest))
    return torch.where(energy > 0, energy, torch.ones_like(energy))


def _gains(energy: Float[Tensor, "c f"], counts: Float[Tensor, " all"], power: float) -> Float[Tensor, "c f"]:
    """What takes energies to the power `1 - power`, and each channel to a deviation of 1."""
    share = counts[: energy.shape[1]] / counts.sum()
    left = (energy ** (1 - power) * share).sum(1, keepdim=True)
    return energy ** (-power / 2) / left.sqrt()


def _floats(values: Tensor) -> list[float]:
    return cast("list[float]", values.tolist())
