"""How good are a pipeline's samples, or a codec's reconstructions: figures, each beside what held-out data reach."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from anydit.codecs import Codec
from anydit.codecs.base import in_parts as in_codec_parts
from anydit.config import Json, to_json
from anydit.data import Data, View
from anydit.data.sheet import side_by_side
from anydit.evaluate import classifier, compare, pictures, texts
from anydit.evaluate.classifier import Classifier
from anydit.evaluate.clock import Clock
from anydit.evaluate.compare import Figure
from anydit.evaluate.distances import Neighbours
from anydit.evaluate.features import AT_ONCE, CONV, Features, RandomNetwork, Through, in_parts, seen
from anydit.evaluate.own import own
from anydit.evaluate.sets import Progress, Sets, clipped, draw, of_codec, opened, spread
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline

SHOWN = 50
"""Samples beside their reconstructions."""

REFERENCE_AT_MOST = 50_000
"""Training samples whose features are taken."""


@dataclass(frozen=True)
class Report:
    """Figures by name, and all that is needed to read and repeat them; `pictures` are for the page, not for JSON.

    `network_calls` is per sample, and counts the condition and the null of guidance as two. `confusion[i][j]`: how many
    samples of class i were taken for class j. `subject`: what the figures are of.
    """

    figures: Mapping[str, Figure]
    features: str
    counts: Mapping[str, int]
    settings: Json
    seconds: Mapping[str, float]
    network_calls: float
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    pictures: Mapping[str, Image] = field(default_factory=dict[str, Image], repr=False, compare=False)
    subject: str = "samples"

    def json(self) -> Json:
        """Plain JSON values, without the pictures."""
        content: Json = to_json(replace(self, pictures={}))
        for name, figure in self.figures.items():
            content["figures"][name]["ratio"] = figure.ratio
        return {name: value for name, value in content.items() if name not in {"pictures", "type"}}


@dataclass(frozen=True)
class Judged:
    """What the classifier found: nothing, unless the samples were asked to be of a class."""

    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])
    pictures: dict[str, Image] = field(default_factory=dict[str, Image])
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()


def evaluate(
    pipeline: Pipeline,
    data: Data,
    *,
    features: Features | None = None,
    samples: int | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: Progress = lambda stage, done: None,
) -> Report:
    """Draw samples under the held-out data's own conditions, and compare them and held-out data with training data.

    Both sides of a figure count the same number of samples. `samples`: how many to draw in all; where there are fewer
    held-out ones, they are several draws of one size, but for one sample, and figures are the draws' mean. `features`:
    None is those of a classifier trained on the spot. `sampling`: instead of the saved one.

    Raises:
        ValueError: the data are too few, or not of the kind that the pipeline makes.
    """
    how, clock = sampling or pipeline.config.sampling, Clock()
    pipeline.config.check(how)  # before any work
    sets = replace(opened(pipeline, data, samples), progress=progress)
    _try(features, sets)
    if not sets.view.placed:
        return _of_its_own(pipeline, sets, how, data, seed, progress)
    judge = None if features and not sets.asked else _judge(sets, data, pipeline.device, progress)
    space, notes = _space(features, judge, sets, pipeline.device)
    clock.lap("classifier")
    x, calls = draw(pipeline, sets, how, seed, progress)
    clock.lap("samples")
    figures, used = _in_features(space, x, sets, progress)
    clock.lap("features")
    near, copied = _neighbours(x, sets, progress)
    clock.lap("neighbours")
    judged, followed = _judged(judge, sets, x), texts.followed(sets, x, pipeline.device, progress)
    if followed:
        clock.lap("judge of texts")
    mine = own(sets.view, x, sets)
    return Report(
        figures=judged.figures | followed | {**mine.figures} | figures | copied,
        features=space.name,
        counts=_counts(sets, x) | used,
        settings=_settings(how, seed, data),
        seconds=clock.seconds,
        network_calls=calls,
        notes=(*notes, *_unlike(sets, judge, used["features"]), *mine.notes),
        classes=judged.classes,
        confusion=judged.confusion,
        pictures=pictures.shown(sets, x, near) | judged.pictures | {**mine.pictures},
    )


def _of_its_own(pipeline: Pipeline, sets: Sets, how: Sampling, data: Data, seed: int, progress: Progress) -> Report:
    """The report on samples whose places mean nothing, as those of sets: the figures of the modality alone."""
    clock = Clock()
    x, calls = draw(pipeline, sets, how, seed, progress)
    clock.lap("samples")
    mine = own(sets.view, x, sets)
    clock.lap("figures")
    return Report(
        figures=mine.figures,
        features="the figures of their kind",
        counts=_counts(sets, x) | {"reference": len(sets.train)},
        settings=_settings(how, seed, data),
        seconds=clock.seconds,
        network_calls=calls,
        notes=(
            *sets.notes,
            *mine.notes,
            "Samples are sets: no features and no distances place by place tell them apart.",
        ),
        pictures=pictures.sheets(sets, x) | {**mine.pictures},
    )


def evaluate_codec(
    codec: Codec,
    view: View,
    data: Data,
    device: torch.device,
    *,
    features: Features | None = None,
    samples: int | None = None,
    progress: Progress = lambda stage, done: None,
) -> Report:
    """Encode and decode held-out data, compare both, and compare what comes back with training data.

    `samples`: how many of the held-out ones (all, up to a limit). `features`: as in `evaluate`.

    Raises:
        ValueError: the data are too few, or not of the kind that the codec takes.
    """
    clock, sets = Clock(), of_codec(view, data, samples)
    judge = None if features and not sets.asked else _judge(sets, data, device, progress)
    space, notes = _space(features, judge, sets, device)
    clock.lap("classifier")
    with torch.inference_mode():
        real = sets.filled(sets.real.x)
        x = in_codec_parts(lambda part: codec.decode(codec.encode(part.to(device))).float().cpu(), real)
    x = clipped(view, x)
    clock.lap("reconstructions")
    figures, used = _in_features(space, x, sets, progress)
    clock.lap("features")
    judged = _judged(judge, sets, x)
    return Report(
        figures=compare.reconstruction(x, real, view.bounds) | judged.figures | figures,
        features=space.name,
        counts=_counts(sets, x) | used,
        settings={"data": to_json(data)},
        seconds=clock.seconds,
        network_calls=0,
        notes=(*notes, *_one_of_several(sets), *_few(sets.count, used["features"])),
        classes=judged.classes,
        confusion=judged.confusion,
        pictures={"reconstructions": side_by_side(view, real[:SHOWN], x[:SHOWN])} | judged.pictures,
        subject="reconstructions",
    )


def _try(features: Features | None, sets: Sets) -> None:
    """Features that cannot see such samples say so before any work."""
    if features is not None:
        features(sets.filled(sets.real.x[:2]))


def _settings(how: Sampling, seed: int, data: Data) -> Json:
    return {"sampling": to_json(how), "seed": seed, "data": to_json(data)}


def _neighbours(x: Float[Tensor, "n c *space"], sets: Sets, progress: Progress) -> tuple[Neighbours, dict[str, Figure]]:
    """The nearest training samples of all samples, then of held-out data; and what they say of copies."""
    queries = sets.filled(torch.cat([x, sets.real.x]))
    near = compare.nearest(queries, sets.train, lambda done: progress("neighbours", done), seen(sets.view))
    return near, compare.memorisation(near.distance[: len(x)], near.distance[len(x) :])


def _counts(sets: Sets, x: Float[Tensor, "n c *space"]) -> dict[str, int]:
    return {"samples": len(x), "draws": len(sets.sizes), "held_out": sets.count, "training": len(sets.train)}


def _judge(sets: Sets, data: Data, device: torch.device, progress: Progress) -> Classifier | None:
    """The classifier, where there are classes to tell apart; there are no convolutions over more axes."""
    see = seen(sets.view)
    if sets.label is None or see(sets.filled(sets.real.x[:1])).ndim - 2 not in CONV:
        return None
    return classifier.trained(data, sets.train, sets.label, device, lambda done: progress("classifier", done), see)


def _space(
    features: Features | None, judge: Classifier | None, sets: Sets, device: torch.device
) -> tuple[Features, list[str]]:
    """The features to compare in, and what must be said about them."""
    chosen = features or judge
    if chosen is not None:
        return chosen, []
    see = seen(sets.view)
    chosen = Through(see, RandomNetwork(see(sets.filled(sets.read_train(spread(len(sets.train), 2000)))), device))
    return chosen, [
        f"The data has no labels, so figures are in {chosen.name}: they tell noise, blur and texture from real data, "
        "but know nothing of what is shown."
    ]


def _in_features(
    space: Features, x: Float[Tensor, "n c *space"], sets: Sets, progress: Progress
) -> tuple[dict[str, Figure], dict[str, int]]:
    """The figures in features, and how many training samples and features they rest on."""
    ids = spread(len(sets.train), REFERENCE_AT_MOST)
    parts = list[Tensor]()
    for some in ids.split(AT_ONCE):
        parts.append(space(sets.filled(sets.read_train(some))))
        progress("features", (int(some[-1]) + 1) / len(sets.train))
    reference = torch.cat(parts)
    drawn = [in_parts(space, some) for some in sets.filled(x).split(sets.sizes)]
    figures = compare.in_features(drawn, in_parts(space, sets.filled(sets.real.x)), reference)
    return figures, {"reference": len(reference), "features": reference.shape[1]}


def _judged(judge: Classifier | None, sets: Sets, x: Float[Tensor, "n c *space"]) -> Judged:
    """What the classifier sees in samples, if they were asked to be of a class."""
    if judge is None or not sets.asked:
        return Judged()
    asked = sets.labels[sets.rows]
    seen, held = (judge.predict(sets.filled(some)) for some in (x, sets.real.x))
    table, floor = (
        compare.confusion(asked, seen, len(judge.classes)),
        compare.confusion(sets.labels, held, len(judge.classes)),
    )
    return Judged(
        {"accuracy": compare.accuracy(asked, seen, sets.labels, held)},
        {"classes": pictures.confusion_plot(table, floor, judge.classes)},
        judge.classes,
        tuple(tuple(row) for row in table.tolist()),
    )


def _unlike(sets: Sets, judge: Classifier | None, features: int) -> list[str]:
    """What keeps figures from being as those of other reports."""
    return [*_one_of_several(sets), *_unjudged(sets, judge), *_few(sets.count, features)]


def _one_of_several(sets: Sets) -> list[str]:
    """Of several sizes figures are of one, and of several labels one is judged."""
    names = [name for name, classes in sets.train.facts.classes.items() if len(classes) > 1]
    if len(names) < 2:
        return [*sets.notes]
    return [
        *sets.notes,
        f"The data has the labels {', '.join(names)}: the classifier knows, and judges, {sets.label} alone.",
    ]


def _unjudged(sets: Sets, judge: Classifier | None) -> list[str]:
    if judge is not None or not sets.asked:
        return []
    return [
        f"No classifier sees {sets.real.x.ndim - 2} axes: whether samples are of the class asked for is not judged."
    ]


def _few(count: int, dim: int) -> list[str]:
    if count > dim:
        return []
    return [
        f"Only {count} held-out samples for {dim} features: their covariance is singular, so Fréchet distances are "
        "too large, the floor's like the samples'; compare the two, and trust the kernel distance more."
    ]
