"""Conditions as people give them, and those that are refused."""

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.inference.conditions import prepared
from anydit.model.conditioning import Field, Label, Numbers, Text
from anydit.tensors import Tokens, changed

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
        (range(1, 3), [1, 2]),
        (np.array([2, 0]), [2, 0]),
        (np.array([2, 0], np.uint8), [2, 0]),
        (np.array(1), [1, 1]),
        (np.int64(2), [2, 2]),
        ([np.int32(1), torch.tensor(2)], [1, 2]),
        (np.array(["dog", "cat"]), [1, 0]),
        (np.str_("dog"), [1, 1]),
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


def test_tokens_hold_for_one_sample_or_for_all():
    conditions = {"text": Text(5, 4)}
    one = Tokens(torch.randn(1, 3, 5), torch.ones(1, 3, dtype=torch.bool), torch.randn(1, 4))
    got = prepared({"text": one}, conditions, 2, (4, 4))["text"]
    assert isinstance(got, Tokens) and got.pooled is not None and one.pooled is not None
    assert got.values.shape == (2, 3, 5) and got.exists.shape == (2, 3)
    assert torch.equal(got.values[1], one.values[0]) and torch.equal(got.pooled[1], one.pooled[0])
    three = changed(one, lambda part: part.expand(3, *part.shape[1:]))
    with pytest.raises(ValueError, match="text: got 3 values, expected 1 or 2"):
        prepared({"text": three}, conditions, 2, (4, 4))
    with pytest.raises(ValueError, match="text: got 'a cat', expected Tokens"):
        prepared({"text": "a cat"}, conditions, 2, (4, 4))


@pytest.mark.parametrize(
    ("exists", "got"),
    [
        (torch.ones(1, 3, dtype=torch.long), r"exists \(1, 3\) of torch.int64"),  # as a tokenizer's attention mask is
        (torch.ones(1, 2, dtype=torch.bool), r"exists \(1, 2\) of torch.bool"),
        (torch.ones(1, 0, dtype=torch.bool), r"values \(1, 0, 5\)"),
    ],
)
def test_tokens_that_do_not_say_which_exist_are_refused(exists: Tensor, got: str):
    given = Tokens(torch.randn(1, 3 if exists.shape[1] else 0, 5), exists)
    with pytest.raises(ValueError, match=f"cond: text: got .*{got}.*, expected .* booleans"):
        prepared({"text": given}, {"text": Text(5)}, 2, (4, 4))


@pytest.mark.parametrize(
    "given",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        np.array([[1, 2], [3, 4]], ">i2"),
        np.array([[1, 3], [2, 4]], np.float64).T,
        [np.array([1.0, 2.0]), np.array([3.0, 4.0])],
        [range(1, 3), range(3, 5)],
        torch.tensor([[1, 2], [3, 4]]),
        [torch.tensor([1.0, 2.0]), (np.float64(3), np.int8(4))],
    ],
)
def test_numbers_of_any_kind(given):
    numbers = prepared({"numbers": given}, CONDITIONS, 2, (4, 4))["numbers"]
    assert numbers.dtype == torch.float32 and numbers.tolist() == [[1, 2], [3, 4]]


def test_numpy_scalars_arrays_and_masks():
    one = {"n": Numbers(("a",), (0.0,), (1.0,))}
    assert prepared({"n": np.float64(1.5)}, one, 2, ())["n"].tolist() == [[1.5], [1.5]]
    assert prepared({"n": range(2)}, one, 2, ())["n"].tolist() == [[0.0], [1.0]]
    values = np.arange(32.0).reshape(2, 4, 4)
    values.flags.writeable = False
    assert prepared({"guide": values}, CONDITIONS, 2, (4, 4))["guide"][1].numpy().tolist() == values.tolist()
    mask = prepared({"mask": np.ones((2, 4, 4), bool)}, CONDITIONS, 2, (4, 4))["mask"]
    assert mask.shape == (2, 4, 4) and mask.dtype == torch.bool


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 3}, r"label: got 3, expected a class from 0 to 2 or one of: cat, dog, 3"),
        ({"label": -1}, r"label: got -1"),
        ({"label": True}, r"label: got True"),
        ({"label": 1.5}, r"label: got 1.5"),
        ({"label": np.array([0.0, 1.0])}, r"label: got 0.0"),
        ({"label": np.bool_(True)}, r"label: got True"),
        ({"label": np.zeros((2, 2), int)}, r"label: got \[0, 0\]"),
        ({"numbers": np.array(["1", "2"])}, r"numbers: got array.*expected numbers"),
        ({"numbers": [[1.0, 2.0], [3.0]]}, r"numbers: got .*expected numbers"),
        ({"numbers": np.array([1e300, 0.0])}, r"numbers: got NaN or infinity"),
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
