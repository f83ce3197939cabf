"""Folders that `anydit.load` opens: a config, the weights of the network and, where it has any, those of the codec.

Config and weights carry one id, and each file of weights its checksum, so that neither damage nor a mixture of two
folders goes unnoticed.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from anydit.inference.config import PipelineConfig, exported
from anydit.weights import CODEC_FILE, EXPORT_FILE, WEIGHTS_FILE, identify, save_tensors, write_config


def export(folder: Path, config: PipelineConfig, model: Mapping[str, Tensor], codec: Mapping[str, Tensor]) -> None:
    """Write a folder that `load` opens, from a config and the weights of network and codec."""
    content = exported(config)
    id = identify(content, model, codec)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder, model, codec, id)
    write_config(folder / EXPORT_FILE, content, id)


def save_weights(
    folder: Path, model: Mapping[str, Tensor], codec: Mapping[str, Tensor], id: str | None, name: str = WEIGHTS_FILE
) -> None:
    """Write the weights of a network, and of its codec if it has any, with the id of the config beside them."""
    save_tensors(folder / name, model, id)
    if codec:
        save_tensors(folder / CODEC_FILE, codec, id)
