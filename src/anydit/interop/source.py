"""A model wherever it stands: in a run, in an exported folder, or in a folder of diffusers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from anydit.diffusion.paths import AnyPath
from anydit.diffusion.predictions import AnyPrediction
from anydit.inference.adapter import load_weights
from anydit.inference.config import config_file, load_config
from anydit.interop import diffusers, pixart, sd3
from anydit.interop.diffusers_schedulers import FILE as SCHEDULER
from anydit.interop.diffusers_schedulers import told
from anydit.interop.dit import Weights
from anydit.interop.folders import CONFIG, read_json
from anydit.model.dit import DiTConfig


class Source(NamedTuple):
    """A network's config and weights; path and prediction are None where nothing is said of them."""

    model: DiTConfig
    tensors: Weights
    path: AnyPath | None = None
    prediction: AnyPrediction | None = None


def read(folder: Path | str) -> Source:
    """The model in a folder.

    Raises:
        ValueError: it is not there, is not whole, or is a file, which `anydit convert` makes a folder of.
    """
    source = Path(folder)
    if not source.exists():
        raise ValueError(f"init: got {source}, which does not exist; expected a run, an exported folder or diffusers'")
    if not source.is_dir():
        raise ValueError(f"init: got {source}, a file; expected a folder: `anydit convert FORM {source} --to FOLDER`")
    if config_file(source).is_file():
        config = load_config(source)
        return Source(config.model, load_weights(source), config.path, config.prediction)
    model, tensors = _reader(source)(source)
    if not (source / SCHEDULER).is_file():
        return Source(model, tensors)
    schedule = diffusers.read_schedule(source)
    model = replace(model, time=told(model.time, schedule.path, schedule.grid.of))
    return Source(model, tensors, schedule.path, schedule.prediction)


def _reader(folder: Path) -> Callable[[Path], tuple[DiTConfig, Weights]]:
    """What reads the model of diffusers in a folder, by its class."""
    about = read_json((folder / "transformer" if (folder / "transformer").is_dir() else folder) / CONFIG)
    if about.get("_class_name") == sd3.KIND:
        return sd3.read
    shared = about.get("norm_type", pixart.FIXED["norm_type"]) == pixart.FIXED["norm_type"]
    return pixart.read if about.get("_class_name") in pixart.KINDS and shared else diffusers.read
