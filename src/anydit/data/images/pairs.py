"""Two handwritten digits on one canvas, and a sentence that says which they are and where: nothing else tells."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from anydit.config import check_at_least, config
from anydit.data.base import Data, Facts, Part, Samples
from anydit.data.images.public import Digits
from anydit.tensors import Batch, Stream, per_sample

DIGIT, CANVAS = 8, 16
"""Pixels along a side."""

PLACES = ((4, 4), (2, 4), (4, 2), (4, 6), (6, 4))
"""Of the two digits, along the axis that the text does not speak of; in opposite corners both axes would be told."""

HELD_OUT_SHARE = 0.15
"""Of the ordered pairs: so many are never seen in training, whichever of their digits is named first."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

RELATIONS = (("above", "below"), ("left of", "right of"))
"""By axis: what the first digit is to the second, and the second to the first."""

PHRASINGS = (
    "{A} {r} {B}",
    "{b}, and {r} it {a}",
    "{a} {r} {b}",
    "there is {B}, and {r} it there is {A}",
    "{r} the {b} there is {A}",
    "the {a} is {r} the {b}",
    "here is {A} {r} {B}",
    "{A} placed {r} {B}",
    "{A} is {r} {B}",
)
"""What is said of `a`, which stands in relation `r` to `b`; the last one is held out of training."""

NEW_PHRASING = len(PHRASINGS) - 1


class Told(NamedTuple):
    """What a text says: along which axis (0 is down, 1 is right) which digit comes first and which second, and how."""

    axis: Int[Tensor, " b"]
    first: Int[Tensor, " b"]
    second: Int[Tensor, " b"]
    phrasing: Int[Tensor, " b"]


@config
class DigitPairs(Data):
    """Canvases of 16x16 with two of scikit-learn's digits, values 0 to 16, and texts like "a three above a nine".

    Sample i of a part is a pure function of i; there are `count` to train on, and `held_out_count` of pairs or in a
    phrasing that training never has, of digits that it never has either.
    """

    count: int = 50_000
    held_out_count: int = 2000

    def __post_init__(self) -> None:
        check_at_least("count", self.count, 1)
        check_at_least("held_out_count", self.held_out_count, 1)

    def open(self, part: Part) -> Samples:
        return PairSamples(part, self.count if part == "train" else self.held_out_count, Digits().open(part))


@config
class PairHalves(Data):
    """Halves of such canvases as `PairSamples.cut` makes them, by their digit: what a judge of pairs learns from.

    Every eighth is cut along the wrong axis, and shows no digit, or two, or parts of them.
    """

    count: int = 50_000

    def open(self, part: Part) -> Samples:
        pairs = DigitPairs(count=self.count, held_out_count=self.count).open(part)
        assert isinstance(pairs, PairSamples)
        return HalfSamples(pairs)


@dataclass(frozen=True)
class PairSamples:
    """One part of the pairs; their texts can be checked."""

    part: Part
    count: int
    digits: Samples

    @property
    def facts(self) -> Facts:
        return Facts(1, (CANVAS, CANVAS), texts=("text",))

    def __len__(self) -> int:
        return self.count

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        told = self.told(ids)
        x = torch.zeros(len(ids), 1, CANVAS, CANVAS)
        places = torch.tensor(PLACES)[self._drawn("places", ids, len(PLACES))]
        sample, within = torch.arange(len(ids))[:, None, None], torch.arange(DIGIT)
        for k, digit in enumerate((told.first, told.second)):
            along, across = torch.full_like(ids, k * DIGIT), places[:, k]
            top, left = torch.where(told.axis == 0, along, across), torch.where(told.axis == 0, across, along)
            rows, columns = (top[:, None] + within)[:, :, None], (left[:, None] + within)[:, None]
            x[sample, 0, rows, columns] = self._written(digit, f"hand {k}", ids)
        return Batch(x, {}, ids, {"text": self._texts(told, self._drawn("subject", ids, 2))})

    def told(self, ids: Int[Tensor, " b"]) -> Told:
        """What the text of each sample says."""
        table = _table(self.part)
        return Told(*table[self._drawn("told", ids, len(table))].unbind(1))

    @property
    def pairs(self) -> Int[Tensor, "n 3"]:
        """The axes and ordered pairs of digits that this part's texts may tell of."""
        return _table(self.part)[:, :3].unique(dim=0)

    @property
    def parts(self) -> Data:
        return PairHalves()

    def cut(self, x: Float[Tensor, "b 1 h w"], ids: Int[Tensor, " b"]) -> Float[Tensor, "b 2 1 h w"]:
        return halves(x, self.told(ids).axis)

    def shows(self, ids: Int[Tensor, " b"]) -> Int[Tensor, "b 2"]:
        told = self.told(ids)
        return torch.stack([told.first, told.second], dim=1)

    def _drawn(self, what: str, ids: Int[Tensor, " b"], high: int) -> Int[Tensor, " b"]:
        return Stream(0, f"pairs {self.part} {what}").integers(0, ids, high)

    def _written(self, digit: Int[Tensor, " b"], what: str, ids: Int[Tensor, " b"]) -> Float[Tensor, "b 8 8"]:
        """One of the part's images of each digit."""
        images, begin = self._by_digit
        chosen = self._drawn(what, ids, 2**31) % (begin[digit + 1] - begin[digit])
        return images[begin[digit] + chosen]

    @cached_property
    def _by_digit(self) -> tuple[Float[Tensor, "n 8 8"], Int[Tensor, " 11"]]:
        """The images in the order of their digits, and where each digit begins and the last one ends."""
        read = self.digits.read(torch.arange(len(self.digits)))
        label = read.tensor("label")
        counts = label.bincount(minlength=len(NUMBERS))
        return read.x[label.argsort(stable=True), 0], F.pad(counts.cumsum(0), (1, 0))

    def _texts(self, told: Told, subject: Int[Tensor, " b"]) -> list[str]:
        rows = torch.stack([*told, subject], dim=1).tolist()
        return [_said(axis, (first, second), i, PHRASINGS[phrasing]) for axis, first, second, phrasing, i in rows]


@dataclass(frozen=True)
class HalfSamples:
    """Both halves of every pair."""

    pairs: PairSamples

    @property
    def facts(self) -> Facts:
        return Facts(1, (CANVAS, CANVAS), {"digit": (*"0123456789", "none")})

    def __len__(self) -> int:
        return 2 * len(self.pairs)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        pair, half, sample = ids // 2, ids % 2, torch.arange(len(ids))
        axis, wrong = self.pairs.told(pair).axis, pair % 8 == 0
        x = halves(self.pairs.read(pair).x, torch.where(wrong, 1 - axis, axis))[sample, half]
        digit = self.pairs.shows(pair)[sample, half]
        return Batch(x, {"digit": digit.masked_fill(wrong, len(NUMBERS))}, ids)


def halves(x: Float[Tensor, "b 1 h w"], axis: Int[Tensor, " b"]) -> Float[Tensor, "b 2 1 h w"]:
    """Each canvas cut across an axis; each half in the middle of a canvas of its own."""
    quarter = CANVAS // 4
    down = F.pad(rearrange(x, "b c (k h) w -> b k c h w", k=2), (0, 0, quarter, quarter))
    right = F.pad(rearrange(x, "b c h (k w) -> b k c h w", k=2), (quarter, quarter))
    return torch.where(per_sample(axis == 0, down), down, right)


def _said(axis: int, digits: tuple[int, int], subject: int, phrasing: str) -> str:
    """The sentence whose subject is the first digit (0) or the second (1)."""
    a, b = NUMBERS[digits[subject]], NUMBERS[digits[1 - subject]]
    return phrasing.format(a=a, b=b, A=_with_article(a), B=_with_article(b), r=RELATIONS[axis][subject])


def _with_article(number: str) -> str:
    return f"an {number}" if number == "eight" else f"a {number}"


def _table(part: Part) -> Int[Tensor, "n 4"]:
    """All that texts of a part say, a row for each: those of training, or those that training never has."""
    every = torch.cartesian_prod(torch.arange(2), torch.arange(10), torch.arange(10), torch.arange(len(PHRASINGS)))
    pair = every[:, 0] * 100 + every[:, 1] * 10 + every[:, 2]
    place = Stream(0, "held-out pairs").uniform(0, torch.arange(200)).argsort().argsort()
    unseen = (place < HELD_OUT_SHARE * 200)[pair] | (every[:, 3] == NEW_PHRASING)
    return every[unseen if part == "held_out" else ~unseen]
