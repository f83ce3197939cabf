"""Features of networks that others trained on photographs, read from files that are at hand; nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from anydit.codecs.perceptual import IMAGENET_MEAN, IMAGENET_STD, efficientnet_pixels, imagenet_network
from anydit.data import Videos, View
from anydit.evaluate.features import Features, OverFrames
from anydit.weights import load_tensors

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)

HOW = "made of it by: anydit convert safetensors FILE.pth --to FILE.safetensors"

KINDS = "classifier, imagenet, dinov2:FOLDER, inception:FILE"


def named(spec: str, view: View, device: torch.device) -> Features | None:
    """The features called `spec`, for samples that `view` shows; None is the classifier that `evaluate` trains.

    Networks that see images see each frame of a video.

    Raises:
        ValueError: there are none of that name, their weights are not there, or they see images only.
    """
    kind, _, path = spec.partition(":")
    if spec == "classifier":
        return None
    makers: dict[str, Callable[[], Features]] = {
        "imagenet": lambda: ImageNet(view, device),
        "dinov2": lambda: DINOv2(Path(path).expanduser(), view, device),
        "inception": lambda: Inception(Path(path).expanduser(), view, device),
    }
    if kind not in makers or (kind == "imagenet") == bool(path):
        raise ValueError(f"features: got {spec!r}, expected one of {KINDS}")
    features = makers[kind]()
    return OverFrames(features) if isinstance(view, Videos) else features


class ImageNet:
    """The 1,280 pooled features of EfficientNet-Lite0, trained on ImageNet with 224 pixels a side.

    Small images are shown at 96, five times faster.
    """

    name = "1280 features of EfficientNet-Lite0, trained on ImageNet"
    SIZE, SMALL = 224, 96

    def __init__(self, view: View, device: torch.device) -> None:
        self.network, self.view, self.device = imagenet_network(device), view, device

    def __call__(self, x: Float[Tensor, "b c *space"], /) -> Float[Tensor, "b d"]:
        with torch.inference_mode():
            rgb = _resized(unit_rgb(x, self.view), self.SMALL if max(x.shape[2:]) <= self.SMALL else self.SIZE)
            pixels = efficientnet_pixels(rgb.to(self.device))
            parts = [self.network.extract_features(part).mean((2, 3)) for part in pixels.split(32)]
            return torch.cat(parts).float().cpu()


class DINOv2:
    """The class token of a DINOv2 (Oquab 2023) in a folder as transformers has it, at 224 pixels a side.

    Fréchet distances in it agree better with people than Inception's (Stein 2023, arXiv 2306.04675).
    """

    SIZE = 224

    def __init__(self, path: Path, view: View, device: torch.device) -> None:
        if not (path / "config.json").is_file():
            raise ValueError(
                f"features: got dinov2:{path}, which has no config.json; expected a folder with the files of "
                "https://huggingface.co/facebook/dinov2-base (config.json, model.safetensors)"
            )
        try:
            from transformers import AutoModel
        except ImportError:
            raise ValueError(
                "features: got dinov2, which needs transformers; pip install 'anydit[diffusers]'"
            ) from None
        network: Any = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
        self.network, self.view, self.device = network.to(device).eval(), view, device
        self.name = f"{network.config.hidden_size} features of {path.name} ({network.config.model_type})"

    def __call__(self, x: Float[Tensor, "b c *space"], /) -> Float[Tensor, "b d"]:
        with torch.inference_mode():
            rgb = _standardised(_resized(unit_rgb(x, self.view), self.SIZE)).to(self.device)
            parts = [self.network(pixel_values=part).last_hidden_state[:, 0] for part in rgb.split(32)]
            return torch.cat(parts).float().cpu()


class Inception:
    """The 2,048 features of published FID figures: Inception-v3 of 2015 as torch-fidelity has it, on 8-bit images."""

    name = "2048 features of Inception-v3 (the published FID's)"

    def __init__(self, path: Path, view: View, device: torch.device) -> None:
        if not path.is_file():
            raise ValueError(f"features: got inception:{path}, which is not a file; expected {INCEPTION_URL}, {HOW}")
        if path.suffix != ".safetensors":
            raise ValueError(f"features: got inception:{path}, expected a file named .safetensors, {HOW}")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ValueError(
                "features: got inception, which needs torch-fidelity; pip install 'anydit[evaluate]'"
            ) from None
        state = load_tensors(path)
        with TemporaryDirectory() as folder:
            # torch-fidelity reads pickles only, and would run what is in them; it gets one that holds our tensors.
            safe = Path(folder) / "weights.pth"
            torch.save(state, safe)
            try:
                network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(safe))
            except RuntimeError as error:
                told = str(error).splitlines()[1].strip()
                raise ValueError(f"features: {path} is not in the format of {INCEPTION_URL}: {told}") from None
        self.network, self.view, self.device = network.to(device).eval(), view, device

    def __call__(self, x: Float[Tensor, "b c *space"], /) -> Float[Tensor, "b d"]:
        with torch.inference_mode():
            pixels = (unit_rgb(x, self.view) * 255).round().to(torch.uint8)
            return torch.cat([self.network(part.to(self.device))[0].float().cpu() for part in pixels.split(32)])


def unit_rgb(x: Float[Tensor, "b c *space"], view: View) -> Float[Tensor, "b 3 h w"]:
    """Images from 0 to 1 in three channels.

    Raises:
        ValueError: they are no images in grey or in colours, or it is not known which values are black and white.
    """
    if view.bounds is None or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"features: got samples of shape {tuple(x.shape[1:])} shown by {view}, expected images of 1 or 3 channels "
            "shown from low to high; use --features classifier"
        )
    low, high = view.bounds
    return ((x.float() - low) / (high - low)).clamp(0, 1).expand(-1, 3, -1, -1)


def _resized(x: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 s s"]:
    return F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _standardised(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    mean, std = (x.new_tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std
