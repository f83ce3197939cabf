"""Small autoencoders in the format of diffusers, with random weights, and data for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from anydit.codecs import Survey


def survey(x: Tensor, bounds: tuple[float, float] | None = None, at_once: int = 7) -> Survey:
    """Data in memory, read in small batches."""

    def batches(at_most: int | None) -> Sequence[Tensor]:
        n = len(x) if at_most is None else min(at_most, len(x))
        return x[torch.arange(n) * len(x) // max(n, 1)].split(at_once) if n else ()

    return Survey(batches, bounds)


class Numbers(TorchFunctionMode):
    """Counts how often numbers of Python's become a tensor: the processor waits where that is for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.tensor, Tensor.new_tensor)
        return func(*args, **(kwargs or {}))


def images(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Smooth random images between two values."""
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1) if len(shape) == 4 else noise
    return low + (high - low) * smooth


def autoencoder(name: str = "AutoencoderTiny", **options: Any) -> Any:
    """One of diffusers' classes, small."""
    import diffusers

    torch.manual_seed(0)
    return getattr(diffusers, name)(**(OPTIONS[name] | options)).eval()


def saved(folder: Path, name: str = "AutoencoderTiny", **options: Any) -> Any:
    """Save one of diffusers' classes, small, in `folder`; returns it."""
    network = autoencoder(name, **options)
    network.save_pretrained(folder)
    return network


LEVELS: dict[str, Sequence[Any]] = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}

OPTIONS: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {**LEVELS, "norm_num_groups": 4, "latent_channels": 4},
    "AutoencoderDC": {
        "latent_channels": 4,
        "attention_head_dim": 4,
        "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "encoder_block_out_channels": (8, 8, 16),
        "decoder_block_out_channels": (8, 8, 16),
        "encoder_qkv_multiscales": ((), (), (5,)),
        "decoder_qkv_multiscales": ((), (), (5,)),
        "encoder_layers_per_block": (1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1),
        "upsample_block_type": "interpolate",
        "downsample_block_type": "stride_conv",
        "decoder_norm_types": "rms_norm",
        "decoder_act_fns": "silu",
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": (8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8),
        "num_encoder_blocks": (1, 1, 1),
        "num_decoder_blocks": (1, 1, 1),
        "latent_channels": 4,
    },
    "AutoencoderRAE": {
        "encoder_type": "dinov2",
        "encoder_hidden_size": 64,
        "encoder_patch_size": 4,
        "encoder_num_hidden_layers": 1,
        "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
        "patch_size": 4,
        "encoder_input_size": 16,
    },
    "AutoencoderKLWan": {
        "base_dim": 3,
        "z_dim": 4,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
        "latents_mean": [0.0] * 4,
        "latents_std": [1.0] * 4,
    },
    "AutoencoderOobleck": {
        "encoder_hidden_size": 8,
        "downsampling_ratios": [2, 4],
        "channel_multiples": [1, 2],
        "decoder_channels": 4,
        "decoder_input_channels": 4,
        "audio_channels": 2,
    },
}
"""Options that make each class small."""
