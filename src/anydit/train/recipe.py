"""A recipe: everything about a run. What it leaves open is filled in from the data before anything is trained."""

from dataclasses import field, replace
from pathlib import Path
from typing import ClassVar

import torch

from anydit.config import Json, config
from anydit.data import Data, Samples
from anydit.diffusion.losses import Objective
from anydit.diffusion.times import Discrete
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.model.dit import DiT
from anydit.train.base import Note, Site, Trainable, Work
from anydit.train.config import RESUMABLE, TrainConfig
from anydit.train.context import check_context
from anydit.train.diffusion import DiffusionWork
from anydit.train.latents import Live
from anydit.train.memory import Planned
from anydit.train.pace import paced
from anydit.train.resolve import refilled, resolved
from anydit.train.room import fitting
from anydit.train.start import Beginning, Start
from anydit.train.tensor import check_tensor

__all__ = ["RESUMABLE", "Recipe", "TrainConfig"]


@config
class Recipe(PipelineConfig, Trainable[Pipeline]):
    """A pipeline, the data that it learns from, and how."""

    picture: ClassVar[str] = "samples.png"

    data: Data = field(kw_only=True)
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        PipelineConfig.__post_init__(self)  # pyright: ignore[reportUnknownMemberType]
        check_context(self.model, self.train.mesh)
        check_tensor(self.model, self.train.mesh)
        for size in self.data.sizes if self.codec.complete else ():
            check_context(replace(self.model, size=self.codec.latent_size(size)), self.train.mesh)
        if self.model.learned_variance and not isinstance(self.train.times, Discrete):
            got = type(self.train.times).__name__
            raise ValueError(
                f"train.times: got {got} with model.learned_variance, whose bound is over discrete steps; "
                "expected Discrete"
            )

        if self.model.learned_variance and self.train.times != Discrete(self.train.bound.steps):
            raise ValueError(
                f"train.bound.steps: got {self.train.bound.steps}, expected those of train.times: {self.train.times}"
            )

    @property
    def objective(self) -> Objective:
        """The loss that this recipe minimises."""
        bound = self.train.bound if self.model.learned_variance else None
        return Objective(self.path, self.prediction, self.train.weight, bound)

    @property
    def step(self) -> Planned:
        """A training step, for what is counted and tried of it; texts have as many tokens as their encoders allow."""
        tokens = {name: encoder.max_tokens for name, encoder in self.encoders.items()}
        codec = self.codec if self.codec.has_weights and self.codec.complete else None
        return Planned(
            self.model, self.objective, self.train, tokens, codec, encodes=isinstance(self.train.latents, Live)
        )

    @property
    def loop(self) -> TrainConfig:
        return self.train

    def refuse_unbuildable(self) -> None:
        """Build the network without memory where the recipe leaves nothing to the data."""
        if self.train.routing is not None:
            self.train.routing.blocks(self.model)
        if self.train.width is not None:
            self.train.width.config(self.model)
        if self.model.complete:
            with torch.device("meta"):
                model = DiT(self.model)
            if self.train.adapter is not None:
                self.train.adapter.products(model)

    def beginning(self, out: Path, start: Start | None) -> Beginning:
        return Beginning.of(self.train.adapter, out, start)

    def resolved(self, samples: Samples, note: Note, device: torch.device, before: Json | None = None) -> "Recipe":
        return resolved(self if before is None else refilled(self, before), samples, note, device)

    def begin(self, samples: Samples, site: Site, start: Start | None = None) -> Work[Pipeline]:
        train = paced(self.step.trained(recompute=self._again(site)), site)
        return DiffusionWork(self, self.objective, train, samples, site, start)

    def _again(self, site: Site) -> float | None:
        """In which share of the blocks activations are computed again, which the first of several processes decides.

        Raises:
            ValueError: a step does not fit into the memory.
        """
        processes, step = site.processes, self.step.trained(mesh=site.processes.mesh)

        def fits() -> Json:
            return {"share": fitting(step, site.device, site.note, processes.free).recompute}

        return processes.agreed("recompute", fits)["share"]
