"""What a saved model is: everything that sampling needs, and nothing of how it was trained."""

from dataclasses import KW_ONLY, fields
from pathlib import Path

from anydit.codecs import CodecConfig, Normalize
from anydit.config import Json, config, from_json, to_json
from anydit.data import Images, View
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.multistep import AnySampler, DPMSolverPP
from anydit.diffusion.paths import AnyPath, Linear
from anydit.diffusion.predictions import AnyPrediction, Noise, Velocity
from anydit.diffusion.times import AnyTimeGrid, Even
from anydit.model.dit import DiTConfig
from anydit.weights import read_config, write_config

RUN_FILE, EXPORT_FILE = "recipe.json", "pipeline.json"
"""The config in a run's folder, and in an exported folder."""


@config
class Sampling:
    """How to sample when nothing else is said: `steps` of a sampler on a time grid, with guidance."""

    sampler: AnySampler = DPMSolverPP()
    steps: int = 25
    grid: AnyTimeGrid = Even()
    guidance: Guidance = Guidance()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: got {self.steps}, expected at least 1")


@config
class PipelineConfig:
    """A network, the path and prediction it was trained for, its codec, and how its samples are drawn and shown."""

    _: KW_ONLY
    model: DiTConfig
    path: AnyPath = Linear()
    prediction: AnyPrediction = Velocity()
    codec: CodecConfig = Normalize()
    sampling: Sampling = Sampling()
    view: View = Images()

    def __post_init__(self) -> None:
        self.sampling.grid.times(self.path, self.sampling.steps)  # refuses steps that the grid or the path has not
        if isinstance(self.prediction, Noise) and self.path.reaches_noise:
            raise ValueError(
                f"prediction: got Noise on the path {type(self.path).__name__}, whose end is pure noise and tells "
                "nothing of the data; expected Velocity, V or X0"
            )


def save_config(folder: Path, content: PipelineConfig) -> None:
    """Write a pipeline's config as an exported folder has it; a recipe's other fields are left out."""
    kept = {f.name: to_json(getattr(content, f.name)) for f in fields(PipelineConfig)}
    write_config(folder / EXPORT_FILE, kept)


def load_config(folder: Path) -> PipelineConfig:
    """Read a pipeline's config from an exported folder or from a run; a run's data and training are not looked at.

    Raises:
        ValueError: there is none, or it is not one that this release can read.
    """
    if (folder / EXPORT_FILE).is_file():
        return from_json(PipelineConfig, read_config(folder / EXPORT_FILE))
    recipe: Json = read_config(folder / RUN_FILE)
    return from_json(PipelineConfig, {f.name: recipe[f.name] for f in fields(PipelineConfig) if f.name in recipe})
