"""What a saved model is: everything that sampling needs, and nothing of how it was trained."""

from dataclasses import KW_ONLY, fields
from pathlib import Path

from anydit.codecs import CodecConfig, Normalize, Tiles
from anydit.config import Json, config, from_json, to_json
from anydit.data import Images, View
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.multistep import AnySampler, DPMSolverPP
from anydit.diffusion.paths import AnyPath, Linear
from anydit.diffusion.predictions import AnyPrediction, Noise, Velocity
from anydit.diffusion.times import AnyTimeGrid, Even
from anydit.model.dit import DiTConfig
from anydit.weights import EXPORT_FILE, RUN_FILE, read_config


@config
class Sampling:
    """How to sample when nothing else is said: `steps` of a sampler on a time grid, with guidance.

    `tiles`: decode latents in overlapping tiles, for samples that are too large to decode in one piece.
    """

    sampler: AnySampler = DPMSolverPP()
    steps: int = 25
    grid: AnyTimeGrid = Even()
    guidance: Guidance = Guidance()
    tiles: Tiles | None = None

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
        self.check(self.sampling)
        if isinstance(self.prediction, Noise) and self.path.reaches_noise:
            raise ValueError(
                f"prediction: got Noise on the path {type(self.path).__name__}, whose end is pure noise and tells "
                "nothing of the data; expected Velocity, V or X0"
            )

    def check(self, sampling: Sampling, weak: bool = False) -> None:
        """Refuse a sampling that this model cannot do; `weak`: whether it is guided by a worse model.

        Raises:
            ValueError: steps that the grid or the path has not, or guidance that would change nothing.
        """
        sampling.grid.times(self.path, sampling.steps)
        scale = sampling.guidance.scale
        if weak and scale == 1:
            raise ValueError("guidance.scale: got 1, which is no guidance, beside weak; expected another scale")
        if scale != 1 and not weak and not any(c.dropout for c in self.model.conditions.values()):
            raise ValueError(
                f"guidance.scale: got {scale:g}, expected 1: the model has no condition with a null to be guided away "
                "from (dropout above 0)"
            )


def exported(content: PipelineConfig) -> Json:
    """A pipeline's config as an exported folder has it; a recipe's other fields are left out."""
    return {f.name: to_json(getattr(content, f.name)) for f in fields(PipelineConfig)}


def config_file(folder: Path) -> Path:
    """Where the config is: in an exported folder, or in a run."""
    return folder / (EXPORT_FILE if (folder / EXPORT_FILE).is_file() else RUN_FILE)


def load_config(folder: Path) -> PipelineConfig:
    """Read a pipeline's config from an exported folder or from a run; a run's data and training are not looked at.

    Raises:
        ValueError: there is none, or it is not one that this release can read.
    """
    file = config_file(folder)
    content = read_config(file)
    if file.name == RUN_FILE:
        content = {f.name: content[f.name] for f in fields(PipelineConfig) if f.name in content}
        if "model" not in content:
            raise ValueError(
                f"path: got {folder}, in which a codec was trained, expected the run of a model; --codec Latents "
                f"--codec.path {folder} trains one in its latents, and anydit.codecs.load opens the codec alone"
            )
    return from_json(PipelineConfig, content)
