"""What a recipe leaves open, filled in from the data: scales, sizes, classes, widths, and the codecs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import TypeVar

import torch
from torch import Tensor

from anydit.codecs import CodecConfig, Normalize, Survey, TextEncoder
from anydit.codecs.base import CPU, apart
from anydit.codecs.normalize import moments
from anydit.config import Json, filled
from anydit.data import Facts, Samples, View
from anydit.data.buckets import by_bucket, by_size
from anydit.data.changes import changes
from anydit.inference.config import PipelineConfig
from anydit.inference.lengths import Lengths
from anydit.model.conditioning import Condition, Field, Label, Numbers, Text
from anydit.tensors import Batch, Tokens, existing
from anydit.train.base import Note

LOOKED_AT, ALL_BUT = 64, 0.1
"""Samples whose contrast is measured, and the share of them that may have less than what is saved."""

R = TypeVar("R", bound=PipelineConfig)
C = TypeVar("C", bound=CodecConfig | TextEncoder)


def resolved(recipe: R, samples: Samples, note: Note = print, device: torch.device = CPU) -> R:
    """`recipe` with all that it leaves to the data filled in.

    A condition that leaves to the data what it is, is left out where the data has none. `note` is told of those, and of
    what the data knows and the model is not told. `device`: where a codec's network runs to be measured.

    Raises:
        ValueError: the recipe says something that the data contradicts.
    """
    facts = samples.facts
    view = recipe.view.like(facts)
    codec = recipe.codec.measured(surveyed(changes(samples, recipe.change_of), view, device))
    channels, size = codec.latent_channels(facts.channels), codec.latent_size(facts.size)
    model = recipe.model
    for name, got, expected in (("channels", model.channels, channels), ("size", model.size, size)):
        if got is not None and got != expected:
            whose = "data has" if isinstance(codec, Normalize) else "latents have (None takes what they have)"
            raise ValueError(f"model.{name}: got {got}, expected {expected}, which the {whose}")
    conditions, absent = dict[str, Condition](), list[str]()
    encoders = {name: _measured(name, encoder) for name, encoder in recipe.encoders.items() if name in facts.texts}
    for name, condition in model.conditions.items():
        if name in facts.conditions:
            conditions[name] = _resolved(name, condition, samples, encoders.get(name), channels)
        elif _open(condition):
            absent.append(name)
        else:
            check_there([name], facts)
    if absent:
        note(f"The model is not conditioned on {' or '.join(absent)}: the data has none.")
    for name in facts.conditions:
        if name not in model.conditions:
            kind = _kind(name, facts).__name__
            note(f"The model is not told of {name}, which the data has; --model.conditions.{name} {kind} tells it.")
    if size != facts.size and any(isinstance(c, Field) and not c.coded for c in conditions.values()):
        raise ValueError(
            f"model.conditions: got a Field of size {facts.size} beside latents of {size}, expected one that is coded"
        )
    model = replace(model, channels=channels, size=size, conditions=conditions)
    for part in by_size(samples):
        replace(model, size=codec.latent_size(part.facts.size))  # refuses a size that the network cannot take
    lengths = recipe.lengths or Lengths.of(facts)
    fields = {
        name: _field_codec(name, own, codec, surveyed(samples, view, device, name), facts)
        for name, own in _field_codecs(recipe).items()
        if name in conditions
    }
    contrast = _contrast(surveyed(samples, view, device)) if recipe.contrast is None else recipe.contrast
    return replace(recipe, model=model, codec=codec, field_codecs=fields, encoders=encoders, view=view,
                   lengths=lengths, contrast=contrast)  # fmt: skip


def check_there(names: Iterable[str], facts: Facts) -> None:
    """Refuse conditions that the data has not."""
    for name in names:
        if name not in facts.conditions:
            has = ", ".join(facts.conditions) or "none"
            raise ValueError(f"model.conditions: got {name}, expected one of: {has}, which the data has")


def refilled(recipe: R, before: Json) -> R:
    """`recipe` with what a run before it, of the same recipe, measured on the data for codecs and encoders."""

    def those(name: str, own: Mapping[str, C]) -> dict[str, C]:
        then = before.get(name, {})
        return {name: filled(one, then.get(name)) for name, one in own.items()}

    codec, fields = filled(recipe.codec, before.get("codec")), those("field_codecs", _field_codecs(recipe))
    contrast = before.get("contrast") if recipe.contrast is None else recipe.contrast
    return replace(
        recipe, codec=codec, field_codecs=fields, encoders=those("encoders", recipe.encoders), contrast=contrast
    )


def _field_codecs(recipe: PipelineConfig) -> dict[str, CodecConfig]:
    """Of fields that have their own: that of which samples are changes, too, for the codec is for changes then."""
    name, own = recipe.change_of, dict(recipe.field_codecs)
    condition = None if name is None else recipe.model.conditions[name]
    if name is not None and isinstance(condition, Field) and condition.coded and not recipe.codec.has_weights:
        own.setdefault(name, recipe.codec)
    return own


def _field_codec(name: str, own: CodecConfig, samples: CodecConfig, survey: Survey, facts: Facts) -> CodecConfig:
    """A field's codec, measured on the samples that it holds; their latents lie beside those of the `samples` codec."""
    try:
        codec = own.measured(survey)
        got = codec.latent_channels(facts.channels), *codec.latent_size(facts.size)
    except ValueError as error:
        raise ValueError(f"field_codecs.{name}: {error}") from None
    expected = samples.latent_channels(facts.channels), *samples.latent_size(facts.size)
    if got != expected:
        raise ValueError(f"field_codecs.{name}: got latents of shape {got}, expected those of samples: {expected}")
    return codec


def _measured(name: str, encoder: TextEncoder) -> TextEncoder:
    try:
        return encoder.measured()
    except ValueError as error:
        raise ValueError(f"encoders.{name}.{error}") from None


def surveyed(samples: Samples, view: View, device: torch.device, field: str | None = None) -> Survey:
    """What a codec is shown of the data, or of the samples that a field of theirs holds: bounds are the view's."""

    def shown(batch: Batch) -> Tensor:
        if field is None:
            return existing(batch.x, batch.cond)
        held = existing(batch.tensor(field), batch.cond)
        return apart(held, samples.facts.fields[field] // samples.facts.channels)

    return Survey(lambda n: map(shown, _all(samples, n)), view.bounds, device, view.per_second)


def _contrast(survey: Survey) -> float | None:
    """How far apart the least and the largest value of a sample are, of all but few; None of data without bounds."""
    if survey.bounds is None:
        return None
    each = [
        x.nan_to_num(nan=-inf).flatten(1).amax(1) - x.nan_to_num(nan=inf).flatten(1).amin(1)
        for x in survey.batches(LOOKED_AT)
    ]
    return float(torch.cat(each).quantile(ALL_BUT))


def _kind(name: str, facts: Facts) -> type[Condition]:
    """The condition that the data has by this name."""
    if name in facts.texts:
        return Text
    return Label if name in facts.classes else Numbers if name in facts.numbers else Field


def _open(condition: Condition) -> bool:
    """Whether a condition leaves to the data what it is."""
    plain = replace(condition, coded=False) if isinstance(condition, Field) else condition
    return plain == type(condition)(dropout=condition.dropout)


def _resolved(
    name: str, condition: Condition, samples: Samples, encoder: TextEncoder | None, latent_channels: int
) -> Condition:
    facts, at = samples.facts, f"model.conditions.{name}"
    kind = _kind(name, facts)
    if not isinstance(condition, kind):
        raise ValueError(f"{at}: got {type(condition).__name__}, expected {kind.__name__}, which the data has")
    if isinstance(condition, Label):
        return _with_classes(condition, facts.classes[name], at)
    if isinstance(condition, Text):
        given = samples.read(torch.zeros(1, dtype=torch.long)).cond.get(name) if encoder is None else None
        return _with_widths(condition, encoder, given, at)
    if isinstance(condition, Numbers):
        names = facts.numbers[name]
        if condition.names is not None and len(condition.names) != len(names):
            raise ValueError(f"{at}.names: got {condition.names}, expected as many as the data has: {names}")
        condition = replace(condition, names=condition.names or names)
    else:
        channels = facts.fields[name]
        if condition.coded:
            return _coded(condition, channels, facts.channels, latent_channels, at)
        if condition.channels not in (None, channels):
            raise ValueError(f"{at}.channels: got {condition.channels}, expected {channels}, which the data has")
        condition = replace(condition, channels=channels)
    if condition.complete:
        return condition
    mean, std = moments(batch.tensor(name) for batch in _all(samples))
    return replace(condition, mean=mean, std=std)


def _with_classes(condition: Label, names: tuple[str, ...], at: str) -> Label:
    if condition.classes is not None and condition.classes < len(names):
        raise ValueError(f"{at}.classes: got {condition.classes}, expected {len(names)} or more")
    if condition.classes is not None and condition.classes > len(names):
        return condition
    return replace(condition, classes=len(names), names=condition.names or names)


def _coded(condition: Field, channels: int, each: int, latents: int, at: str) -> Field:
    """A field of whole samples; its latents are on the scale of theirs, about mean 0 and deviation 1."""
    if channels % each:
        raise ValueError(f"{at}.coded: got True for {channels} channels, expected those of whole samples: {each} each")
    count = channels // each * latents
    if condition.channels not in (None, count):
        raise ValueError(f"{at}.channels: got {condition.channels}, expected {count}, which the latents have")
    return replace(condition, channels=count, mean=(0.0,) * count, std=(1.0,) * count)


def _with_widths(condition: Text, encoder: TextEncoder | None, given: Tensor | Tokens | None, at: str) -> Text:
    """A text has the widths of its encoder, or of the tokens that its data have."""
    if encoder is not None:
        widths = {"width": encoder.width, "pooled": encoder.pooled}
    elif isinstance(given, Tokens):
        widths = {"width": given.values.shape[2], "pooled": None if given.pooled is None else given.pooled.shape[1]}
    else:
        name = at.rpartition(".")[2]
        raise ValueError(
            f"{at}: got a text without an encoder, expected one: --encoders.{name} TextEncoder "
            f"--encoders.{name}.source FOLDER"
        )
    for side, width in widths.items():
        own = getattr(condition, side)
        if own not in (None, width):
            raise ValueError(f"{at}.{side}: got {own}, expected {width}, which the encoder has")
    return replace(condition, **widths)


def _all(samples: Samples, at_most: int | None = None, at_once: int = 256) -> Iterator[Batch]:
    """All samples, or at most so many, evenly spread, batch by batch; none is read before it is asked for.

    They come in order, but where they are of several sizes one size after the other.
    """
    count = len(samples)
    n = count if at_most is None else min(count, at_most)
    return (samples.read(ids) for ids in by_bucket(samples, torch.arange(n) * count // n, at_once))
