"""Conditions with nulls, and random numbers that are a pure function of their place."""

import math

import pytest
import torch
from torch import Tensor

from anydit.tensors import (
    MASK,
    Batch,
    Constants,
    Masked,
    Stream,
    Tokens,
    changed,
    concatenate,
    drop,
    known,
    mask_of,
    null,
    per_sample,
    philox,
    select,
)


def words(*values: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c, d = (torch.tensor([v]) for v in values)
    return a, b, c, d


@pytest.mark.parametrize(
    ("counter", "key", "expected"),  # the known answers that come with Random123 (Salmon et al. 2011)
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert tuple(int(w) for w in philox(words(*counter), key)) == expected


def test_random_numbers_do_not_depend_on_the_split_of_the_batch() -> None:
    stream = Stream(seed=7, name="noise")
    positions = torch.arange(10)
    whole = stream.normal(3, positions, (3, 5))
    parts = [stream.normal(3, positions[a:b], (3, 5)) for a, b in ((0, 1), (1, 4), (4, 10))]
    assert torch.equal(whole, torch.cat(parts))
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stream.normal(3, positions[order], (3, 5)), whole[order])
    assert torch.equal(stream.integers(3, positions[order], 100), stream.integers(3, positions, 100)[order])


def test_every_part_of_the_key_matters() -> None:
    at = torch.arange(50)
    base = Stream(1, "a").uniform(0, at, (4,))
    for other in (Stream(2, "a"), Stream(1, "b"), Stream(1 + 2**32, "a"), Stream(-1, "a")):
        assert not (other.uniform(0, at, (4,)) == base).any()
    assert not (Stream(1, "a").uniform(1, at, (4,)) == base).any()
    assert not (Stream(1, "a").uniform(0, at + 50, (4,)) == base).any()
    assert len(base.unique()) == base.numel()


def test_a_longer_draw_begins_with_the_shorter_uniforms() -> None:
    stream, at = Stream(1, "a"), torch.arange(3)
    assert torch.equal(stream.uniform(0, at, (9,))[:, :5], stream.uniform(0, at, (5,)))
    assert stream.uniform(0, at).shape == (3,)
    assert stream.normal(0, at, (0,)).shape == (3, 0)


def test_uniform_is_uniform() -> None:
    u = Stream(5, "times").uniform(0, torch.arange(1000), (100,)).double()
    n = u.numel()
    assert u.min() > 0
    assert u.max() <= 1
    ordered = u.flatten().sort().values
    distance = (ordered - (torch.arange(n, dtype=torch.float64) + 0.5) / n).abs().max()
    assert distance < 1.95 / math.sqrt(n)  # Kolmogorov-Smirnov at p = 0.001
    centred = u - 0.5
    for lagged in (centred[:, 1:] * centred[:, :-1], centred[1:] * centred[:-1]):  # neighbours in either axis
        assert abs(float(lagged.mean())) < 4 / 12 / math.sqrt(n)


def test_normal_is_standard_normal() -> None:
    z = Stream(5, "noise").normal(0, torch.arange(1001), (3, 33)).double().flatten()
    n = z.numel()
    moments = [1.0, 2.0, 15.0, 96.0]  # variances of z, z^2, z^3 and z^4
    for power, (variance, expected) in enumerate(zip(moments, (0, 1, 0, 3), strict=True), start=1):
        assert abs(float((z**power).mean()) - expected) < 4 * math.sqrt(variance / n), power
    ordered = torch.special.ndtr(z.sort().values)
    assert (ordered - (torch.arange(n, dtype=torch.float64) + 0.5) / n).abs().max() < 1.95 / math.sqrt(n)


def test_integers_are_in_range_and_even() -> None:
    got = Stream(5, "labels").integers(0, torch.arange(60_000), 6)
    counts = got.bincount()
    assert len(counts) == 6
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_drop_and_null() -> None:
    label, mask = torch.tensor([3, 4, 5]), torch.ones(3, 2, 2, dtype=torch.bool)
    where = torch.tensor([True, False, False])
    once = drop({"label": label, MASK: mask}, {"label": where})
    twice = drop(once, {"label": where.flip(0)})
    value, present = known(twice["label"])
    assert isinstance(value, Tensor)
    assert torch.equal(value, label)
    assert present is not None
    assert present.tolist() == [False, True, False]
    assert known(twice[MASK]) == (mask, None)
    assert null(twice).keys() == {MASK}
    assert mask_of(twice) is mask
    assert mask_of(null({"label": label})) is None


def test_concatenate_and_select_are_inverse() -> None:
    first = {"label": torch.tensor([1, 2]), "near": Masked(torch.ones(2, 1, 3), torch.tensor([True, False]))}
    second = {"near": torch.zeros(2, 1, 3), "other": torch.tensor([5, 6])}
    both = concatenate([first, second], 2)
    assert known(both["label"])[1].tolist() == [True, True, False, False]  # type: ignore[union-attr]
    assert known(both["near"])[1].tolist() == [True, False, True, True]  # type: ignore[union-attr]
    assert known(both["other"])[1].tolist() == [False, False, True, True]  # type: ignore[union-attr]
    back = select(both, slice(0, 2))
    assert torch.equal(known(back["label"])[0], first["label"])  # type: ignore[arg-type]
    again = concatenate([first, first], 2)
    assert torch.equal(again["label"], torch.tensor([1, 2, 1, 2]))  # type: ignore[arg-type]
    chosen = select(both, torch.tensor([3, 0]))
    assert known(chosen["near"])[1].tolist() == [True, True]  # type: ignore[union-attr]


def text(batch: int, tokens: int, *, pooled: bool = True) -> Tokens:
    exists = torch.arange(tokens).expand(batch, -1) <= torch.arange(batch)[:, None]
    return Tokens(torch.randn(batch, tokens, 5), exists, torch.randn(batch, 3) if pooled else None)


def test_a_text_is_dropped_as_a_whole() -> None:
    given = text(3, 4)
    value, present = known(drop({"text": given}, {"text": torch.tensor([False, True, False])})["text"])
    assert value is given
    assert present is not None
    assert present.tolist() == [True, False, True]


@pytest.mark.parametrize("pooled", [True, False])
def test_texts_of_several_batches_are_padded_to_the_longest(pooled: bool) -> None:
    short, long = text(2, 3, pooled=pooled), text(2, 5, pooled=pooled)
    both = concatenate([{"text": short}, {"text": long}, {}], 2)["text"]
    assert isinstance(both, Masked)
    assert isinstance(both.value, Tokens)
    values, exists, vectors = both.value
    assert values.shape == (6, 5, 5)
    assert both.present.tolist() == [True] * 4 + [False] * 2
    assert torch.equal(values[:2, :3], short.values)
    assert torch.equal(values[2:4], long.values)
    assert torch.equal(exists[:2], torch.nn.functional.pad(short.exists, (0, 2)))
    assert torch.equal(exists[2:4], long.exists)
    if pooled:
        assert vectors is not None
        assert short.pooled is not None
        assert torch.equal(vectors[:2], short.pooled)
    else:
        assert vectors is None
    for same in (
        concatenate([{"text": long}, {"text": long}], 2)["text"],
        changed(long, lambda v: v.repeat_interleave(2, 0)),
    ):
        assert isinstance(same, Tokens)
        assert len(same.values) == len(same.exists) == 4


def test_some_texts_of_a_batch() -> None:
    given, order = text(3, 4), torch.tensor([2, 0])
    plain = select({"text": given}, order)["text"]
    hidden = select({"text": Masked(given, torch.tensor([True, False, False]))}, order)["text"]
    assert isinstance(hidden, Masked)
    assert hidden.present.tolist() == [False, True]
    for got in (plain, hidden.value):
        assert isinstance(got, Tokens)
        assert got.pooled is not None
        assert given.pooled is not None
        assert torch.equal(got.values, given.values[order])
        assert torch.equal(got.exists, given.exists[order])
        assert torch.equal(got.pooled, given.pooled[order])


def test_per_sample_broadcasts_over_samples_only() -> None:
    got = per_sample(torch.tensor([1.0, 2.0]), torch.zeros(2, 2, 2)) * torch.ones(2, 2, 2)
    assert got[0].unique().item() == 1
    assert got[1].unique().item() == 2


def test_constants_are_made_once_and_serve_training_after_sampling() -> None:
    made = []
    constants = Constants()

    def make() -> Tensor:
        made.append(1)
        return torch.full((3,), 2.0)

    with torch.inference_mode():
        constants.get("a", torch.device("cpu"), make)
    x = torch.ones(3, requires_grad=True)
    (x * constants.get("a", torch.device("cpu"), make)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2, 2, 2]
    assert len(made) == 1
    constants.get("b", torch.device("cpu"), make)
    assert len(made) == 2


def test_batch_moves_samples_and_conditions() -> None:
    cond = {"label": torch.zeros(2, dtype=torch.long), "text": text(2, 3), "other": text(2, 3, pooled=False)}
    moved = Batch(torch.zeros(2, 1, 4), cond, torch.arange(2), {"title": ["a", "b"]}).to(torch.device("meta"))
    assert moved.x.device.type == moved.tensor("label").device.type == "meta"
    assert moved.ids.device.type == "cpu"
    assert moved.texts == {"title": ["a", "b"]}
    for name, parts in (("text", 3), ("other", 2)):
        tensors = [part for part in moved.cond[name] if part is not None]
        assert [part.device.type for part in tensors] == ["meta"] * parts
