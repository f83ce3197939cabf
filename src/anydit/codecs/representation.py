"""Latents that are a frozen vision encoder's features, with a decoder that a recipe trains.

Representation autoencoders (Zheng 2025, arXiv 2510.11690): the encoder is one of transformers', from a folder, and the
decoder a plain vision transformer.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from anydit.codecs.autoencoder import Autoencoder, AutoencoderConfig, Draw, Drawn
from anydit.codecs.base import Survey, divided
from anydit.codecs.normalize import Normalize
from anydit.codecs.perceptual import IMAGENET_MEAN, IMAGENET_STD
from anydit.config import Json, check_at_least, check_positive, config
from anydit.tensors import Constants

ENCODERS = ("dinov2", "dinov2_with_registers", "siglip_vision_model", "vit")
"""Encoders of transformers whose last features are one for each patch, after those of no patch."""


@config
class RAE(AutoencoderConfig):
    """A representation autoencoder of images in grey or colours.

    `path`: the encoder's folder, as transformers saves it. `patch`: pixels of an image for each latent; the encoder is
    shown the image at the size at which that is one of its patches. `width`, `depth`, `heads`: of the decoder. `noise`:
    up to which deviation latents are noised to train it. `encoder`, `mean`, `std`, `channels`, `low`, `high`: what the
    encoder is and sees, the data's channels and bounds; None is what they are found to be.
    """

    path: Path | None = None
    patch: int = 16
    width: int = 512
    depth: int = 8
    heads: int = 8
    noise: float = 0.8
    encoder: dict[str, Any] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: int | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("patch", "width", "depth", "heads"):
            check_at_least(f"codec.{name}", getattr(self, name), 1)
        check_at_least("codec.noise", self.noise, 0)
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"codec.width: got {self.width}, expected a multiple of 4 and of codec.heads {self.heads}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"codec: got data of {self.channels} channels, expected 1 or 3, as RAE has")
        kind = (self.encoder or {"model_type": ENCODERS[0]}).get("model_type")
        if kind not in ENCODERS:
            raise ValueError(f"codec.path: got an encoder of the kind {kind!r}, expected one of {', '.join(ENCODERS)}")
        for value in self.std or ():
            check_positive("codec.std", value)

    @property
    def complete(self) -> bool:
        return None not in (self.encoder, self.mean, self.std, self.channels, self.low, self.high)

    def measured(self, survey: Survey) -> "RAE":
        if self.complete:
            return self
        if survey.bounds is None:
            raise ValueError("codec: RAE takes images between black and white; set view.low and view.high to these")
        about, seen = _json(self._folder / "config.json"), self._folder / "preprocessor_config.json"
        shown: Json = _json(seen) if seen.is_file() else {}
        x = next(iter(survey.batches(1)))
        found = replace(
            self,
            encoder=about,
            mean=self.mean or tuple(shown.get("image_mean", IMAGENET_MEAN)),
            std=self.std or tuple(shown.get("image_std", IMAGENET_STD)),
            channels=self.channels or x.shape[1],
            low=survey.bounds[0],
            high=survey.bounds[1],
        )
        found.latent_channels(x.shape[1])
        found.latent_size(tuple(x.shape[2:]))
        return found

    def build(self) -> "RAECodec":
        return RAECodec(self, _transformers().AutoModel.from_config(self._encoder_config()))

    def untrained(self) -> "RAECodec":
        folder = self._folder
        if not (folder / "model.safetensors").is_file():
            raise ValueError(f"codec.path: got {folder}, which has no model.safetensors; expected an encoder's folder")
        encoder = _transformers().AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        return RAECodec(self, encoder)

    def latent_channels(self, channels: int) -> int:
        if channels != self.channels:
            raise ValueError(
                f"codec: got data of {channels} channels, expected {self.channels or '1 or 3'}, as RAE has"
            )
        return cast("Json", self.encoder)["hidden_size"]

    def data_channels(self, channels: int) -> int:
        return self.channels or channels

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return divided(size, (self.patch, self.patch), "RAE")

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(s * self.patch for s in latent_size)

    @property
    def _folder(self) -> Path:
        if self.path is None:
            raise ValueError("codec.path: got none, expected the folder of a vision encoder, as transformers saves it")
        return self.path.expanduser()

    def _encoder_config(self) -> Any:
        options = dict(self.encoder or {})
        if not self.complete:
            raise ValueError("codec.encoder: got None, expected an encoder's config: resolve the recipe with its data")
        return _transformers().AutoConfig.for_model(options.pop("model_type"), **options)


class RAECodec(Autoencoder):
    """The module of `RAE`. The encoder has no gradients, whatever is trained."""

    def __init__(self, about: RAE, encoder: Any) -> None:
        assert about.low is not None and about.high is not None and about.channels is not None
        super().__init__(Normalize((about.low,), (about.high - about.low,)).build())
        self.about, self.encoder = about, encoder.eval().requires_grad_(False)
        self.decoder = Decoder(encoder.config.hidden_size, about)
        self.constants = Constants()

    def train(self, mode: bool = True) -> "RAECodec":
        super().train(mode)
        self.encoder.eval()
        return self

    def latents(self, y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_z h_z w_z"]:
        grid = self.about.latent_size(tuple(y.shape[2:]))
        size = [g * self.encoder.config.patch_size for g in grid]
        # Never antialiased: encoders are shown images that are about as large.
        rgb = F.interpolate(y, size, mode="bicubic", align_corners=False).expand(-1, 3, -1, -1)
        mean, std = (
            self.constants.get((v, y.dtype), y.device, lambda v=v: torch.tensor(v, dtype=y.dtype).reshape(3, 1, 1))
            for v in (self.about.mean, self.about.std)
        )
        # Encoders of the family DINOv2 fit their positions to any size unasked.
        ask = {} if self.encoder.config.model_type.startswith("dinov2") else {"interpolate_pos_encoding": True}
        with torch.no_grad():
            tokens = self.encoder(pixel_values=(rgb - mean) / std, **ask).last_hidden_state
        return rearrange(tokens[:, -grid[0] * grid[1] :], "b (h w) c -> b c h w", h=grid[0])

    def drawn(self, y: Float[Tensor, "b c h w"], draw: Draw) -> Drawn:
        z = self.latents(y)
        # Each sample has a noise level of its own, so that the decoder knows latents without noise, too (section 3.3).
        level = self.about.noise * draw("level", (1, 1, 1)).abs()
        return Drawn(z + level * draw("posterior", tuple(z.shape[1:])), None)

    def reconstruction(self, z: Float[Tensor, "b c_z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        return self.decoder(z)


class Decoder(nn.Module):
    """Features to patches of pixels: a vision transformer with fixed positions, for any grid."""

    def __init__(self, features: int, about: RAE) -> None:
        super().__init__()
        self.patch, self.width = about.patch, about.width
        self.input = nn.Linear(features, about.width)
        layer = nn.TransformerEncoderLayer(
            about.width, about.heads, 4 * about.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, about.depth, nn.LayerNorm(about.width), enable_nested_tensor=False)
        self.output = nn.Linear(about.width, about.patch**2 * (about.channels or 0))

    def forward(self, z: Float[Tensor, "b c_z h w"]) -> Float[Tensor, "b c hp wp"]:
        h, w = z.shape[2:]
        tokens = self.input(rearrange(z, "b c h w -> b (h w) c")) + _positions(h, w, self.width, z.device)
        pixels = self.output(self.blocks(tokens))
        return rearrange(pixels, "b (h w) (c p q) -> b c (h p) (w q)", h=h, p=self.patch, q=self.patch)


def _positions(h: int, w: int, width: int, device: torch.device) -> Float[Tensor, "hw d"]:
    """Sines and cosines of each place's row and column (Vaswani 2017; a half of the width for each axis)."""
    rates = 10_000.0 ** -(torch.arange(width // 4, device=device) / (width // 4))
    places = torch.cartesian_prod(torch.arange(h, device=device), torch.arange(w, device=device)).reshape(-1, 2)
    angles = (places[:, :, None] * rates).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _json(file: Path) -> Json:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"codec.path: got {file.parent}, which has no {file.name}; expected the folder of a vision encoder, as "
            "transformers saves it"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"codec.path: {file} cannot be read as JSON: {error}") from None
    return cast("Json", content)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ValueError("codec: RAE needs transformers, which is missing; pip install 'anydit[diffusers]'") from None
    return transformers
