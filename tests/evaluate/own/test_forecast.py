"""Scores of ensembles, against their definitions and closed forms."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.evaluate.own import forecast as module
from anydit.evaluate.own.forecast import forecast, spread_and_error
from tests.inference.test_rollout import pipeline


@pytest.mark.parametrize("m", [2, 10])
def test_spread_of_an_honest_ensemble_is_its_error(m: int):
    spread, error = spread_and_error(torch.randn(m, 100_000), torch.randn(100_000))
    assert spread / error == pytest.approx(1, abs=0.01)
    assert spread_and_error(torch.zeros(1, 4), torch.ones(4)) == (0.0, 1.0)


def test_states_are_compared_with_those_of_their_own_time(monkeypatch: pytest.MonkeyPatch):
    """A forecaster that foresees all but for an offset that grows with each step."""
    past, truth = torch.randn(2, 4, 4, 6), torch.randn(2, 3, 2, 4, 6)
    offset = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)

    def known(pipe: Any, past: Tensor, states: int, cond: dict[str, Tensor], **rest: Any) -> Tensor:
        assert cond["numbers"].tolist() == [[7.0], [8.0], [7.0], [8.0]]
        assert (states, rest["channels"], len(past)) == (3, 2, 4)
        sign = torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(4, 1, 1, 1, 1)
        return truth.repeat(2, 1, 1, 1, 1) + offset * sign

    monkeypatch.setattr(module, "rollout", known)
    scores = forecast(
        pipeline(), past, truth, torch.tensor([1.0, 2.0]), 2, cond={"numbers": torch.tensor([[7.0], [8.0]])}
    )
    assert scores.members.shape == (2, 2, 3, 2, 4, 6)
    assert scores.error == pytest.approx((0, 0, 0), abs=1e-6)
    # Deviations 1 and 2: two members at +-d from the truth have a CRPS of d - d, and a spread of sqrt(3 / 2 * 2) d.
    assert scores.crps == pytest.approx((0, 0, 0), abs=1e-6)
    assert scores.spread == pytest.approx([d * sqrt(3 * (1 + 1 / 4) / 2) for d in (1, 2, 3)])
    unit = torch.tensor([1.0, 2.0]).reshape(2, 1, 1)
    still = [float(((truth[:, i] - past[:, 2:]) / unit).abs().mean()) for i in range(3)]
    assert scores.persistence == pytest.approx(still)


def test_a_model_is_rolled_out():
    pipe, past = pipeline(), torch.randn(2, 4, 4, 6)
    scores = forecast(pipe, past, torch.randn(2, 3, 2, 4, 6), torch.ones(2), 3, cond={"numbers": torch.zeros(2, 1)})
    assert len(scores.crps) == len(scores.spread) == len(scores.error) == len(scores.persistence) == 3
    assert min(scores.spread) > 0
    assert not torch.equal(scores.members[0], scores.members[1])
