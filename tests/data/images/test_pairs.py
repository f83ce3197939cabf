"""Digit pairs: what a text says is what the canvas shows, and what is held out is never seen in training."""

import re

import pytest
import torch
from torch import Tensor

from anydit.data import DigitPairs, Digits, PairHalves
from anydit.data.base import Checkable, digest
from anydit.data.images.pairs import CANVAS, DIGIT, HELD_OUT_SHARE, NUMBERS, PHRASINGS, PairSamples, halves

WORD = {word: i for i, word in enumerate(NUMBERS)}


def opened(part: str, count: int = 400) -> PairSamples:
    samples = DigitPairs(count=count, held_out_count=count).open(part)  # pyright: ignore[reportArgumentType]
    assert isinstance(samples, PairSamples)
    return samples


def understood(text: str) -> tuple[str, int, int]:
    """Which number is above or left of which, as somebody reads it who knows none of the code."""
    a, b = (WORD[word] for word in re.findall("|".join(NUMBERS), text))
    (relation,) = re.findall("above|below|left of|right of", text)
    # "B with A above it", "B, and above it A", "above the B there is A": the one that is named last stands there.
    if re.search(r"(above|below|of) it$|(above|below|of) it |^(above|below|left of|right of)", text):
        a, b = b, a
    if relation in ("below", "right of"):
        a, b = b, a
    return "above" if relation in ("above", "below") else "left of", a, b


def box(x: Tensor) -> tuple[slice, slice]:
    """The rows and columns that hold what is not black."""
    rows, columns = (torch.nonzero(x.amax(axis))[:, 0] for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_text_says_what_the_canvas_shows(part: str) -> None:
    samples = opened(part)
    digits = Digits().open(part)  # pyright: ignore[reportArgumentType]
    real = digits.read(torch.arange(len(digits)))
    by_image = {image.numpy().tobytes(): int(d) for image, d in zip(real.x[:, 0], real.tensor("label"), strict=True)}
    batch = samples.read(torch.arange(len(samples)))
    assert batch.x.shape == (400, 1, CANVAS, CANVAS)
    assert not batch.cond
    for x, text in zip(batch.x[:, 0], batch.texts["text"], strict=True):
        relation, first, second = understood(text)
        found = []
        for k in range(2):
            across = x[k * DIGIT :][:DIGIT] if relation == "above" else x[:, k * DIGIT :][:, :DIGIT]
            pieces = [across.narrow(int(relation == "above"), at, DIGIT) for at in (2, 4, 6)]
            (whole,) = {by_image[p.numpy().tobytes()] for p in pieces if p.numpy().tobytes() in by_image}
            found.append(whole)
            assert float(across.sum()) == max(float(p.sum()) for p in pieces), "nothing else is there"
        assert found == [first, second], text


def test_every_phrasing_is_english_and_in_use() -> None:
    texts = opened("train", 3000).read(torch.arange(3000)).texts["text"]
    assert "an eight" in " ".join(texts)
    assert not re.search(r"\ba eight|\ban (?!eight)", " ".join(texts))
    forms = {re.sub("|".join(NUMBERS), "N", re.sub(r"\ban? ", "a ", text)) for text in texts}
    assert len(forms) == 4 * (len(PHRASINGS) - 1)


def test_what_is_held_out_is_never_seen_in_training() -> None:
    train, held = (opened(part, 20_000) for part in ("train", "held_out"))
    seen, new = ([understood(text) for text in part.read(torch.arange(20_000)).texts["text"]] for part in (train, held))
    unseen = set(new) - set(seen)
    assert len(set(seen)) == 200 * (1 - HELD_OUT_SHARE)
    assert len(unseen) == 200 * HELD_OUT_SHARE
    told, phrasing = held.told(torch.arange(20_000)), len(PHRASINGS) - 1
    assert not bool((train.told(torch.arange(20_000)).phrasing == phrasing).any())
    for i, what in enumerate(new):
        assert what in unseen or int(told.phrasing[i]) == phrasing
    share_of_new_pairs = sum(what in unseen for what in new) / len(new)
    assert 0.55 < share_of_new_pairs < 0.67
    for axis in ("above", "left of"):
        for place in (1, 2):
            assert {what[place] for what in seen if what[0] == axis} == set(range(10))


def test_a_sample_is_a_function_of_its_id() -> None:
    samples, again = opened("train"), opened("train", 500)
    ids = torch.tensor([7, 399, 7, 0])
    a, b = samples.read(ids), again.read(ids.flip(0))
    assert a.x.equal(b.x.flip(0))
    assert a.texts["text"] == b.texts["text"][::-1]
    assert a.x[0].equal(a.x[2])
    assert digest(samples) != digest(again)
    assert digest(samples) == digest(opened("train"))
    assert not opened("held_out").read(ids).x.equal(a.x)


def test_cut_gives_each_digit_in_the_order_of_the_text() -> None:
    samples = opened("held_out")
    assert isinstance(samples, Checkable)
    ids = torch.arange(100)
    batch, shows = samples.read(ids), samples.shows(ids)
    parts = samples.cut(batch.x, ids)
    assert parts.shape == (100, 2, 1, CANVAS, CANVAS)
    for i in range(100):
        assert [int(d) for d in shows[i]] == list(understood(batch.texts["text"][i])[1:])
        assert float(parts[i].sum()) == float(batch.x[i].sum())
        for k in range(2):
            rows, columns = box(parts[i, k, 0])
            assert rows.stop - rows.start <= DIGIT
            assert columns.stop - columns.start <= DIGIT
            upright = understood(batch.texts["text"][i])[0] == "above"
            middle = slice(4, 12)
            across = rows if upright else columns
            assert middle.start <= across.start < across.stop <= middle.stop


def test_halves_of_the_wrong_axis_are_none() -> None:
    samples = PairHalves(count=200).open("train")
    batch = samples.read(torch.arange(400))
    digit = batch.tensor("digit")
    assert samples.facts.classes == {"digit": (*"0123456789", "none")}
    assert int((digit == 10).sum()) == 400 // 8
    whole = opened("train", 200)
    ids = torch.arange(200)
    cut, shows = whole.cut(whole.read(ids).x, ids).flatten(0, 1), whole.shows(ids).flatten()
    right = digit != 10
    assert batch.x[right].equal(cut[right])
    assert digit[right].equal(shows[right])
    wrong = halves(whole.read(torch.tensor([0])).x, 1 - whole.told(torch.tensor([0])).axis)
    assert batch.x[:2].equal(wrong[0])


def test_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="count: got 0, expected at least 1"):
        DigitPairs(count=0)
    with pytest.raises(ValueError, match="held_out_count: got -1, expected at least 1"):
        DigitPairs(held_out_count=-1)
