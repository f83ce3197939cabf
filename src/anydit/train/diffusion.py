"""A diffusion model in training, as the loop sees it."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor

from anydit.codecs import Codec, CodecConfig
from anydit.config import Json
from anydit.data import Samples
from anydit.data.buckets import by_size, each_size
from anydit.data.changes import changes
from anydit.data.loader import order_of
from anydit.diffusion.losses import Objective
from anydit.inference.adapter import ADAPTER_WEIGHTS
from anydit.inference.coding import field_codecs
from anydit.inference.compile import compile_blocks
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline, load
from anydit.model.dit import DiT
from anydit.train import pictures
from anydit.train.base import Site, Work
from anydit.train.config import TrainConfig
from anydit.train.fit import KEPT
from anydit.train.latents import Encoding
from anydit.train.lora import adapt, share, trained
from anydit.train.recompute import recompute
from anydit.train.start import INIT_FILE, Start, report, take_over, write_start
from anydit.train.step import TrainStep
from anydit.train.texts import Told, standardise, tables
from anydit.weights import CODEC_FILE, RUN_FILE, WEIGHTS_FILE, load_beside, load_strictly

STRIP, FINAL, TRAJECTORY = "denoising.png", "samples.png", "denoising.gif"
SHOWN = 100
"""Samples on the sheet of a finished run, about."""

SHOWN_OF_OTHERS = 30
"""The same of each other size than the one that most of the data have."""


class DiffusionWork(Work[Pipeline]):
    """The training of a resolved pipeline's network, on the latents of its codec."""

    def __init__(
        self,
        config: PipelineConfig,
        objective: Objective,
        train: TrainConfig,
        samples: Samples,
        site: Site,
        start: Start | None = None,
    ) -> None:
        device, processes = site.device, site.processes
        codec, model = _codec(config.codec, site.out).to(device), DiT(config.model, train.seed)
        self.config, self.train, self.note, self.start = config, train, site.note, start
        self.fitted = [] if start is None else take_over(start, model)
        if train.adapter is not None:
            adapt(model, train.adapter, {row.name for row in self.fitted if row.how != KEPT}, train.seed)
            self.note(share(model))
        learned = changes(samples, config.change_of)
        fields = field_codecs(config, codec)
        latents, encoder = train.latents.opened(Encoding(learned, config.codec, codec, device, fields))
        self.data, self.samples = samples, latents
        if config.encoders:
            told = tables(latents, config.encoders, device)  # with the same texts, and nothing to decode if kept
            self.data, self.samples = (each_size(some, lambda part: Told(part, told)) for some in (samples, latents))
        if start is None:
            standardise(model, self.samples)
            if train.width is not None:
                train.width.begin(model, train.seed)
        elif train.width is not None:
            self.note(
                "train.width: the weights are those to begin with, so that learning rates alone follow the width."
            )
        if not processes.mesh.splits:  # else each layer is moved as it is cut
            model.to(device)
        self.order = order_of(self.samples, train.batch, train.seed, processes.part, processes.mesh.parts)
        self.step = TrainStep(model, encoder, objective, train, self.order.positions, processes, fields)
        self.averages = self.step.averages
        self.pipeline = Pipeline(config, self.step.ema.module, codec)
        if train.kernels is not None:
            train.kernels.fuse(model)
        recompute(model, train.recompute)
        if train.compile:
            compile_blocks(model)

    @property
    def result(self) -> Pipeline:
        return self.pipeline

    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        average = self.step.ema.module
        if self.train.adapter is None:
            return {WEIGHTS_FILE: average.state_dict()}
        return {ADAPTER_WEIGHTS: trained(self.step.model, average)}

    def frozen(self) -> dict[str, Mapping[str, Tensor]]:
        state = self.pipeline.codec.state_dict()
        return {CODEC_FILE: state} if state else {}

    def first(self, out: Path) -> bool:
        if self.start is not None:
            self.note(report(self.start.origin, self.fitted, self.config))
            write_start(out, self.start, self.fitted, self.train.adapter)
        elif (out / INIT_FILE).is_file():
            raise ValueError(f"init: got none, expected it again: {out} was stopped before its first checkpoint")
        return self.start is not None  # from there on the run needs nobody else's weights

    def passed(self, out: Path, done: int) -> None:
        if self.averages is not None and (self.averages.due(done) or done == self.train.steps):
            self.averages.write(out, done)

    def undone(self, out: Path, done: int) -> None:
        if self.averages is not None:
            self.averages.forget(out, done)

    @property
    def told(self) -> Json:
        train = self.train
        of = {"compile": train.compile, "attention_backend": train.attention_backend, "accumulate": train.accumulate}
        return {**of, "kernels": str(train.kernels)}

    @property
    def origin(self) -> Json:
        return {} if self.start is None else {"init": self.start.origin.sha256}

    def sheet(self, n: int) -> Image.Image:
        return pictures.sheet(self.pipeline, self.data, n)

    def finish(self, out: Path) -> None:
        self.sheet(SHOWN).save(out / FINAL)
        for part in by_size(self.data)[1:]:
            name = f"samples-{'x'.join(map(str, part.facts.size))}.png"
            pictures.sheet(self.pipeline, part, SHOWN_OF_OTHERS).save(out / name)
        cond, _ = pictures.examples(self.data, self.pipeline.config.model.conditions, 10)
        frames = pictures.trajectory(self.pipeline, cond, 10, shown=10)
        pictures.strip(self.pipeline, frames).save(out / STRIP)
        self.pipeline.config.view.animation(frames, out / TRAJECTORY)
        if self.train.adapter is not None:
            self.pipeline = load(out, self.pipeline.device)  # merged, a plain network again


def _codec(config: CodecConfig, out: Path) -> Codec:
    """The codec, with its weights from the run's folder if they are there: going on needs nothing else."""
    if not (out / RUN_FILE).is_file() or not (out / CODEC_FILE).is_file():
        return config.restored()
    codec = config.build()
    load_strictly(codec, load_beside(out / RUN_FILE, CODEC_FILE), out / CODEC_FILE)
    return codec.frozen()
