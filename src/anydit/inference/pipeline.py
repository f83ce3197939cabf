"""A trained model as a person uses it: load, sample, edit, save."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor

from anydit.codecs import Codec, Tiles
from anydit.codecs.base import coarser
from anydit.diffusion.denoiser import Network, NetworkDenoiser
from anydit.diffusion.guidance import Guidance, Inpaint
from anydit.diffusion.likelihood import log_likelihood
from anydit.diffusion.samplers import Step
from anydit.inference.adapter import load_weights
from anydit.inference.coding import base, decoded, encoded, encoded_field, field_codecs, kept
from anydit.inference.conditions import Given, encoded_texts, prepared
from anydit.inference.config import PipelineConfig, Sampling, config_file, load_config
from anydit.inference.device import find_device
from anydit.inference.folder import export
from anydit.inference.job import Correct, Job, OnStep
from anydit.inference.lengths import split, split_given
from anydit.model.dit import DiT
from anydit.model.tokens import grid_of
from anydit.tensors import MASK, Denoiser, Stream, Tokens, changed, existing, select
from anydit.weights import CODEC_FILE, load_beside, load_strictly

TOKENS_AT_ONCE = 2**16
"""How many tokens go through the network in one call unless `batch` says otherwise."""

GRADIENT_COST = 16
"""A gradient keeps what every layer has computed: so many times fewer tokens then."""


class Pipeline:
    """A network, and all that makes samples of it. `model` is a plain module: `model(x_t, t, cond)`.

    `correct`: wraps the guided denoiser of each batch of samples, as `anydit.inverse` does; None leaves it as it is.
    `network`: draws samples in place of `model`, as `anydit.inference.replay` does; None is `model`.
    """

    def __init__(self, config: PipelineConfig, model: DiT | None = None, codec: Codec | None = None) -> None:
        self.config = config
        self.model = (DiT(config.model) if model is None else model).eval()
        self.codec = (config.codec.build() if codec is None else codec).frozen()
        self.field_codecs = field_codecs(config, self.codec)
        self.encoders = dict(config.encoders)
        self.correct: Correct | None = None
        self.network: Network | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is, and samples are made; they are handed out on the CPU."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> "Pipeline":
        """Move the network and the codec; returns the pipeline."""
        self.model.to(device)
        self.codec.to(device)
        return self

    def denoiser(self) -> NetworkDenoiser:
        """The network as a denoiser of latents, without guidance."""
        return NetworkDenoiser(self.model, self.config.path, self.config.prediction, self.config.model.learned_variance)

    def sample(
        self,
        n: int = 1,
        cond: Mapping[str, Given] | None = None,
        *,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        seed: int = 0,
        size: tuple[int, ...] | None = None,
        batch: int | None = None,
        sampling: Sampling | None = None,
        weak: Denoiser | None = None,
        on_step: OnStep | None = None,
    ) -> Float[Tensor, "n c *space"]:
        """Draw `n` samples, on the data's own scale.

        `cond`: by name, one value for all samples or one for each: `{"label": 3}`, `{"text": "a nine"}`. `size`: other
        than trained on. Of samples of which only a part exists, `{"length": 9}` says how much, else it is drawn as the
        data have it; they are NaN elsewhere. `sampling`: instead of the saved one; `steps` and `guidance` override
        single fields of it. `batch`: how many at a time. `weak`: a worse model of the same data, for autoguidance.
        `on_step` sees each step of each batch. Sample i depends on `seed`, i and its condition, not on the others.

        Raises:
            ValueError: an argument that the model cannot serve.
        """
        how = self.config.how(sampling, steps, guidance, weak is not None)
        space = self._latent_space(size)
        exists, told = split(self.config.lengths, cond or {}, _positive("n", n), self._data_size(space), seed)
        conditions, instead = self._conditions(told, how, n, space, exists)
        x = self._run(Job(n, how, space, conditions, instead, seed, on_step, weak, exists), batch)
        return x + base(self.config.change_of, told, x)

    def edit(
        self,
        x: Real[Tensor, "n c *space"],
        cond: Mapping[str, Given] | None = None,
        *,
        keep: Shaped[Tensor, "..."] | None = None,
        strength: float = 1.0,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        seed: int = 0,
        batch: int | None = None,
        sampling: Sampling | None = None,
        on_step: OnStep | None = None,
    ) -> Float[Tensor, "n c *space"]:
        """Image-to-image and inpainting: start from `x` (on the data's own scale), noised up to time `strength`.

        `keep`, `[n 1 *space]`: where `x` must stay as it is; the rest is made to fit. Everything else as in `sample`,
        which gave NaN where a sample does not exist.

        Raises:
            ValueError: an argument that the model cannot serve.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength: got {strength}, expected above 0 and at most 1")
        how = self.config.how(sampling, steps, guidance)
        exists, told = split_given(self.config.lengths, x, cond or {}, seed)
        x = self._finite(x if exists is None else torch.where(exists[:, None], x, 0))
        space = self._latent_space(tuple(x.shape[2:]))
        latents_kept = None if keep is None else kept(keep, len(x), tuple(x.shape[2:]), space)
        conditions, instead = self._conditions(told, how, len(x), space, exists)
        of = base(self.config.change_of, told, x)
        z = encoded(self.codec, x - of, self.device)
        job = Job(len(x), how, space, conditions, instead, seed, on_step, None, exists, z, strength, latents_kept)
        result = self._run(job, batch) + of
        result = result if keep is None else torch.where(keep, x, result)
        return result if exists is None else existing(result, {MASK: exists})

    def log_likelihood(
        self,
        x: Real[Tensor, "n c *space"],
        cond: Mapping[str, Given] | None = None,
        *,
        steps: int = 100,
        probes: int | None = 1,
        seed: int = 0,
        batch: int | None = None,
    ) -> Float[Tensor, " n"]:
        """The log density of each of `x`, on the data's own scale, in nats: of what the flow makes, without guidance.

        `steps`, `probes`, `seed`: as in `anydit.diffusion.likelihood`, to which the codec's change of volume is added.
        Data in bins, such as 8-bit images, has a density with noise over each bin only.

        Raises:
            ValueError: an argument that the model cannot serve, a mask, or a codec that tells no density of data.
        """
        if self.config.lengths is not None:
            raise ValueError("x: got samples that may exist in part only: where one does not exist it has no density")
        if MASK in (cond or {}):
            raise ValueError(f"cond: got {MASK}, expected none: where a sample does not exist it has no density")
        x = self._finite(x)
        space = self._latent_space(tuple(x.shape[2:]))
        conditions, _ = self._conditions(cond or {}, self.config.sampling, len(x), space, None)
        x = x - base(self.config.change_of, cond or {}, x)
        volume, denoiser = self.codec.log_volume(tuple(x.shape[1:])), self.denoiser()
        at_once = max(1, self._batch(None, space) // GRADIENT_COST) if batch is None else self._batch(batch, space)
        nats = list[Tensor]()
        for rows in torch.arange(len(x)).split(at_once):
            z = self.codec.encode(x[rows].to(self.device))
            told = {name: changed(v, lambda v: v.to(self.device)) for name, v in select(conditions, rows).items()}
            one = log_likelihood(
                denoiser, self.config.path, z, told, steps=steps, probes=probes, seed=seed, positions=rows
            )
            nats.append(one.cpu() + volume)
        return torch.cat(nats)

    def decode(self, z: Float[Tensor, "b c_z *space_z"], tiles: Tiles | None = None) -> Float[Tensor, "b c *space"]:
        """Latents, as `on_step` sees them, on the data's own scale, on the CPU; in tiles if they are given.

        Where samples are drawn as changes (`config.change_of`), these are the changes alone.
        """
        return decoded(self.codec, z, self._data_size(tuple(z.shape[2:])), self.device, tiles)

    def save(self, folder: Path | str) -> None:
        """Write a folder that `anydit.load` opens: pipeline.json, model.safetensors, and the codec's weights if any."""
        export(Path(folder), self.config, self.model.state_dict(), self.codec.state_dict())

    def _conditions(
        self, cond: Mapping[str, Given], how: Sampling, n: int, space: tuple[int, ...], exists: Tensor | None
    ) -> tuple[dict[str, Tensor | Tokens], dict[str, Tensor | Tokens]]:
        """What the samples are told, and what they are guided away from in place of nulls; texts are encoded.

        `exists`: which places of the data do, as the network is told of its latents.
        """
        known = self.config.model.conditions
        negative = {name: [text] * n for name, text in how.guidance.negative.items()}
        texts = {name: known[name] for name in negative}
        told, instead = (encoded_texts(some, known, self.encoders, self.device) for some in (cond, negative))
        if exists is not None:
            told[MASK] = coarser(exists, space)
        for name, field in self.field_codecs.items():
            if name in told:
                told[name] = encoded_field(field, name, told[name], self._data_size(space), self.device)
        return prepared(told, known, n, space), prepared(instead, texts, n, space)

    def _finite(self, x: Real[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        x = x.float()
        if not bool(x.isfinite().all()):
            raise ValueError("x: got NaN or infinity, expected finite values")
        return x

    def _latent_space(self, size: tuple[int, ...] | None) -> tuple[int, ...]:
        space = self.config.model.size if size is None else self.config.codec.latent_size(tuple(size))
        if space is None:
            raise ValueError("size: got None, expected numbers: this config is not resolved with its data")
        grid_of(space, self.config.model.patch)
        return space

    def _run(self, job: Job, batch: int | None) -> Tensor:
        at_once = self._batch(batch, job.space)
        return torch.cat([self._draw(job, slice(i, min(i + at_once, job.n))) for i in range(0, job.n, at_once)])

    def _draw(self, job: Job, rows: slice) -> Tensor:
        """The samples of some rows of a job, decoded."""
        last: Step | None = None
        for last in self._steps(job, rows):
            if job.on_step is not None:
                job.on_step(last)
        assert last is not None, "a time grid has at least one step"
        x = self.decode(last.xt, job.how.tiles)
        return x if job.exists is None else existing(x, {MASK: job.exists[rows]})

    def _steps(self, job: Job, rows: slice) -> Iterator[Step]:
        """The sampler's steps for some rows of a job; nothing runs before the first is asked for."""
        how, path, device = job.how, self.config.path, self.device
        positions = torch.arange(rows.start, rows.stop, device=device)
        shape = (self.config.model.in_channels, *job.space)
        stream = Stream(job.seed, "sample")
        times = how.grid.times(path, how.steps)
        times = times * (job.strength / times[0]) if job.strength < 1 else times
        xt = stream.normal(0, positions, shape)
        if job.start is None:
            xt = xt * path.sigma(times[:1]).to(device)
        else:
            xt = path.noised(job.start[rows].to(device), xt, times[:1].to(device).expand(len(xt)))
        cond, negative = (
            {name: changed(value, lambda v: v.to(device)) for name, value in select(some, rows).items()}
            for some in (job.cond, job.negative)
        )
        always = {n for n, c in self.config.model.conditions.items() if not c.dropout and n not in negative}
        own = self.denoiser()
        own = own if self.network is None else replace(own, network=self.network)
        denoiser = how.guidance.wrap(own, job.weak, always, negative)
        if job.start is not None and job.keep is not None:
            denoiser = Inpaint(denoiser, job.start[rows].to(device), job.keep[rows].to(device))
        if self.correct is not None:
            denoiser = self.correct(denoiser, rows)
        with torch.inference_mode():
            yield from how.sampler.run(
                denoiser, path, xt, times, cond, lambda step: stream.normal(step + 1, positions, shape)
            )

    def _data_size(self, space: tuple[int, ...]) -> tuple[int, ...]:
        return self.config.codec.data_size(space)

    def _batch(self, batch: int | None, space: tuple[int, ...]) -> int:
        if batch is not None:
            return _positive("batch", batch)
        return max(1, TOKENS_AT_ONCE // prod(grid_of(space, self.config.model.patch)))


def load(path: Path | str, device: torch.device | str | None = None) -> Pipeline:
    """Open a run or an exported folder: `anydit.load("runs/digits").sample(16, {"label": 3})`.

    `device`: None takes a GPU if there is one. No code named in the folder is imported.

    Raises:
        ValueError: the folder is not there or not whole, or its weights are damaged or not those of its config.
    """
    folder = Path(path)
    pipeline, file = Pipeline(load_config(folder)), config_file(folder)
    load_strictly(pipeline.model, load_weights(folder), folder)
    if pipeline.codec.state_dict():
        load_strictly(pipeline.codec, load_beside(file, CODEC_FILE), folder / CODEC_FILE)
    return pipeline.to(find_device(device))


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected at least 1")
    return value
