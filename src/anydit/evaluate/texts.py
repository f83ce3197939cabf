"""Whether samples show what their texts say, for data whose texts can be checked."""

from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.data.base import Checkable
from anydit.evaluate import classifier
from anydit.evaluate.classifier import Classifier
from anydit.evaluate.compare import Figure
from anydit.evaluate.features import See, as_it_is
from anydit.evaluate.features import seen as seen_of
from anydit.evaluate.sets import Progress, Sets


def followed(sets: Sets, x: Float[Tensor, "n c *space"], device: torch.device, progress: Progress) -> dict[str, Figure]:
    """How often all that a text says is seen in its sample, and in that of another text; nothing without such texts."""
    held = sets.held
    if not sets.told or not isinstance(held, Checkable):
        return {}
    judge, real = judge_of(held, device, progress, seen_of(sets.view)), sets.filled(sets.real.x)
    x = sets.filled(x)
    ids = sets.real.ids
    others = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))]
    found = {name: _share(judge, held, x, of[sets.rows]) for name, of in (("own", ids), ("other", others))}
    floor = {name: _share(judge, held, real, of) for name, of in (("own", ids), ("other", others))}
    error = {name: sqrt(share * (1 - share) / len(x)) for name, share in found.items()}
    meaning = "share of which a classifier sees in every part what the text says"
    return {
        "text": Figure("Text followed", found["own"], floor["own"], error["own"], meaning),
        "shuffled": Figure(
            "Text of another sample",
            found["other"],
            floor["other"],
            error["other"],
            "the same with the texts shuffled among the samples: what chance gives",
        ),
    }


def judge_of(held: Checkable, device: torch.device, progress: Progress, see: See = as_it_is) -> Classifier:
    """The classifier of single parts, trained on parts of real samples, or read from the cache; `see`: of parts."""
    samples = held.parts.open("train")
    (label,) = samples.facts.classes
    return classifier.trained(held.parts, samples, label, device, lambda done: progress("judge of texts", done), see)


def right(
    judge: Classifier, held: Checkable, x: Float[Tensor, "n c *space"], ids: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """1 for each sample that shows in every part what the text of the id beside it says, else 0."""
    return (seen(judge, held, x, ids) == held.shows(ids)).all(dim=1).float()


def seen(
    judge: Classifier, held: Checkable, x: Float[Tensor, "n c *space"], ids: Int[Tensor, " n"]
) -> Int[Tensor, "n parts"]:
    """The class of each part of each sample, cut as the text of the id beside it says."""
    parts = held.cut(x, ids)
    return judge.predict(parts.flatten(0, 1)).reshape(parts.shape[:2])


def _share(judge: Classifier, held: Checkable, x: Float[Tensor, "n c *space"], ids: Int[Tensor, " n"]) -> float:
    return float(right(judge, held, x, ids).mean())
