"""Conditions and their nulls."""

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from anydit.model.conditioning import (
    Conditioner,
    Field,
    Label,
    LabelVector,
    Numbers,
    NumbersVector,
)
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.model.time import TimeEmbedding
from anydit.tensors import Masked, Tokens, drop

WIDTH = 16
T = torch.tensor([0.2, 0.4, 0.6])
NUMBERS = Numbers(("kelvin", "pascal"), mean=(280.0, 1e5), std=(10.0, 500.0))
PLAIN = Field(2, mean=(0.0, 0.0), std=(1.0, 1.0))
VALUES = torch.tensor([[275.0, 1e5], [290.0, 101e3], [280.0, 99e3]])


def conditioner(**conditions: Any) -> Conditioner:
    made = Conditioner(TimeEmbedding(), conditions, WIDTH)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    return made


def test_a_dropped_label_is_the_null_label_is_an_absent_one() -> None:
    c = conditioner(label=Label(5))
    label = torch.tensor([0, 3, 4])
    given = c.vector(T, {"label": label})
    null = c.vector(T, {})
    assert torch.equal(c.vector(T, {"label": torch.full((3,), 5)}), null)
    assert torch.equal(c.vector(T, drop({"label": label}, {"label": torch.ones(3, dtype=torch.bool)})), null)
    mixed = c.vector(T, {"label": Masked(label, torch.tensor([True, False, True]))})
    assert torch.equal(mixed[[0, 2]], given[[0, 2]])
    assert torch.equal(mixed[1], null[1])
    assert not (given == null).all(dim=1).any()


@pytest.mark.parametrize("classes", [1, 3, 1000])
def test_the_null_is_one_row_more_whatever_the_number_of_classes(classes: int) -> None:
    assert LabelVector(Label(classes), WIDTH).table.num_embeddings == classes + 1
    assert LabelVector(Label(classes, dropout=0.0), WIDTH).table.num_embeddings == classes


def test_dropped_numbers_are_absent_ones() -> None:
    c = conditioner(numbers=NUMBERS)
    given, null = c.vector(T, {"numbers": VALUES}), c.vector(T, {})
    mixed = c.vector(T, {"numbers": Masked(VALUES, torch.tensor([True, False, True]))})
    assert torch.equal(mixed[[0, 2]], given[[0, 2]])
    assert torch.equal(mixed[1], null[1])
    hidden = torch.tensor([True, False, True])
    unknown = VALUES.where(hidden[:, None], torch.tensor(float("nan")))
    assert torch.equal(c.vector(T, {"numbers": Masked(unknown, hidden)}), mixed)


def test_an_unknown_value_that_is_not_a_number_does_not_harm_the_gradient() -> None:
    c = conditioner(numbers=NUMBERS)
    unknown = VALUES.clone()
    unknown[1] = float("nan")
    c.vector(T, {"numbers": Masked(unknown, torch.tensor([True, False, True]))}).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in c.parameters())


def test_numbers_are_taken_in_their_own_units() -> None:
    plain = Numbers(NUMBERS.names, mean=(0.0, 0.0), std=(1.0, 1.0))
    ours, other = NumbersVector(NUMBERS, WIDTH), NumbersVector(plain, WIDTH)
    other.load_state_dict(ours.state_dict())
    scaled = (VALUES - torch.tensor([280.0, 1e5])) / torch.tensor([10.0, 500.0])
    torch.testing.assert_close(ours(VALUES, None), other(scaled, None))
    far = VALUES.clone()
    far[0, 1] += 100
    assert not torch.allclose(ours(far, None)[0], ours(VALUES, None)[0])
    assert torch.equal(ours(far, None)[1:], ours(VALUES, None)[1:])


def test_one_number_does_not_stand_for_two() -> None:
    with pytest.raises(ValueError, match="got 1 numbers for each sample, expected 2"):
        conditioner(numbers=NUMBERS).vector(T, {"numbers": torch.zeros(3, 1)})


def test_fields_are_channels_in_their_order_each_with_its_null() -> None:
    c = conditioner(low=Field(1, (0.0,), (1.0,), dropout=0.1), near=PLAIN)
    x, low, near = (torch.randn(3, k, 4, 2) for k in (3, 1, 2))
    assert c.channels == 3
    given = c.beside(x, {"near": near, "low": low})
    assert torch.equal(given, torch.cat([x, low, near], dim=1))
    null = c.fields["low"].reshape(1, 1, 1, 1).expand(3, 1, 4, 2)
    assert torch.equal(c.beside(x, {"near": near}), torch.cat([x, null, near], dim=1))
    mixed = c.beside(x, {"near": near, "low": Masked(low, torch.tensor([True, False, True]))})
    assert torch.equal(mixed[[0, 2]], given[[0, 2]])
    assert torch.equal(mixed[1, 3:4], null[1])
    assert conditioner(label=Label(3)).beside(x, {}) is x


def test_fields_are_taken_in_their_own_units_and_the_null_is_not() -> None:
    """Kelvin and pascal come to the same scale, channel by channel; the null is learned on that scale."""
    near = Field(2, mean=(280.0, 1e5), std=(10.0, 500.0), dropout=0.1)
    c, x = conditioner(near=near), torch.zeros(3, 1, 4, 2, dtype=torch.float64)
    unit = torch.randn(3, 2, 4, 2, dtype=torch.float64)
    value = unit * torch.tensor([10.0, 500.0])[:, None, None] + torch.tensor([280.0, 1e5])[:, None, None]
    torch.testing.assert_close(c.beside(x, {"near": value})[:, 1:], unit)
    null = c.fields["near"].double()[:, None, None].expand(3, 2, 4, 2)
    assert torch.equal(c.beside(x, {})[:, 1:], null)
    mixed = c.beside(x, {"near": Masked(value, torch.tensor([True, False, True]))})
    torch.testing.assert_close(mixed[[0, 2], 1:], unit[[0, 2]])
    assert torch.equal(mixed[1, 1:], null[1])


def test_a_field_is_computed_in_the_type_of_the_sample() -> None:
    x = torch.zeros(3, 1, 4, dtype=torch.bfloat16)
    assert conditioner(near=PLAIN).beside(x, {"near": torch.zeros(3, 2, 4)}).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(3, 1, 4, 2), (3, 2, 4, 1), (3, 2, 2, 2), (1, 2, 4, 2)])
def test_a_field_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    c = conditioner(near=replace(PLAIN, dropout=0.1))
    for value in (torch.zeros(shape), Masked(torch.zeros(shape), torch.ones(shape[0], dtype=torch.bool))):
        with pytest.raises(ValueError, match=r"near: got shape .*, expected \(3, 2, 4, 2\)"):
            c.beside(torch.zeros(3, 3, 4, 2), {"near": value})


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        (Label(5, dropout=0.0), torch.tensor([0, 1, 2])),
        (Numbers(("a", "b"), mean=(0.0, 0.0), std=(1.0, 1.0), dropout=0.0), torch.zeros(3, 2)),
        (PLAIN, torch.zeros(3, 2, 4)),
    ],
)
def test_without_dropout_there_is_no_null(condition: Any, value: Tensor) -> None:
    c = conditioner(known=condition)

    def run(cond: dict[str, Any]) -> Tensor:
        return c.beside(torch.zeros(3, 1, 4), cond) if isinstance(condition, Field) else c.vector(T, cond)

    run({"known": value})
    for cond in ({}, {"known": Masked(value, torch.tensor([True, False, True]))}):
        with pytest.raises(ValueError, match=r"cond: known is null .* dropout 0"):
            run(cond)


def test_only_dropped_samples_train_the_null() -> None:
    c = conditioner(label=Label(5), numbers=NUMBERS)
    embed, numbers = cast("LabelVector", c.vectors["label"]), cast("NumbersVector", c.vectors["numbers"])
    c.vector(T, {"label": torch.tensor([0, 1, 2]), "numbers": VALUES}).sum().backward()
    assert embed.table.weight.grad is not None
    assert not embed.table.weight.grad[5].any()
    assert numbers.unknown.grad is None or not numbers.unknown.grad.any()
    c.vector(T, {}).sum().backward()
    assert embed.table.weight.grad[5].eq(3).all()
    assert numbers.unknown.grad is not None
    assert numbers.unknown.grad.eq(3).all()


def text(tokens: int, seed: int) -> Tokens:
    g = torch.Generator().manual_seed(seed)
    exists = torch.arange(tokens) < torch.tensor([[1], [2], [tokens]])
    return Tokens(torch.randn(3, tokens, 6, generator=g), exists, torch.randn(3, 5, generator=g))


def test_the_tokens_of_several_texts_stand_one_after_the_other() -> None:
    title, body = Text(6, 5, Joint()), Text(6, 5, Joint(None))
    c = conditioner(title=title, body=body, mood=Text(6, 5, Pooled()))
    cond = {"title": text(3, 1), "body": text(4, 2), "mood": text(2, 3)}
    both = c.context(cond, 3)
    assert both is not None
    tokens, exists = both
    assert tokens.shape == (3, 7, WIDTH)
    assert torch.equal(exists, torch.cat([cond["title"].exists, cond["body"].exists], dim=1))
    assert torch.equal(tokens[:, :3], c.texts["title"](cond["title"], None)[0])
    alone = c.context({"body": cond["body"]}, 3)  # the title's null is one token
    assert alone is not None
    assert alone[0].shape == (3, 5, WIDTH)
    assert conditioner(mood=Text(6, 5, Pooled())).context(cond, 3) is None
    parts = [c.time(T), c.vectors["title"](cond["title"], None), c.vectors["mood"](cond["mood"], None)]
    torch.testing.assert_close(c.vector(T, cond), sum(parts))


def test_a_dropped_text_is_the_null_of_its_vector_and_of_its_tokens() -> None:
    c, given = conditioner(text=Text(6, 5, Cross(Pooled()))), text(4, 0)
    every = torch.ones(3, dtype=torch.bool)
    dropped, none = drop({"text": given}, {"text": every}), {}
    assert torch.equal(c.vector(T, dropped), c.vector(T, none))
    (tokens, exists), (null, _) = c.context(dropped, 3) or (), c.context(none, 3) or ()
    assert exists.sum(dim=1).tolist() == [1, 1, 1]
    assert torch.equal(tokens[:, :1], null)
    with pytest.raises(ValueError, match="cond: text is null for some sample, but with dropout 0"):
        conditioner(text=Text(6, 5, dropout=0.0)).context(dropped, 3)


def test_conditions_of_another_kind_are_refused() -> None:
    c = conditioner(label=Label(5), text=Text(6, 5, Cross()))
    with pytest.raises(ValueError, match="cond: text: got a tensor, expected Tokens for Text"):
        c.context({"text": torch.zeros(3, 4, 6)}, 3)
    with pytest.raises(ValueError, match="cond: label: got Tokens, expected a tensor for Label"):
        c.vector(T, {"label": text(4, 0)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Label(0), "classes: got 0"),
        (lambda: Label(3, dropout=1.0), r"dropout: got 1\.0"),
        (lambda: Label(3, dropout=-0.1), r"dropout: got -0\.1"),
        (lambda: Label(3, names=("a", "b")), "names: got 2 names, expected one for each of 3"),
        (lambda: Numbers(()), "names: got none"),
        (lambda: Numbers(("a",), mean=(1.0, 2.0), std=(1.0, 1.0)), "mean: got 2 values"),
        (lambda: Numbers(("a",), mean=(1.0,), std=(1.0, 1.0)), "std: got 2 values"),
        (lambda: Numbers(("a",), mean=(1.0,)), "mean, std: got only one of them"),
        (lambda: Numbers(("a",), std=(1.0,)), "mean, std: got only one of them"),
        (lambda: Numbers(mean=(1.0,), std=(1.0,)), "mean: got 1 values, expected as many as names None"),
        (lambda: Numbers(("a",), mean=(math.nan,), std=(1.0,)), r"mean: got \(nan,\), expected finite"),
        (lambda: Numbers(("a",), mean=(1.0,), std=(0.0,)), r"std: got \(0\.0,\), expected finite numbers above 0"),
        (lambda: Field(0), "channels: got 0"),
        (lambda: Field(2, mean=(1.0,), std=(1.0,)), "mean: got 1 values, expected as many as channels 2"),
        (lambda: Field(mean=(1.0,), std=(1.0,)), "mean: got 1 values, expected as many as channels None"),
        (lambda: Field(1, mean=(1.0,)), "mean, std: got only one of them"),
        (lambda: Field(1, mean=(1.0,), std=(math.inf,)), r"std: got \(inf,\), expected finite numbers above 0"),
        (lambda: Field(1, dropout=float("nan")), "dropout: got nan"),
    ],
)
def test_conditions_that_are_none_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
