"""anydit: any data, one Diffusion Transformer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anydit.codecs.text import TextEncoder
    from anydit.inference.config import PipelineConfig, Sampling
    from anydit.inference.pipeline import Pipeline, load
    from anydit.model.conditioning import Field, Label, Numbers
    from anydit.model.dit import DiT, DiTConfig
    from anydit.model.presets import preset
    from anydit.model.text import Text
    from anydit.train.recipe import Recipe, TrainConfig

__all__ = [
    "DiT",
    "DiTConfig",
    "Field",
    "Label",
    "Numbers",
    "Pipeline",
    "PipelineConfig",
    "Recipe",
    "Sampling",
    "Text",
    "TextEncoder",
    "TrainConfig",
    "load",
    "preset",
]

_HOMES = {
    "anydit.codecs.text": ("TextEncoder",),
    "anydit.inference.config": ("PipelineConfig", "Sampling"),
    "anydit.inference.pipeline": ("Pipeline", "load"),
    "anydit.model.conditioning": ("Field", "Label", "Numbers"),
    "anydit.model.dit": ("DiT", "DiTConfig"),
    "anydit.model.presets": ("preset",),
    "anydit.model.text": ("Text",),
    "anydit.train.recipe": ("Recipe", "TrainConfig"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: PyTorch takes seconds, and `anydit --help` needs none of it."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'anydit' has no attribute {name!r}")
