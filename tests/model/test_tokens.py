"""Patches in any number of dimensions, and the tables of positions."""

import math

import pytest
import torch
from torch import Tensor

from anydit.model.tokens import (
    Grid,
    Learned,
    Rope,
    SinCos,
    coordinates,
    frequencies,
    grid_of,
    patchify,
    rotate,
    rotation_table,
    sincos_table,
    token_mask,
    unpatchify,
)

SHAPES: list[tuple[Grid, Grid]] = [
    ((6,), (2,)),
    ((4, 6), (2, 3)),
    ((2, 4, 6), (1, 2, 3)),
    ((2, 4, 3, 6), (2, 1, 3, 2)),
    ((5, 7), (1, 1)),
]


@pytest.mark.parametrize(("space", "patch"), SHAPES)
def test_unpatchify_undoes_patchify(space: Grid, patch: Grid) -> None:
    x = torch.randn(2, 3, *space)
    tokens = patchify(x, patch)
    assert tokens.shape == (2, math.prod(grid_of(space, patch)), 3 * math.prod(patch))
    # A token goes in with its channel first and comes out with its channel last, both as published.
    turned = tokens.unflatten(2, (3, -1)).transpose(2, 3).flatten(2)
    assert torch.equal(unpatchify(turned, grid_of(space, patch), patch), x)


def test_a_token_holds_the_values_of_its_patch_in_token_order() -> None:
    x = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    tokens = patchify(x, (2, 3))
    assert torch.equal(tokens[0, 3], x[0, :, 2:4, 3:6].flatten())  # second row, second column of a 2 x 2 grid
    kernel = torch.randn(5, 2, 2, 3)
    convolved = torch.nn.functional.conv2d(x, kernel, stride=(2, 3))
    torch.testing.assert_close(tokens @ kernel.flatten(1).T, convolved.flatten(2).transpose(1, 2))


def test_a_token_exists_where_any_of_its_positions_does() -> None:
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[0, 1, 2] = True
    assert token_mask(mask, (2, 3)).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("space", "patch", "message"),
    [
        ((6, 4), (2,), r"size: got \(6, 4\) \(2 axes\), expected 1 axes"),
        ((7,), (2,), "expected multiples"),
        ((0,), (2,), "expected multiples"),
    ],
)
def test_a_patch_that_does_not_divide_is_refused(space: Grid, patch: Grid, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_of(space, patch)


@pytest.mark.parametrize("position", [SinCos, Rope])
@pytest.mark.parametrize("period", [1.0, 0.0, -3.0, math.inf, math.nan])
def test_a_period_that_is_none_is_refused(position: type, period: float) -> None:
    with pytest.raises(ValueError, match="max_period: got"):
        position(max_period=period)


@pytest.mark.parametrize("position", [SinCos, Rope])
@pytest.mark.parametrize("fields", [{"extent": (2, 2)}, {"extent": (2, 0), "interpolate": True}])
def test_an_extent_that_has_no_use_or_no_size_is_refused(position: type, fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="extent: got"):
        position(**fields)


@pytest.mark.parametrize("canvas", [(), (3, 0)])
def test_a_canvas_that_is_none_is_refused(canvas: Grid) -> None:
    with pytest.raises(ValueError, match="canvas: got"):
        Learned(canvas)


def published_entry(place: tuple[int, int], channel: int, width: int) -> float:
    """One entry of the published table (He 2021, MAE): columns first, then rows; in each, sines and then cosines."""
    half, quarter = width // 2, width // 4
    coordinate = place[1] if channel < half else place[0]
    angle = coordinate / 10_000 ** (channel % quarter / quarter)
    return math.sin(angle) if channel % half < quarter else math.cos(angle)


def test_sincos_is_the_published_table() -> None:
    rows, columns, width = 3, 5, 24
    expected = [[published_entry((r, q), k, width) for k in range(width)] for r in range(rows) for q in range(columns)]
    got = sincos_table(coordinates((rows, columns)), width, 10_000.0)
    torch.testing.assert_close(got, torch.tensor(expected), rtol=0, atol=1e-7)


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [16, 26, 30])
def test_places_differ_in_any_number_of_axes_and_any_width(axes: int, width: int) -> None:
    grid = (3,) * axes
    table = sincos_table(coordinates(grid), width, 10_000.0)
    assert table.shape == (3**axes, width)
    assert torch.pdist(table).min() > 0.1
    unused = width - width // (2 * axes) * 2 * axes
    assert not table[:, width - unused :].any()


def test_interpolation_gives_the_trained_table_at_corresponding_places() -> None:
    trained = (3, 4)
    coarse = sincos_table(coordinates(trained), 16, 10_000.0).reshape(3, 4, 16)
    fine = sincos_table(coordinates((6, 12), trained), 16, 10_000.0).reshape(6, 12, 16)
    assert torch.equal(fine[::2, ::3], coarse)
    assert torch.equal(coordinates(trained, trained), coordinates(trained))
    plain = sincos_table(coordinates((6, 12)), 16, 10_000.0).reshape(6, 12, 16)
    assert torch.equal(plain[:3, :4], coarse)  # without interpolation the same patches stand at the same places


def test_a_grid_lies_in_the_middle_of_its_canvas() -> None:
    table = torch.arange(20).reshape(20, 1).float()
    got = Learned((4, 5)).middle(table, (2, 2))
    assert got.flatten().tolist() == [6, 7, 11, 12]
    assert torch.equal(Learned((4, 5)).middle(table, (4, 5)), table)
    for grid in ((5, 5), (4, 6), (4,)):
        with pytest.raises(ValueError, match=r"expected at most position\.canvas"):
            Learned((4, 5)).middle(table, grid)


def test_large_coordinates_keep_their_digits() -> None:
    got = sincos_table(torch.tensor([[100_000.0]], dtype=torch.float64), 8, 10_000.0)
    expected = [f(100_000 / 10 ** (k * 1.0)) for f in (math.sin, math.cos) for k in range(4)]
    torch.testing.assert_close(got[0], torch.tensor(expected), rtol=0, atol=1e-6)


def test_frequencies_fall_from_one_nearly_to_the_period() -> None:
    got = frequencies(4, 10_000.0)
    torch.testing.assert_close(got, torch.tensor([1, 0.1, 0.01, 0.001], dtype=torch.float64))
    assert frequencies(4, 10_000.0, torch.float32).dtype == torch.float32


def logits(query: Tensor, key: Tensor, places: Tensor, head: int) -> Tensor:
    table = rotation_table(places, head, 100.0)
    n = len(places)
    q, k = (rotate(v.expand(1, 1, n, head), table)[0, 0] for v in (query, key))
    return q @ k.T


@pytest.mark.parametrize(("axes", "head"), [(1, 8), (2, 8), (2, 10), (3, 12), (3, 14)])
def test_rope_logits_depend_on_differences_of_places_only(axes: int, head: int) -> None:
    query, key = torch.randn(2, head, generator=torch.Generator().manual_seed(0))
    places = coordinates((3,) * axes)
    base = logits(query, key, places, head)
    moved = logits(query, key, places + torch.tensor([5.0, -2.0, 11.0, 1.0][:axes], dtype=torch.float64), head)
    torch.testing.assert_close(moved, base, rtol=0, atol=1e-4)
    difference = (places[:, None] - places[None]).flatten(0, 1)
    for d in difference.unique(dim=0):
        same = base.flatten()[(difference == d).all(1)]
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-4)
    assert base.std() > 0.1


def test_rope_keeps_lengths_and_leaves_the_origin_alone() -> None:
    x = torch.randn(2, 3, 9, 8)
    turned = rotate(x, rotation_table(coordinates((3, 3)), 8, 100.0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1], x[:, :, 1])


def test_rope_leaves_pairs_that_no_axis_gets() -> None:
    x = torch.randn(1, 1, 9, 10)
    turned = rotate(x, rotation_table(coordinates((3, 3)), 10, 100.0))
    assert torch.equal(turned[..., [4, 9]], x[..., [4, 9]])  # the last pair: one value of each half


def test_rope_turns_half_precision_in_float32() -> None:
    x = torch.randn(1, 1, 50, 8).bfloat16()
    table = rotation_table(coordinates((50,)), 8, 100.0)
    got = rotate(x, table)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, rotate(x.float(), table))
