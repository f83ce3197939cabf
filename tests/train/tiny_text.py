"""Digits with texts, and a recipe that trains on them in a second."""

from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from anydit.codecs.text import TextEncoder
from anydit.config import config
from anydit.data import Data, Digits, Facts, Samples
from anydit.data.base import Part
from anydit.model.conditioning import Label
from anydit.model.text import Text
from anydit.tensors import Batch
from anydit.train.recipe import Recipe
from tests.train.tiny import tiny

SAID = ("a nine", "the three", "a seven of the left", "")


@config
class Captioned(Data):
    """Digits with texts that say nothing of them."""

    said: tuple[str, ...] = SAID

    def open(self, part: Part) -> Samples:
        return CaptionedSamples(Digits().open(part), self.said)


@dataclass(frozen=True)
class CaptionedSamples:
    digits: Samples
    said: tuple[str, ...]

    @property
    def facts(self) -> Facts:
        return replace(self.digits.facts, texts=("text",))

    def __len__(self) -> int:
        return len(self.digits)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        return replace(self.digits.read(ids), texts={"text": [self.said[i % len(self.said)] for i in ids.tolist()]})


def captioned(folder: Path, text: Text = Text(), **data: tuple[str, ...]) -> Recipe:  # noqa: B008, a frozen config
    """`tiny`, told texts too."""
    model = replace(tiny().model, conditions={"label": Label(), "text": text})
    encoders = {"text": TextEncoder(str(folder), max_tokens=12)}
    return replace(tiny(), model=model, encoders=encoders, data=Captioned(**data))
