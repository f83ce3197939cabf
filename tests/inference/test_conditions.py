"""Conditions as people give them, and those that are refused."""

import pytest
import torch

from anydit.inference.conditions import prepared
from anydit.model.conditioning import Field, Label, Numbers

CONDITIONS = {
    "label": Label(3, names=("cat", "dog", "3")),
    "numbers": Numbers(("Re", "Ma"), (0.0, 0.0), (1.0, 1.0)),
    "guide": Field(2, (0.0, 0.0), (1.0, 1.0), dropout=0.1),
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, [1, 1]),
        ([0, 2], [0, 2]),
        ((0, 2), [0, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor(2), [2, 2]),
        ("dog", [1, 1]),
        (["cat", "1"], [0, 1]),
        ("3", [2, 2]),
    ],
)
def test_classes_by_index_or_name(given, expected):
    label = prepared({"label": given}, CONDITIONS, 2, (4, 4))["label"]
    assert label.tolist() == expected and label.dtype == torch.int64


def test_numbers_and_fields_spread_over_the_batch():
    field = torch.arange(2 * 2 * 4 * 4.0).reshape(2, 2, 4, 4)
    out = prepared({"numbers": (1, 2.5), "guide": field}, CONDITIONS, 2, (4, 4))
    assert out["numbers"].tolist() == [[1, 2.5], [1, 2.5]]
    assert torch.equal(out["guide"], field)
    one = prepared({"guide": field[0]}, CONDITIONS, 3, (4, 4))["guide"]
    assert one.shape == (3, 2, 4, 4) and torch.equal(one[2], field[0])
    assert prepared({"n": [1.0, 2.0]}, {"n": Numbers(("a",), (0.0,), (1.0,))}, 2, ())["n"].tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 3}, r"label: got 3, expected a class from 0 to 2 or one of: cat, dog, 3"),
        ({"label": -1}, r"label: got -1"),
        ({"label": True}, r"label: got True"),
        ({"label": 1.5}, r"label: got 1.5"),
        ({"label": "bird"}, r"label: got 'bird'"),
        ({"label": [0, 1, 2]}, r"label: got 3 values, expected 1 or 2"),
        ({"lable": 1}, r"got 'lable', expected one of: label, numbers, guide"),
        ({"numbers": [1.0, 2.0, 3.0]}, r"numbers: got shape \(1, 3\), expected 2 numbers: Re, Ma"),
        ({"numbers": [float("nan"), 0.0]}, r"numbers: got NaN"),
        ({"numbers": ["a", "b"]}, r"numbers: got \['a', 'b'\], expected numbers"),
        ({"guide": torch.zeros(2, 3, 3)}, r"guide: got shape .* expected \[2, 2, 4, 4\]"),
        ({"mask": torch.zeros(2, 4, 4)}, r"mask: expected a boolean tensor"),
    ],
)
def test_refuses_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        prepared(given, CONDITIONS, 2, (4, 4))


def test_a_condition_without_a_null_must_be_given():
    with pytest.raises(ValueError, match="label is missing"):
        prepared({}, {"label": Label(3, dropout=0)}, 2, (4, 4))


def test_an_unconditional_model_says_so():
    with pytest.raises(ValueError, match="unconditional"):
        prepared({"label": 1}, {}, 2, (4, 4))
