"""Whether samples show what their texts say: real data do, data under the texts of others do not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import DigitPairs, Digits, Images, PairHalves
from anydit.evaluate import classifier
from anydit.evaluate.sets import Sets, opened
from anydit.evaluate.texts import followed, judge_of, right
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.text import Text

CPU = torch.device("cpu")


@pytest.fixture
def sets(quick: Path, monkeypatch: pytest.MonkeyPatch) -> Sets:
    """Pairs, to be judged by a classifier that has learned enough to tell most digits."""
    monkeypatch.setattr(classifier, "MOST_SEEN", 12_000)
    model = DiTConfig(
        width=16, depth=1, heads=2, patch=(4, 4), channels=1, size=(16, 16), conditions={"text": Text(width=8)}
    )
    config = PipelineConfig(model=model, codec=Normalize.to_unit(0, 16), view=Images(low=0, high=16))
    return opened(Pipeline(config), DigitPairs(count=100, held_out_count=300), 600)


def test_figures(sets: Sets) -> None:
    stages: dict[str, float] = {}
    real = sets.real.x
    assert sets.sizes == [300, 300]
    drawn = torch.cat([real, torch.zeros_like(real)])
    found = followed(sets, drawn, CPU, stages.__setitem__)
    assert list(found) == ["text", "shuffled"]
    text, shuffled = found["text"], found["shuffled"]
    assert text.floor > 0.4 > 0.1 > shuffled.floor
    assert text.samples == pytest.approx(text.floor / 2, abs=0.02), "half of the samples are real, half are black"
    assert shuffled.samples == pytest.approx(shuffled.floor / 2, abs=0.02)
    assert text.error == pytest.approx((text.samples * (1 - text.samples) / 600) ** 0.5)
    assert stages == {"judge of texts": 1}

    judge, held = judge_of(sets.held, CPU, stages.__setitem__), sets.held  # pyright: ignore[reportArgumentType]
    one_by_one = right(judge, held, real, sets.real.ids)  # pyright: ignore[reportArgumentType]
    assert float(one_by_one.mean()) == pytest.approx(text.floor)
    # Digits in each other's places are as good digits, but not what the text says, unless both are the same.
    told = sets.held.told(sets.real.ids)  # pyright: ignore[reportAttributeAccessIssue]
    turned = torch.where((told.axis == 0)[:, None, None, None], real.roll(8, 2), real.roll(8, 3))
    swapped = right(judge, held, turned, sets.real.ids)  # pyright: ignore[reportArgumentType]
    assert float(swapped[told.first != told.second].mean()) < 0.1
    assert float(swapped[told.first == told.second].mean()) > 0.3


def test_nothing_is_said_without_such_texts(sets: Sets, digits: tuple[Pipeline, Digits]) -> None:
    silent = opened(*digits, None)
    assert not silent.told
    assert not followed(replace(silent, told=True), silent.real.x, CPU, lambda stage, done: None)
    assert not followed(replace(sets, told=False), sets.real.x, CPU, lambda stage, done: None)


def test_a_model_without_the_text_is_not_asked(sets: Sets) -> None:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4), channels=1, size=(16, 16), conditions={"a": Label(3)})
    config = PipelineConfig(model=model, codec=Normalize.to_unit(0, 16), view=Images(low=0, high=16))
    assert not opened(Pipeline(config), DigitPairs(count=100, held_out_count=100), None).told


def test_the_judge_learns_from_training_digits_only() -> None:
    assert PairHalves() == DigitPairs().open("held_out").parts  # pyright: ignore[reportAttributeAccessIssue]
