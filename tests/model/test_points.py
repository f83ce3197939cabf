"""Tokens that are points: attention against its formula, and what must not matter."""

from typing import Any

import pytest
import torch

from anydit.model.dit import DiT, DiTConfig
from anydit.model.points import Points, Relation, Relations, attend_to_points
from anydit.model.text import Cross, Joint, Text
from anydit.tensors import MASK, Tokens


def model(**changes: Any) -> Any:
    given: dict[str, Any] = {"channels": 5, "size": (6,), "position": Points(axes=3), **changes}
    made = DiT(DiTConfig(16, 2, 2, (1,), **given))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    return made.double().eval()


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()


def test_attention_is_its_formula():
    q, k, v = draw(3, 2, 4, 5, 6)
    bias, places = draw(2, 4, 5, 5), draw(2, 5, 3)
    out = attend_to_points(q, k, v, Relation(bias, places))
    for b in range(2):
        for h in range(4):
            weight = (q[b, h] @ k[b, h].T / 6**0.5 + bias[b, h]).softmax(-1)
            torch.testing.assert_close(out[b, h, :, :6], weight @ v[b, h])
            for i in range(5):
                torch.testing.assert_close(out[b, h, i, 6:], weight[i] @ (places[b] - places[b, i]))


def test_scores_follow_from_distances_alone():
    relations: Any = Relations(Points(axes=2), depth=3, heads=2).double()
    x = draw(4, 6, 7)
    turn = torch.linalg.qr(draw(2, 2)).Q
    moved = x.clone()
    moved[:, :2] = turn @ x[:, :2] + 3
    moved[:, 2:] = 0
    each, again = relations(x, None), relations(moved, None)
    assert len(each) == 3 and each[0].bias.shape == (4, 2, 7, 7)
    for a, b in zip(each, again, strict=True):
        torch.testing.assert_close(a.bias, b.bias)
        torch.testing.assert_close(a.bias, a.bias.transpose(2, 3))
    assert (each[0].bias - each[1].bias).abs().max() > 0.01, "each block has its own"
    assert each[0].bias.std((2, 3)).min() > 0.01, "distances matter"


def test_points_are_a_set_and_what_does_not_exist_has_no_influence():
    made, x, t = model(), draw(2, 5, 6), torch.tensor([0.3, 0.8]).double()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(made(x, t)[:, :, order], made(x[:, :, order], t))
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 4:] = False
    other = torch.where(mask[:, None], x, torch.nan)
    torch.testing.assert_close(made(other, t, {MASK: mask})[:, :, :4], made(x[:, :, :4], t))


def test_a_gradient_is_finite_where_points_are_one():
    made, x = model(), draw(1, 5, 6)
    x[:, :, 1] = x[:, :, 0]
    x.requires_grad_()
    made(x, torch.tensor([0.5]).double()).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_with_cross_attention_and_any_number_of_axes():
    made, t = model(conditions={"text": Text(4, None, Cross())}), torch.tensor([0.5]).double()
    text = Tokens(draw(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    assert (made(draw(1, 5, 9), t, {"text": text}) - made(draw(1, 5, 9), t)).abs().max() > 0.01
    grid = DiT(DiTConfig(16, 1, 2, (1, 1), channels=2, size=(2, 3), position=Points(axes=2)))
    assert grid(torch.zeros(1, 2, 2, 3), torch.tensor([0.5])).shape == (1, 2, 2, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch": (2,)}, r"patch: got \(2,\), expected 1 along each axis"),
        ({"channels": 2}, "position.axes: got 3, expected at most channels 2"),
        ({"conditions": {"text": Text(4, 5, Joint())}}, "position: got Points beside a text in joint attention"),
    ],
)
def test_what_cannot_be_points_is_refused(changes: dict[str, Any], said: str):
    given: dict[str, Any] = {"channels": 5, "patch": (1,), "position": Points(), **changes}
    with pytest.raises(ValueError, match=said):
        DiTConfig(16, 2, 2, **given)


@pytest.mark.parametrize("options", [{"axes": 0}, {"bands": 1}, {"reach": 0.0}])
def test_bad_options_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: got"):
        Points(**options)
