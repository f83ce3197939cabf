"""A run of the release before goes on as it did then (FAULTS.md, T20)."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from anydit.inference.pipeline import load
from anydit.train.loop import train
from tests.train.golden import GOLDEN, KEPT, NEXT, computed_by, small
from tests.train.tiny import losses, silent


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(GOLDEN, tmp_path / "run", ignore=shutil.ignore_patterns("next.json"))
    return tmp_path / "run"


def after(run: Path) -> list[float]:
    """The losses of the next steps."""
    return [float.fromhex(loss) for _, loss, _ in losses(run)]


@pytest.mark.fault("T20")
def test_the_next_losses_are_those_of_then(run: Path):
    """To the last bit where the same PyTorch computes on such a processor, elsewhere to rounding."""
    load(run, "cpu").sample(1)
    said = list[str]()
    train(small(KEPT + NEXT), run, "cpu", said.append)
    assert any(f"Going on from step {KEPT} of {KEPT + NEXT}" in line for line in said)
    then = json.loads((GOLDEN / "next.json").read_text(encoding="utf-8"))
    expected = [float.fromhex(loss) for loss in then["losses"]]
    assert len(expected) == NEXT
    assert after(run) == (expected if then["computed_by"] == computed_by() else pytest.approx(expected, rel=1e-5))


@pytest.mark.fault("T20")
def test_with_another_seed_they_are_not(run: Path):
    """The negative control: the seed is changed behind the run's back."""
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    recipe["train"]["seed"] = 1
    (run / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    other = small(KEPT + NEXT)
    train(replace(other, train=replace(other.train, seed=1)), run, "cpu", silent)
    then = json.loads((GOLDEN / "next.json").read_text(encoding="utf-8"))
    pairs = zip(after(run), then["losses"], strict=True)
    assert all(abs(now / float.fromhex(before) - 1) > 1e-3 for now, before in pairs)
