"""Latents of an autoencoder that was trained before, brought to the scale on which diffusion works."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.codecs import sources
from anydit.codecs.base import Codec, CodecConfig, Survey, Typical, in_parts
from anydit.codecs.normalize import Normalize, moments
from anydit.config import config
from anydit.weights import checksum, load_strictly

MEASURED = 4096
"""Samples, evenly spread, on whose latents shift and scale are measured."""


@config
class Latents(CodecConfig):
    """Latents of a trained autoencoder, each channel brought to mean 0 and deviation 1 over the data.

    `path`: the folder of its run, of a run in its latents, or of diffusers. `hub`: in place of it, where it is on the
    Hugging Face hub: ORGANISATION/NAME, or ORGANISATION/NAME/FOLDER. `codec`, `shift`, `scale`, `sha256`: what it is,
    its latents' mean and deviation by channel, and the checksum of its weights; None is what they are found to be.
    """

    has_weights: ClassVar[bool] = True

    path: Path | None = None
    hub: str | None = None
    codec: CodecConfig | None = None
    shift: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.path is not None and self.hub is not None:
            raise ValueError(f"codec.path, codec.hub: got {self.path} and {self.hub}, expected one of them")
        if len({self.codec is None, self.shift is None, self.scale is None, self.sha256 is None}) != 1:
            raise ValueError("codec.codec, shift, scale, sha256: got only some of them, expected all or none")

    @property
    def complete(self) -> bool:
        return self.codec is not None

    def measured(self, survey: Survey) -> "Latents":
        if self.complete:
            return self
        about, tensors = self._source()
        codec = about.measured(survey)
        for x in survey.batches(1):
            codec.latent_channels(x.shape[1])
            codec.latent_size(tuple(x.shape[2:]))
        inner = codec.build()
        load_strictly(inner, tensors, self._where)
        inner = inner.to(survey.device).frozen()
        with torch.inference_mode():
            shift, scale = moments(
                in_parts(lambda part: inner.encode(part.to(survey.device)), x) for x in survey.batches(MEASURED)
            )
        return replace(self, codec=codec, shift=shift, scale=scale, sha256=checksum(tensors))

    def build(self) -> "LatentCodec":
        if self.codec is None or self.shift is None or self.scale is None:
            raise ValueError("codec.codec: got None, expected an autoencoder: resolve the recipe with its data first")
        return LatentCodec(self.codec.build(), Normalize(self.shift, self.scale).build())

    def restored(self) -> Codec:
        made = self.build()
        _, tensors = self._source()
        if checksum(tensors) != self.sha256:
            raise ValueError(
                f"codec: {self._where} has weights of sha256 {checksum(tensors)[:12]}, expected "
                f"{(self.sha256 or '')[:12]}, with which latents were measured; put them back"
            )
        load_strictly(made.codec, tensors, self._where)
        return made.frozen()

    def latent_channels(self, channels: int) -> int:
        return self._inner.latent_channels(channels)

    def data_channels(self, channels: int) -> int:
        return self._inner.data_channels(channels)

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return self._inner.latent_size(size)

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        return self._inner.data_size(latent_size)

    @property
    def _inner(self) -> CodecConfig:
        assert self.codec is not None, "asked of complete configs only"
        return self.codec

    @property
    def _where(self) -> str:
        return str(self.path or self.hub)

    def _source(self) -> sources.Source:
        if self.hub is not None:
            return sources.of_hub(self.hub)
        if self.path is None:
            raise ValueError(
                "codec.path: got none, expected the folder of an autoencoder's run or of diffusers; or codec.hub, its "
                "name on the Hugging Face hub"
            )
        source = sources.of_folder(self.path.expanduser())
        if isinstance(source.config, Latents):
            # The latents of a run's codec are those of its autoencoder; their scale is measured on these data anew.
            inner = {k.removeprefix("codec."): v for k, v in source.tensors.items() if k.startswith("codec.")}
            return sources.Source(source.config._inner, inner)
        return source


class LatentCodec(Codec):
    """The module of `Latents`."""

    def __init__(self, codec: Codec, standard: Codec) -> None:
        super().__init__()
        self.codec, self.standard = codec, standard

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c_z *space_z"]:
        return self.standard.encode(self.codec.encode(x))

    def decode(self, z: Float[Tensor, "b c_z *space_z"]) -> Float[Tensor, "b c *space"]:
        return self.codec.decode(self.standard.decode(z))

    def typical(self, shape: tuple[int, ...]) -> Typical | None:
        return self.codec.typical(shape)
