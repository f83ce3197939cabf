"""The seam: a codec's config, and the module it builds."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import config


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
        raise ValueError(f"codec: got {type(self).__name__}, whose latents tell no density of data; expected Normalize")


@config
class CodecConfig(ABC):
    """What a codec is; what it has to learn from the data is None until `measured` fills it in."""

    @abstractmethod
    def build(self) -> Codec:
        """The module. Raises ValueError where something is not measured yet."""

    @abstractmethod
    def latent_channels(self, channels: int) -> int:
        """Channels of the latents of data with `channels` channels."""

    @abstractmethod
    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the latents of data of shape `size`."""

    @abstractmethod
    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the data behind latents of a shape: the inverse of `latent_size`."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to the data."""
        return True

    def measured(self, batches: Iterable[Float[Tensor, "b c *space"]]) -> "CodecConfig":
        """The config with all that it leaves to the data measured on `batches`, which are read only if need be."""
        return self
