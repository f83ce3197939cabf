"""Trained autoencoders, by where they are: a run's folder, or one of diffusers, here or on the Hugging Face hub."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from anydit.codecs.base import Codec, CodecConfig
from anydit.codecs.published import Published, loadable
from anydit.config import Json, from_json
from anydit.weights import CODEC_FILE, EXPORT_FILE, RUN_FILE, load_beside, load_strictly, load_tensors, read_config

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
"""The files of an autoencoder of diffusers."""


class Source(NamedTuple):
    """An autoencoder: what it is, and its weights."""

    config: CodecConfig
    tensors: dict[str, Tensor]


def load(folder: Path | str) -> Codec:
    """The trained codec in a run's folder, frozen: `load("runs/fashion-codec").encode(x)`.

    Raises:
        ValueError: there is none, or it is not whole.
    """
    config, tensors = of_folder(Path(folder))
    codec = config.build()
    load_strictly(codec, tensors, folder)
    return codec.frozen()


def of_folder(folder: Path) -> Source:
    """The codec that was trained in `folder`, or that of the run in it, or an autoencoder of diffusers (or its `vae`).

    Raises:
        ValueError: the folder is not there, or holds none of these, or one that is not whole.
    """
    for name in (RUN_FILE, EXPORT_FILE):
        if (folder / name).is_file():
            return _of_run(folder / name)
    inner = next((f for f in (folder, folder / "vae") if (f / CONFIG).is_file()), None)
    if inner is None:
        what = "which is not a folder" if not folder.is_dir() else f"which has no {RUN_FILE}, {EXPORT_FILE} or {CONFIG}"
        raise ValueError(
            f"codec.path: got {folder}, {what}; expected the folder of an autoencoder's run or of diffusers"
        )
    return _of_diffusers(inner / CONFIG, inner / WEIGHTS)


def of_hub(name: str) -> Source:
    """An autoencoder of diffusers on the Hugging Face hub: ORGANISATION/NAME, or ORGANISATION/NAME/FOLDER.

    Raises:
        ValueError: it cannot be had; says how to use a local folder.
    """
    organisation, _, rest = name.partition("/")
    repository, _, folder = rest.partition("/")
    if not organisation or not repository:
        raise ValueError(f"codec.hub: got {name!r}, expected ORGANISATION/NAME or ORGANISATION/NAME/FOLDER")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ValueError(
            "codec.hub: needs huggingface_hub, which is missing; pip install 'anydit[diffusers]'"
        ) from None
    try:
        files = [
            hf_hub_download(f"{organisation}/{repository}", f, subfolder=folder or None) for f in (CONFIG, WEIGHTS)
        ]
    except Exception as error:  # of the network, of the hub, of files: there is no end of kinds
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"codec.hub: got {name}, which is not to be had from the hub ({why}); a copy of its {CONFIG} and {WEIGHTS} "
            "opens without a network, by --codec.path FOLDER"
        ) from None
    return _of_diffusers(Path(files[0]), Path(files[1]))


def _of_run(file: Path) -> Source:
    content: Json = read_config(file)
    config = from_json(CodecConfig, content.get("codec"))
    if not (file.parent / CODEC_FILE).is_file():
        raise ValueError(
            f"codec.path: got {file.parent}, whose codec is {type(config).__name__} without weights; expected the "
            "folder of an autoencoder's run, with at least one checkpoint"
        )
    return Source(config, load_beside(file, CODEC_FILE))


def _of_diffusers(about: Path, weights: Path) -> Source:
    try:
        options: Any = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"codec.path: {about} cannot be read as JSON: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"codec.path: got {about}, which is no config of diffusers")
    config = Published(options)
    if not weights.is_file():
        others = [f.name for f in sorted(about.parent.glob("*")) if re.search(r"\.(bin|pt|pth|ckpt)$", f.name)]
        found = f" (its {', '.join(others)} may hold code, and is not read)" if others else ""
        raise ValueError(f"codec.path: got {about.parent} without {weights.name}{found}; expected safetensors")
    return Source(config, loadable(config, load_tensors(weights)))
