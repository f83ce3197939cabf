"""Text as a vector and as tokens: nulls, padding, and encodings that are not the model's."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anydit.config import from_json, to_json
from anydit.model.text import Cross, Joint, Pooled, Text, TextTokens, TextVector
from anydit.tensors import Tokens

WIDTH = 16
PRESENT = torch.tensor([True, False, True])


def text(tokens: int = 4) -> Tokens:
    """Three texts of two, four and one tokens."""
    g = torch.Generator().manual_seed(0)
    exists = torch.arange(tokens) < torch.tensor([[2], [4], [1]])
    return Tokens(torch.randn(3, tokens, 6, generator=g), exists, torch.randn(3, 5, generator=g))


def made(kind: Any, **options: Any) -> Any:
    module = kind(Text(width=6, pooled=5, **options), WIDTH)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    return module


def linear(layer: Any, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def test_a_vector_is_two_products_with_a_silu_between() -> None:
    module, given = made(TextVector, entry=Pooled()), text()
    assert given.pooled is not None
    expected = linear(module.down, F.silu(linear(module.up, given.pooled)))
    torch.testing.assert_close(module(given, None), expected)
    mixed = module(given, PRESENT)
    torch.testing.assert_close(mixed[PRESENT], expected[PRESENT])
    assert torch.equal(mixed[1], module.unknown)
    assert torch.equal(module.null(3)[0], module.unknown)


def test_tokens_are_projected_as_published() -> None:
    given = text()
    for entry in (Cross(), Joint()):
        module = made(TextTokens, entry=entry)
        up = linear(module.up, given.values)
        expected = linear(module.down, F.gelu(up, approximate="tanh")) if isinstance(entry, Cross) else up
        tokens, exists = module(given, None)
        torch.testing.assert_close(tokens[given.exists], expected[given.exists])
        assert torch.equal(exists, given.exists)


@pytest.mark.parametrize("entry", [Cross(), Joint()])
def test_standard_tokens_are_those_on_another_scale(entry: Cross | Joint) -> None:
    given, module = text(), made(TextTokens, entry=entry, standard=True)
    mean, std = given.values[given.exists].mean(0), torch.tensor([100.0, 3, 1, 0.1, 7, 0.01])
    scaled, _ = module(given._replace(values=(given.values - mean) / std), None)
    module.standardise(mean, std)
    torch.testing.assert_close(module(given, None)[0][given.exists], scaled[given.exists], rtol=1e-4, atol=1e-4)


def test_a_vector_alone_is_not_standard() -> None:
    with pytest.raises(ValueError, match="standard: got True for a text whose pooled vector alone enters"):
        Text(entry=Pooled(), standard=True)


@pytest.mark.parametrize("entry", [Cross(), Joint()])
def test_the_null_is_one_token_however_it_comes_about(entry: Any) -> None:
    module, given = made(TextTokens, entry=entry), text()
    tokens, exists = module.null(3)
    assert tokens.shape == (3, 1, WIDTH)
    assert exists.all()
    dropped, left = module(given, PRESENT)
    assert torch.equal(left, torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]).bool())
    assert torch.equal(dropped[1, :1], tokens[1])
    torch.testing.assert_close(dropped[0, :2], module(given, None)[0][0, :2])
    empty, first = module(given._replace(exists=given.exists & PRESENT[:, None]), None)
    assert torch.equal(first, left)
    assert torch.equal(empty[1, :1], tokens[1])


def test_a_text_without_tokens_needs_no_null() -> None:
    given = text()
    tokens, exists = made(TextTokens, dropout=0.0)(given._replace(exists=given.exists & PRESENT[:, None]), None)
    assert exists[1].tolist() == [True, False, False, False]
    assert tokens.isfinite().all()


def test_what_is_not_known_reaches_neither_output_nor_gradient() -> None:
    given = text()
    assert given.pooled is not None
    nan = given._replace(
        values=torch.where((given.exists & PRESENT[:, None])[..., None], given.values, torch.nan),
        pooled=torch.where(PRESENT[:, None], given.pooled, torch.nan),
    )
    for kind, entry in ((TextVector, Pooled()), (TextTokens, Cross()), (TextTokens, Joint())):
        module = made(kind, entry=entry)
        first, second = module(given, PRESENT), module(nan, PRESENT)
        if isinstance(first, tuple):
            assert torch.equal(first[1], second[1])
            first, second = (tokens[exists] for tokens, exists in (first, second))
        torch.testing.assert_close(first, second)
        second.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in module.parameters())


def test_without_dropout_there_is_no_null() -> None:
    for kind in (TextVector, TextTokens):
        assert "unknown" not in dict(made(kind, dropout=0.0).named_parameters())


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (TextVector, {"pooled": None}, "got a text with no pooled vector, expected one of width 5"),
        (
            TextVector,
            {"pooled": torch.zeros(3, 7)},
            "got a text with a pooled vector of width 7, expected one of width 5",
        ),
        (TextTokens, {"values": torch.zeros(3, 4, 7)}, "got a text with tokens of width 7, expected 6"),
    ],
)
def test_another_encoders_text_is_refused(kind: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(kind)(text()._replace(**change), None)


def test_widths_that_wait_for_the_encoder_make_no_module_yet() -> None:
    with pytest.raises(ValueError, match=r"pooled: got None, .*text encoder"):
        TextVector(Text(width=6), WIDTH)
    with pytest.raises(ValueError, match=r"width: got None, .*text encoder"):
        TextTokens(Text(pooled=5), WIDTH)


def test_which_ways_in_a_text_takes() -> None:
    entries = [Pooled(), Cross(), Cross(Pooled()), Joint(), Joint(None)]
    assert [Text(entry=entry).as_vector for entry in entries] == [True, False, True, True, False]
    assert [Text(entry=entry).as_tokens for entry in entries] == [False, True, True, True, True]
    for entry in entries:
        config = Text(width=3, entry=entry)
        assert from_json(Text, to_json(config)) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Text(width=0), "width: got 0"),
        (lambda: Text(pooled=-1), "pooled: got -1"),
        (lambda: Text(dropout=1.0), r"dropout: got 1\.0"),
        (lambda: Joint(dual=-1), "dual: got -1"),
    ],
)
def test_configs_that_are_none_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
