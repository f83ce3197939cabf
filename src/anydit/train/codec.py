"""Autoencoders in training: the recipe of one, its step, and the work as the loop sees it."""

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from anydit.codecs import Autoencoder, AutoencoderConfig, Codec, KLAutoencoder
from anydit.codecs.base import in_parts
from anydit.codecs.perceptual import Perceptual
from anydit.codecs.quality import psnr, ssim
from anydit.config import Json, config, filled
from anydit.data import Data, Samples, View
from anydit.data.buckets import by_size, fullest
from anydit.data.loader import order_of
from anydit.data.sheet import side_by_side
from anydit.inference.compile import autocast
from anydit.tensors import Batch, Stream
from anydit.train.base import Note, Site, Trainable, Work
from anydit.train.config import LoopConfig
from anydit.train.critic import Critic, CriticConfig
from anydit.train.parallel import ALONE, Processes
from anydit.train.resolve import surveyed
from anydit.train.start import Start
from anydit.train.step import LOSS, Outcome, Step, Terms
from anydit.weights import CODEC_FILE, write_config

RECONSTRUCTIONS, FIGURES = "reconstructions.png", "reconstructions.json"
SHOWN = 50
"""Samples on the sheet of a finished run."""

MEASURED = 2000
"""Held-out samples, evenly spread, whose reconstructions the figures of a finished run are of."""


@config
class Absolute:
    """|x - y|: the less for large errors, the more for small ones."""

    def of(self, difference: Tensor) -> Tensor:
        """The error of each value."""
        return difference.abs()


@config
class Squared:
    """(x - y)^2: what PSNR measures."""

    def of(self, difference: Tensor) -> Tensor:
        """The error of each value."""
        return difference.square()


AnyError = Absolute | Squared


@config
class CodecTrainConfig(LoopConfig):
    """How to train an autoencoder: on the mean error of a value, and whatever else is asked for.

    `error`: of a reconstruction. `perceptual`: compare what a network sees in them, too. `critic`: train a second
    network to tell reconstructions from data, and the autoencoder to mislead it.
    """

    error: AnyError = Absolute()
    perceptual: Perceptual | None = None
    critic: CriticConfig | None = None

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # pyright: ignore[reportUnknownMemberType]
        if self.mesh.splits:
            raise ValueError(f"train.mesh: got {self.mesh} for an autoencoder, expected all but the first to be 1")


@config
class CodecRecipe(Trainable[Autoencoder]):
    """An autoencoder, the data that it learns from, and how."""

    picture: ClassVar[str] = RECONSTRUCTIONS

    codec: AutoencoderConfig = KLAutoencoder()
    view: View = field(kw_only=True)
    data: Data = field(kw_only=True)
    train: CodecTrainConfig = CodecTrainConfig()

    def __post_init__(self) -> None:
        for size in self.data.sizes if self.codec.complete else ():
            self.codec.latent_size(size)

    @property
    def loop(self) -> CodecTrainConfig:
        return self.train

    def refuse_unbuildable(self) -> None:
        """Nothing is left to refuse: the config of an autoencoder has seen to it."""

    def resolved(self, samples: Samples, note: Note, device: torch.device, before: Json | None = None) -> "CodecRecipe":
        facts = samples.facts
        codec = self.codec if before is None else filled(self.codec, before.get("codec"))
        codec = codec.measured(surveyed(samples, self.view, device))
        codec.latent_channels(facts.channels)
        for part in by_size(samples):
            codec.latent_size(part.facts.size)
        return replace(self, codec=codec, view=self.view.like(facts))

    def begin(self, samples: Samples, site: Site, start: Start | None = None) -> Work[Autoencoder]:
        return CodecWork(self, samples, site)


class CodecStep(Step[Autoencoder]):
    """A step of an autoencoder of samples of `shape`, `(c, *space)`; the error is taken in its own units."""

    def __init__(
        self,
        model: Autoencoder,
        config: CodecTrainConfig,
        positions: Int[Tensor, " b"],
        shape: tuple[int, ...],
        bounds: tuple[float, float] | None,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(model, config, positions, processes)
        self.config = config
        device = self.positions.device
        self.sight = None if config.perceptual is None else config.perceptual.build(model.units, bounds, device)
        if config.critic is not None and processes.world > 1:
            raise ValueError(f"train.critic: got one for {processes.world} processes, expected None, or one process")
        self.critic = None if config.critic is None else Critic(config.critic, shape, config.seed, device)

    def __call__(self, batch: Batch, step: int) -> Outcome:
        outcome = super().__call__(batch, step)
        if self.critic is None:
            return outcome
        return replace(outcome, terms={**outcome.terms, "critic": self.critic.learn(step, outcome.applied)})

    def terms(self, batch: Batch, rows: Int[Tensor, " m"], step: int) -> Terms:
        y, places = self.model.units.encode(batch.x[rows]), self.positions[rows]
        share = len(rows) / self.config.batch

        def draw(name: str, shape: tuple[int, ...]) -> Tensor:
            return Stream(self.config.seed, name).normal(step, places, shape)

        with autocast(y.device, self.config.bf16):
            z, penalty = self.model.drawn(y, draw)
            made = self.model.reconstruction(z).float()
            error = self.config.error.of(made - y).mean()
            terms = {"error": error}
            if penalty is not None:
                terms["penalty"] = penalty.float().mean()
            if self.sight is not None:
                terms["perceptual"] = self.sight(made, y)
            if self.critic is not None:
                terms["misled"] = self.critic.misled(made, y, step)
        terms = {name: term * share for name, term in terms.items()}
        return {LOSS: torch.stack([*terms.values()]).sum(), **terms}

    def state(self) -> dict[str, dict[str, Tensor]]:
        return super().state() | ({} if self.critic is None else self.critic.state())

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]], source: object) -> None:
        super().load_state(groups, source)
        if self.critic is not None:
            self.critic.load_state(groups, source)


class CodecWork(Work[Autoencoder]):
    """The training of a resolved recipe's autoencoder. Its figures and pictures are of held-out data.

    Of data of several sizes they are of the size that most have.
    """

    def __init__(self, recipe: CodecRecipe, samples: Samples, site: Site) -> None:
        self.recipe, self.samples, self.device = recipe, samples, site.device
        train = recipe.train
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            model = recipe.codec.untrained().to(site.device)
        self.order = order_of(samples, train.batch, train.seed, site.processes.part, site.processes.mesh.parts)
        shape = (samples.facts.channels, *samples.facts.size)
        self.step = CodecStep(model, train, self.order.positions, shape, recipe.view.bounds, site.processes)
        try:
            self.held = fullest(recipe.data.open("held_out"))
        except ValueError as error:
            site.note(f"Pictures and figures are of training data, for want of held-out ones: {error}")
            self.held = fullest(samples)

    @property
    def result(self) -> Autoencoder:
        return self.step.ema.module

    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        return {CODEC_FILE: self.result.state_dict()}

    def sheet(self, n: int) -> Image.Image:
        x = self._held(n)
        return side_by_side(self.recipe.view, x, reconstructed(self.result, x, self.device))

    def finish(self, out: Path) -> None:
        self.sheet(SHOWN).save(out / RECONSTRUCTIONS)
        x = self._held(MEASURED)
        y, bounds = reconstructed(self.result, x, self.device), self.recipe.view.bounds
        extent = float(x.max() - x.min()) if bounds is None else bounds[1] - bounds[0]
        write_config(out / FIGURES, {"psnr_db": psnr(y, x, extent), "ssim": ssim(y, x, extent), "samples": len(x)})

    def _held(self, n: int) -> Float[Tensor, "n c *space"]:
        count = len(self.held)
        n = min(n, count)
        return self.held.read(torch.arange(n) * count // n).x


def reconstructed(codec: Codec, x: Float[Tensor, "n c *space"], device: torch.device) -> Float[Tensor, "n c *space"]:
    """What comes back of samples from their latents, on the CPU."""
    codec.eval()
    with torch.inference_mode():
        return in_parts(lambda part: codec.decode(codec.encode(part.to(device))).float().cpu(), x)
