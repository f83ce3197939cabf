"""What is compared: the training part, a held-out part, and samples under the held-out part's conditions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.data import Data, Samples, View
from anydit.data.buckets import by_size, shares
from anydit.diffusion.samplers import Step
from anydit.inference.conditions import Given
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.tensors import MASK, Batch, Cond, changed, existing

DRAW_AT_MOST = 10_000
"""Samples in one draw, and held-out samples that are compared with."""

VALUES_AT_MOST = 2**28
"""Numbers in all samples together, to stay within a machine's memory."""

ENOUGH = 2000
"""Samples to draw at least where there are fewer held-out ones: several draws, whose figures are averaged."""

LEAST = 20
"""Held-out and training samples below which no figure means anything."""

Progress = Callable[[str, float], None]
"""Told what is being done, and which part of it is done, from 0 to 1."""


@dataclass(frozen=True)
class Sets:
    """Training data, held-out data; `real`, as many of the latter as there are in a draw; `drawn`, samples in all.

    `label`: by which samples are judged; `asked`: whether the pipeline is conditioned on it; `told`: on a text. Where a
    sample does not exist it is NaN; `filler`: what the data have there in each channel, None if all exist whole. All of
    them are of one size; `notes`: what must be said of that where the data have others, too. `progress`: told of what
    takes long.
    """

    train: Samples
    held: Samples
    real: Batch
    drawn: int
    label: str | None
    asked: bool
    told: bool
    view: View
    filler: Tensor | None = None
    notes: tuple[str, ...] = ()
    progress: Progress = lambda stage, done: None

    @property
    def count(self) -> int:
        """Samples on each side of a figure; of the other side, in some draws, one less."""
        return len(self.real.x)

    @property
    def sizes(self) -> list[int]:
        """Samples in each draw, as even as can be."""
        draws = -(-self.drawn // self.count)
        return [(self.drawn + draws - 1 - i) // draws for i in range(draws)]

    @property
    def rows(self) -> Int[Tensor, " n"]:
        """For each sample of all draws, the held-out one under whose conditions it is drawn."""
        return torch.cat([torch.arange(size) for size in self.sizes])

    @property
    def classes(self) -> tuple[str, ...]:
        """The label's classes by name."""
        return () if self.label is None else self.train.facts.classes[self.label]

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The class of each held-out sample."""
        assert self.label is not None, "asked only where there is a label"
        return self.real.tensor(self.label)

    def read_train(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n c *space"]:
        """Training samples as they would be written."""
        return as_written(self.view, self.train.read(ids))

    def filled(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """Samples as features see them, which take no NaN: with the data's own filler where they do not exist."""
        if self.filler is None:
            return x
        return torch.where(x.isnan().all(1, keepdim=True), self.filler.reshape(-1, *(1,) * (x.ndim - 2)), x)


def opened(pipeline: Pipeline, data: Data, samples: int | None) -> Sets:
    """Both parts of the data, and how many samples to draw.

    Raises:
        ValueError: the data are too few, or not of the kind that the pipeline makes.
    """
    train, held, notes = _parts(data)
    config, facts = pipeline.config, train.facts
    made, size = config.model.channels, config.model.size
    if made is not None and config.codec.latent_channels(facts.channels) != made:
        raise ValueError(f"data: got samples of {facts.channels} channels, expected {made} (in the pipeline's latents)")
    if size is not None and len(facts.size) != len(size):
        raise ValueError(f"data: got samples of size {facts.size}, expected {len(size)} axes, as the pipeline makes")
    most = max(LEAST, VALUES_AT_MOST // (facts.channels * prod(facts.size)))
    if samples is not None and not LEAST <= samples <= most:
        limit = f"at least {LEAST}" if samples < LEAST else f"at most {most}, which is what memory holds of this size"
        raise ValueError(f"samples: got {samples}, expected {limit}")
    whole = min(len(held), DRAW_AT_MOST, most)
    drawn = samples or whole * max(1, min(-(-ENOUGH // whole), most // whole))
    draws = -(-drawn // whole)
    count = -(-drawn // draws)  # draws of about equal size: figures depend on it
    labels = [name for name, classes in facts.classes.items() if len(classes) > 1]
    asked = [n for n in labels if isinstance(config.model.conditions.get(n), Label)]
    label = (asked + labels)[0] if labels else None
    told = any(name in config.model.conditions for name in facts.texts)
    real = held.read(spread(len(held), count))
    filler = _filler(real)
    real = replace(real, x=as_written(config.view, real))
    return Sets(train, held, real, drawn, label, bool(asked), told, config.view, filler, notes)


def of_codec(view: View, data: Data, samples: int | None) -> Sets:
    """Both parts of the data, and how many of the held-out samples to reconstruct.

    Raises:
        ValueError: the data are too few.
    """
    train, held, notes = _parts(data)
    facts = train.facts
    most = min(len(held), DRAW_AT_MOST, max(LEAST, VALUES_AT_MOST // (facts.channels * prod(facts.size))))
    if samples is not None and not LEAST <= samples <= most:
        raise ValueError(f"samples: got {samples}, expected {LEAST} to {most}, the held-out ones that are compared")
    count = samples or most
    label = next((name for name, classes in facts.classes.items() if len(classes) > 1), None)
    real = held.read(spread(len(held), count))
    filler = _filler(real)
    real = replace(real, x=as_written(view, real))
    return Sets(train, held, real, count, label, label is not None, told=False, view=view, filler=filler, notes=notes)


def _parts(data: Data) -> tuple[Samples, Samples, tuple[str, ...]]:
    """Training and held-out samples of one size, enough of both; and what must be said where the data have several.

    It is the size of the most held-out samples, of those of which there is enough to train on.
    """
    trains, helds = data.open("train"), data.open("held_out")
    of_size = {part.facts.size: part for part in by_size(trains)}
    both = [(of_size[held.facts.size], held) for held in by_size(helds) if held.facts.size in of_size]
    if not both:
        raise ValueError(f"data: got held-out samples of {shares(helds)}, expected some of {shares(trains)}")
    train, held = next((pair for pair in both if min(map(len, pair)) >= LEAST), both[0])
    several = len(of_size) > 1
    for part, some in (("training", train), ("held-out", held)):
        if len(some) < LEAST:
            of = f" of any of the sizes {shares(trains)}" if several else ""
            most = f"at most {len(some)}" if several else f"{len(some)}"
            raise ValueError(f"data: got {most} {part} samples{of}, expected at least {LEAST} to compare with")
    if not several:
        return train, held, ()
    size, share = "x".join(map(str, held.facts.size)), len(held) / len(helds)
    note = (
        f"Figures and pictures are of the size {size} alone, which {share:.0%} of the held-out data have. The training "
        f"data have the sizes {shares(trains)}."
    )
    return train, held, (note,)


def draw(
    pipeline: Pipeline, sets: Sets, how: Sampling, seed: int, progress: Progress
) -> tuple[Float[Tensor, "n c *space"], float]:
    """Samples under the held-out conditions, draw after draw; and how often the network was called for each.

    Under guidance the condition and the null count as two calls.

    Raises:
        ValueError: samples hold NaN or infinity.
    """
    told, n, steps_done, calls = {*pipeline.config.model.conditions, MASK}, sets.drawn, 0, 0
    cond: dict[str, Given] = {
        k: changed(v, lambda part: part[sets.rows]) for k, v in sets.real.cond.items() if k in told
    }
    cond |= {k: [texts[i] for i in sets.rows.tolist()] for k, texts in sets.real.texts.items() if k in told}

    def count(network: object, args: tuple[Tensor, Tensor, Cond]) -> None:
        nonlocal calls
        calls += len(args[0])

    def on_step(step: Step) -> None:
        nonlocal steps_done
        steps_done += len(step.xt)
        progress("samples", steps_done / (n * step.steps))

    hook = pipeline.model.register_forward_pre_hook(count)
    try:
        x = pipeline.sample(n, cond, sampling=how, seed=seed, size=sets.train.facts.size, on_step=on_step)
    finally:
        hook.remove()
    good = x.isfinite().all(dim=1)
    good = good | ~sets.real.tensor(MASK)[sets.rows] if MASK in sets.real.cond else good
    bad = int((~good.flatten(1).all(dim=1)).sum())
    if bad:
        raise ValueError(
            f"samples: got NaN or infinity in {bad} of {n}, expected finite values; "
            "training diverged, or this sampler needs more steps or less guidance"
        )
    return clipped(sets.view, x), calls / n


def clipped(view: View, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
    """Samples with the values that a file of them would hold, as images and videos between black and white."""
    return x.clamp(*view.bounds) if view.clips and view.bounds is not None else x


def as_written(view: View, batch: Batch) -> Float[Tensor, "n c *space"]:
    """Samples of the data as a file of them would hold them, NaN where they do not exist."""
    return existing(clipped(view, batch.x), batch.cond)


def _filler(real: Batch) -> Float[Tensor, " c"] | None:
    """What stands in each channel where a sample does not exist."""
    if MASK not in real.cond:
        return None
    nowhere = real.x.transpose(0, 1)[:, ~real.tensor(MASK)]
    return nowhere[:, 0] if nowhere.shape[1] else real.x.new_zeros(real.x.shape[1])


def spread(count: int, wanted: int) -> Int[Tensor, " n"]:
    """At most `wanted` of the numbers below `count`, evenly spread."""
    return torch.arange(min(count, wanted)) * count // min(count, wanted)
