"""What a saved model is: everything that sampling needs, and nothing of how it was trained."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, field, fields, replace
from pathlib import Path

from anydit.codecs import CodecConfig, Normalize, TextEncoder, Tiles
from anydit.config import Json, config, from_json, to_json
from anydit.data import Images, View
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.multistep import AnySampler, DPMSolverPP
from anydit.diffusion.paths import AnyPath, Linear
from anydit.diffusion.predictions import AnyPrediction, Noise, Velocity
from anydit.diffusion.times import AnyTimeGrid, Even
from anydit.inference.lengths import Lengths
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig
from anydit.model.text import Text
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
    """A network, the path and prediction it was trained for, its codec, and how its samples are drawn and shown.

    `encoders`: of texts, by the condition's name. `lengths`: of samples of which only a part exists; from the data.
    `change_of`: a field condition that holds samples, such as the states before in a forecast. The network draws what
    is added to the last of them (as in GenCast, Price 2023, arXiv 2312.15796), and the codec is measured on that.
    `field_codecs`: of coded fields that have one of their own, without weights and with latents of the samples' shape.
    That of `change_of` gets one like `codec`, measured on what it holds, unless `codec` has weights or is given whole.
    `contrast`: how far apart the least and the largest value are in nine of ten training samples at least, of data with
    bounds; None: not known.
    """

    _: KW_ONLY
    model: DiTConfig
    path: AnyPath = Linear()
    prediction: AnyPrediction = Velocity()
    codec: CodecConfig = Normalize()
    encoders: dict[str, TextEncoder] = field(default_factory=dict[str, TextEncoder])
    field_codecs: dict[str, CodecConfig] = field(default_factory=dict[str, CodecConfig])
    change_of: str | None = None
    lengths: Lengths | None = None
    contrast: float | None = None
    sampling: Sampling = Sampling()
    view: View = Images()

    def __post_init__(self) -> None:
        texts = [name for name, condition in self.model.conditions.items() if isinstance(condition, Text)]
        for name in self.encoders:
            if name not in texts:
                raise ValueError(f"encoders: got {name}, expected {_one_of(texts)}, which are texts")
        coded = [name for name, c in self.model.conditions.items() if isinstance(c, Field) and c.coded]
        for name, codec in self.field_codecs.items():
            if name not in coded:
                raise ValueError(f"field_codecs: got {name}, expected {_one_of(coded)}, which are coded fields")
            if codec.has_weights:
                got = f"{type(codec).__name__}, which has weights"
                raise ValueError(f"field_codecs.{name}: got {got}, expected a codec without, such as Normalize")
        if self.change_of is not None:
            condition = self.model.conditions.get(self.change_of)
            if not isinstance(condition, Field) or condition.dropout or self.lengths is not None:
                raise ValueError(
                    f"change_of: got {self.change_of}, expected a Field of the model without dropout, and samples that "
                    "exist everywhere"
                )
        self.check(self.sampling)
        if isinstance(self.prediction, Noise) and self.path.reaches_noise:
            raise ValueError(
                f"prediction: got Noise on the path {type(self.path).__name__}, whose end is pure noise and tells "
                "nothing of the data; expected Velocity, V or X0"
            )

    @property
    def data_size(self) -> tuple[int, ...]:
        """Along each axis, of the data that the model was trained on."""
        return self.codec.data_size(self.model.size or ())

    def how(
        self, sampling: Sampling | None, steps: int | None, guidance: float | Guidance | None, weak: bool = False
    ) -> Sampling:
        """A sampling, None for the saved one, with single fields of it overridden; refused as `check` does."""
        how = sampling or self.sampling
        if steps is not None:
            how = replace(how, steps=steps)
        if guidance is not None:
            given = guidance if isinstance(guidance, Guidance) else replace(how.guidance, scale=guidance)
            if given is not guidance and not given.acts:
                given = replace(given, negative={})  # what is saved has none to act against
            how = replace(how, guidance=given)
        self.check(how, weak)
        return how

    def check(self, sampling: Sampling, weak: bool = False) -> None:
        """Refuse a sampling that this model cannot do; `weak`: whether it is guided by a worse model.

        Raises:
            ValueError: steps that the grid or the path has not, or guidance that would change nothing.
        """
        sampling.grid.times(self.path, sampling.steps)
        guidance, conditions = sampling.guidance, self.model.conditions
        nullable = [name for name, c in conditions.items() if c.dropout or name in guidance.negative]
        if weak and guidance.scale == 1:
            raise ValueError("guidance.scale: got 1, which is no guidance, beside weak; expected another scale")
        if weak and (guidance.scales or guidance.negative):
            raise ValueError("guidance: got scales or a negative text beside weak, which is guidance of another kind")
        if guidance.negative and not guidance.acts:
            raise ValueError("guidance.negative: got some at a scale of 1, which is none; expected another scale")
        for name in guidance.negative:
            if not isinstance(conditions.get(name), Text):
                texts = [name for name, condition in conditions.items() if isinstance(condition, Text)]
                raise ValueError(f"guidance.negative: got {name}, expected {_one_of(texts)}, whose condition is a text")
        for name in guidance.scales:
            if name not in nullable:
                raise ValueError(
                    f"guidance.scales: got {name}, expected {_one_of(nullable)}, which the model has a null for"
                )
        if guidance.scale != 1 and not weak and not nullable:
            raise ValueError(
                f"guidance.scale: got {guidance.scale:g}, expected 1: the model has no condition with a null to be "
                "guided away from (dropout above 0)"
            )


def _one_of(names: Sequence[str]) -> str:
    return f"one of: {', '.join(names)}" if names else "none"


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
