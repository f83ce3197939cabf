"""Autoencoders of diffusers as codecs: by class, what its options mean, and how its answers are read."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from jaxtyping import Float
from torch import Tensor

from anydit.codecs.base import Codec, CodecConfig, Survey, divided
from anydit.config import Json, config

RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Parts of an attention as older files call them."""


@dataclass(frozen=True)
class Kind:
    """One of diffusers' classes. `unit`: the values that its data have; `mode`: its latents without noise, by answer.

    `channels`, `latent`: the options that hold the channels of data and of latents. `factors`: by which each axis
    shrinks. `first_alone`: the first frame of a video stands for itself, and the factor counts from the second on.
    `fixed`: the one size of images that it takes (None: any).
    """

    channels: str
    latent: str
    factors: Callable[[Json], Sequence[int]]
    mode: Callable[[Any], Tensor]
    unit: tuple[float, float] = (-1.0, 1.0)
    first_alone: bool = False
    fixed: Callable[[Json], int | None] = lambda options: None


def _halved(key: str) -> Callable[[Json], Sequence[int]]:
    """Images halved between the levels that the option `key` lists."""
    return lambda options: (2 ** (len(options[key]) - 1),) * 2


def _wan(options: Json) -> Sequence[int]:
    time = 2 ** sum(options["temperal_downsample"])
    space = 2 ** len(options["temperal_downsample"]) * (options.get("patch_size") or 1)
    return time, space, space


def _oobleck(options: Json) -> Sequence[int]:
    product = 1
    for ratio in options["downsampling_ratios"]:
        product *= ratio
    return (product,)


def _gaussian(answer: Any) -> Tensor:
    return answer.latent_dist.mode()


KINDS: dict[str, Kind] = {
    "AutoencoderKL": Kind("in_channels", "latent_channels", _halved("block_out_channels"), _gaussian),
    "AutoencoderDC": Kind(
        "in_channels", "latent_channels", _halved("encoder_block_out_channels"), lambda answer: answer.latent
    ),
    "AutoencoderTiny": Kind(
        "in_channels", "latent_channels", _halved("encoder_block_out_channels"), lambda answer: answer.latents
    ),
    "AutoencoderRAE": Kind(
        "num_channels",
        "encoder_hidden_size",
        lambda options: (options["patch_size"],) * 2,
        lambda answer: answer.latent,
        unit=(0.0, 1.0),
        fixed=lambda options: options["patch_size"] * (options["encoder_input_size"] // options["encoder_patch_size"]),
    ),
    "AutoencoderKLWan": Kind("in_channels", "z_dim", _wan, _gaussian, first_alone=True),
    "AutoencoderOobleck": Kind("audio_channels", "decoder_input_channels", _oobleck, _gaussian),
}
"""The classes that are codecs here, by name."""


@config
class Published(CodecConfig):
    """An autoencoder of diffusers. Its own scale for latents is left aside: `Latents` measures one on the data.

    `options`: its config.json. `low`, `high`: the data's values that are black and white, or silence's extremes; None
    takes the bounds of the recipe's view.
    """

    has_weights: ClassVar[bool] = True

    options: dict[str, Any]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        name = self.options.get("_class_name")
        if name not in KINDS:
            raise ValueError(f"codec: got diffusers' class {name!r}, expected one of {', '.join(KINDS)}")
        if (self.low is None) != (self.high is None):
            raise ValueError("codec.low, codec.high: got only one of them, expected both or neither")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"codec.low, codec.high: got {self.low}, {self.high}, expected low < high")
        try:
            self.kind.fixed(self.options)
            numbers = [*self.factors, self.options[self.kind.channels], self.options[self.kind.latent]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"codec: got {name} without {error}, expected diffusers' config.json of it") from None
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(f"codec: got {name} with factors and channels {numbers}, expected whole numbers above 0")

    @property
    def name(self) -> str:
        """What diffusers calls the class."""
        return self.options["_class_name"]

    @property
    def kind(self) -> Kind:
        """What is to know of the class."""
        return KINDS[self.name]

    @property
    def factors(self) -> tuple[int, ...]:
        """By which each axis shrinks."""
        return tuple(self.kind.factors(self.options))

    @property
    def complete(self) -> bool:
        return self.low is not None

    def measured(self, survey: Survey) -> "Published":
        if self.complete:
            return self
        if survey.bounds is None:
            raise ValueError(
                f"codec: {self.name} takes values between bounds, and the recipe's view has none; set view.low and "
                "view.high to the data's least and largest value"
            )
        return replace(self, low=survey.bounds[0], high=survey.bounds[1])

    def build(self) -> "PublishedCodec":
        return PublishedCodec(self)

    def restored(self) -> Codec:
        raise ValueError("codec: got Published, which has no weights of its own; expected Latents, with codec.path")

    def latent_channels(self, channels: int) -> int:
        expected = self.options[self.kind.channels]
        if channels != expected:
            raise ValueError(f"codec: got data of {channels} channels, expected {expected}, as {self.name} has")
        return self.options[self.kind.latent]

    def data_channels(self, channels: int) -> int:
        return self.options[self.kind.channels]

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        fixed = self.kind.fixed(self.options)
        if fixed is not None and size != (fixed,) * 2:
            raise ValueError(f"codec: got data of size {size}, expected {(fixed,) * 2}, as {self.name} has")
        if not self.kind.first_alone or len(size) != len(self.factors):
            return divided(size, self.factors, self.name)
        if (size[0] - 1) % self.factors[0]:
            raise ValueError(
                f"codec: got data of {size[0]} frames, expected one more than a multiple of {self.factors[0]}, as "
                f"{self.name} has"
            )
        rest = divided(size[1:], self.factors[1:], self.name)
        return ((size[0] - 1) // self.factors[0] + 1, *rest)

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        size = [s * f for s, f in zip(latent_size, self.factors, strict=True)]
        return (size[0] - self.factors[0] + 1, *size[1:]) if self.kind.first_alone else tuple(size)


class PublishedCodec(Codec):
    """The module of `Published`: diffusers' own."""

    def __init__(self, about: Published) -> None:
        super().__init__()
        self.kind, (low, high) = about.kind, about.kind.unit
        if about.low is None or about.high is None:
            raise ValueError(
                "codec.low, codec.high: got None, expected numbers: resolve the recipe with its data first"
            )
        self.scale = (about.high - about.low) / (high - low)
        self.shift = about.low - low * self.scale
        self.network: Any = _class(about.name).from_config(about.options)

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c_z *space_z"]:
        return self.kind.mode(self.network.encode((x - self.shift) / self.scale))

    def decode(self, z: Float[Tensor, "b c_z *space_z"]) -> Float[Tensor, "b c *space"]:
        return self.network.decode(z).sample * self.scale + self.shift


def loadable(about: Published, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file of diffusers, under the names that the codec has for them."""
    ignored = cast("list[str]", getattr(_class(about.name), "_keys_to_ignore_on_load_unexpected", None) or [])
    out = dict[str, Tensor]()
    for key, tensor in tensors.items():
        if not any(re.search(pattern, key) for pattern in ignored):
            old = re.match(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)$", key)
            out["network." + (key if old is None else old[1] + RENAMED[old[2]] + old[3])] = tensor
    return out


def _class(name: str) -> Any:
    """The class of diffusers called `name`, which is one of `KINDS`."""
    try:
        import diffusers
    except ImportError:
        raise ValueError(f"codec: {name} needs diffusers, which is missing; pip install 'anydit[diffusers]'") from None
    return getattr(diffusers, name)
