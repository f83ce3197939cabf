"""Autoencoders that recipes train: the seam, and one of convolutions with latents near a Gaussian, on 1 to 3 axes."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor

from anydit.codecs.base import Codec, CodecConfig, Survey, Typical, divided
from anydit.codecs.normalize import Normalize
from anydit.config import check_at_least, config

Draw = Callable[[str, tuple[int, ...]], Tensor]
"""Standard normal numbers `[b *shape]`, by the name of their stream and their shape."""


class Drawn(NamedTuple):
    """Latents to train the decoder on, and what is to be paid for those of each sample, where they are learned."""

    z: Float[Tensor, "b c_z *space_z"]
    penalty: Float[Tensor, " b"] | None


class Autoencoder(Codec):
    """A codec that is trained: it brings data to units of its own, in which its loss is taken."""

    def __init__(self, units: Codec) -> None:
        super().__init__()
        self.units = units

    @abstractmethod
    def latents(self, y: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c_z *space_z"]:
        """The latents of data in units, without noise."""

    @abstractmethod
    def drawn(self, y: Float[Tensor, "b c *space"], draw: Draw) -> Drawn:
        """Latents to train the decoder on."""

    @abstractmethod
    def reconstruction(self, z: Float[Tensor, "b c_z *space_z"]) -> Float[Tensor, "b c *space"]:
        """Data in units, from latents."""

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c_z *space_z"]:
        return self.latents(self.units.encode(x))

    def decode(self, z: Float[Tensor, "b c_z *space_z"]) -> Float[Tensor, "b c *space"]:
        return self.units.decode(self.reconstruction(z))

    def typical(self, shape: tuple[int, ...]) -> Typical | None:
        return self.units.typical(shape)


@config
class AutoencoderConfig(CodecConfig):
    """An autoencoder that a recipe can train."""

    has_weights: ClassVar[bool] = True

    @abstractmethod
    def build(self) -> Autoencoder:
        """The module, with random weights. Raises ValueError where something is not measured yet."""

    def untrained(self) -> Autoencoder:
        """The module as training finds it: what is frozen in it has its weights.

        Raises:
            ValueError: those are not where the config says.
        """
        return self.build()

    def restored(self) -> Codec:
        raise ValueError(
            f"codec: got {type(self).__name__}, which has no trained weights; expected Latents, with codec.path the "
            "folder in which one was trained"
        )


@config
class KLAutoencoder(AutoencoderConfig):
    """Convolutions to latents that are kept near a Gaussian (Kingma & Welling 2013, Rombach et al. 2022), by MONAI.

    `widths`: channels of each level; every level but the first halves each axis. `latent`: channels of the latents.
    `kl`: what a nat of divergence from the Gaussian costs, in the mean over latents, where the error is a mean over
    values. `blocks`: residual blocks of a level. `groups`: of group norms. `attention`: among all places of the last
    level.
    `units`: the scale on which it works; None brings the data's bounds to -1 and 1, or else measures it.
    `channels`, `axes`: of the data; None is what they have.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    latent: int = 4
    kl: float = 1e-3
    blocks: int = 2
    groups: int = 16
    attention: bool = True
    units: Normalize = Normalize()
    channels: int | None = None
    axes: int | None = None

    def __post_init__(self) -> None:
        if not self.widths or any(w < 1 or w % self.groups for w in self.widths):
            raise ValueError(f"codec.widths: got {self.widths}, expected multiples of codec.groups {self.groups}")
        check_at_least("codec.latent", self.latent, 1)
        check_at_least("codec.kl", self.kl, 0)
        check_at_least("codec.blocks", self.blocks, 1)
        if self.axes is not None and self.axes not in (1, 2, 3):
            raise ValueError(f"codec.axes: got {self.axes}, expected 1 to 3")

    @property
    def complete(self) -> bool:
        return self.channels is not None and self.axes is not None and self.units.complete

    def measured(self, survey: Survey) -> "KLAutoencoder":
        if self.complete:
            return self
        x = next(iter(survey.batches(1)))
        sized = replace(self, channels=self.channels or x.shape[1], axes=self.axes or x.ndim - 2)
        sized.latent_channels(x.shape[1])
        sized.latent_size(tuple(x.shape[2:]))
        return replace(sized, units=in_bounds(self.units, survey))

    def build(self) -> "KLCodec":
        if not self.complete:
            raise ValueError("codec: got channels, axes or units that are None; resolve the recipe with its data first")
        return KLCodec(self)

    def latent_channels(self, channels: int) -> int:
        if channels != self.channels:
            raise ValueError(f"codec: got data of {channels} channels, expected {self.channels}, as KLAutoencoder has")
        return self.latent

    def data_channels(self, channels: int) -> int:
        return self.channels or channels

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return divided(size, (self._factor,) * (self.axes or 0), "KLAutoencoder")

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(s * self._factor for s in latent_size)

    @property
    def _factor(self) -> int:
        return 2 ** (len(self.widths) - 1)


class KLCodec(Autoencoder):
    """The module of `KLAutoencoder`; its latents are the means of their Gaussians."""

    def __init__(self, about: KLAutoencoder) -> None:
        super().__init__(about.units.build())
        levels = len(about.widths)
        self.kl = about.kl
        self.network: Any = _monai()(
            spatial_dims=about.axes,
            in_channels=about.channels,
            out_channels=about.channels,
            num_res_blocks=(about.blocks,) * levels,
            channels=about.widths,
            attention_levels=(False,) * levels,
            latent_channels=about.latent,
            norm_num_groups=about.groups,
            with_encoder_nonlocal_attn=about.attention,
            with_decoder_nonlocal_attn=about.attention,
            use_flash_attention=True,
        )

    def latents(self, y: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c_z *space_z"]:
        return self.network.encode(y)[0]

    def drawn(self, y: Float[Tensor, "b c *space"], draw: Draw) -> Drawn:
        mean, std = self.network.encode(y)
        z = mean + std * draw("posterior", tuple(mean.shape[1:]))
        # KL(N(mean, std) || N(0, 1)), Kingma & Welling 2013, appendix B.
        nats = 0.5 * (mean.square() + std.square() - 1) - std.log()
        return Drawn(z, self.kl * nats.flatten(1).mean(1))

    def reconstruction(self, z: Float[Tensor, "b c_z *space_z"]) -> Float[Tensor, "b c *space"]:
        return self.network.decode(z)


def in_bounds(units: Normalize, survey: Survey) -> Normalize:
    """`units`; where they are open, those that bring the data's bounds to -1 and 1, or else measured ones."""
    if units.complete or survey.bounds is None:
        return units.measured(survey)
    return Normalize.to_unit(*survey.bounds)


def _monai() -> Any:
    try:
        from monai.networks.nets.autoencoderkl import AutoencoderKL
    except ImportError:
        raise ValueError(
            "codec: KLAutoencoder needs MONAI, which is missing; pip install 'anydit[autoencoder]'"
        ) from None
    return AutoencoderKL
