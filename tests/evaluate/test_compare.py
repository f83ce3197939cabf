"""The figures: what they say of samples that are as good as real, worse, or copied."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from anydit.data import ArraySamples, Facts
from anydit.evaluate import compare
from anydit.evaluate.compare import Figure


def test_real_data_meets_its_floor():
    train, held = torch.randn(2000, 6), torch.randn(300, 6)
    figures = compare.in_features([held], held, train)
    for name in ("frechet", "precision", "recall"):
        assert figures[name].ratio == pytest.approx(1), name
        assert figures[name].error is None
    assert figures["kernel"].samples == pytest.approx(figures["kernel"].floor)


def test_worse_samples_have_worse_figures():
    train, held = torch.randn(2000, 6), torch.randn(300, 6)
    narrow = compare.in_features([0.3 * torch.randn(300, 6)], held, train)
    far = compare.in_features([torch.randn(300, 6) + 3], held, train)
    for figures in (narrow, far):
        assert figures["frechet"].samples > 5 * figures["frechet"].floor
        assert figures["kernel"].samples > figures["kernel"].floor + 4 * (figures["kernel"].error or 0)
        assert figures["recall"].samples < 0.6 * figures["recall"].floor
    assert narrow["precision"].samples > 0.9 > 0.5 > far["precision"].samples


def test_figures_do_not_depend_on_where_features_lie():
    train, held, drawn = torch.randn(500, 4), torch.randn(100, 4), torch.randn(100, 4) * 1.2
    here = compare.in_features([drawn], held, train)
    there = compare.in_features([drawn + 10], held + 10, train + 10)
    for name, figure in here.items():
        if name == "kernel":
            continue  # its kernel has an origin
        assert there[name].samples == pytest.approx(figure.samples, rel=1e-3, abs=1e-3), name


def test_kernel_distance_is_the_published_one():
    """Of features far from 0, as pooled activations are: torchmetrics' value, which depends on their origin."""
    train, held, drawn = (torch.rand(n, 16) * 2 + 0.4 for n in (600, 300, 300))
    few = train[compare.spread(600, 300)]
    figure = compare.in_features([drawn * 1.1], held, train)["kernel"]
    assert figure.samples == pytest.approx(float(poly_mmd(drawn.double() * 1.1, few.double())), rel=1e-4)
    assert figure.floor == pytest.approx(float(poly_mmd(held.double(), few.double())), rel=1e-4)


def test_draws_are_averaged():
    train, held = torch.randn(1000, 4), torch.randn(200, 4)
    draws = [torch.randn(200, 4) * s for s in (1.0, 1.1, 1.3)]
    single = [compare.in_features([d], held, train)["frechet"].samples for d in draws]
    both = compare.in_features(draws, held, train)["frechet"]
    assert both.samples == pytest.approx(np.mean(single))
    assert both.error == pytest.approx(np.std(single, ddof=1) / 3**0.5)


def test_accuracy_and_confusion():
    asked, seen = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2]), torch.tensor([0, 1, 1, 1, 2, 2, 2, 0])
    figure = compare.accuracy(asked, seen, asked, asked)
    assert (figure.samples, figure.floor) == (0.75, 1)
    assert figure.error == pytest.approx((0.75 * 0.25 / 8) ** 0.5)
    assert compare.confusion(asked, seen, 4).tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 3, 0], [0, 0, 0, 0]]


def digits_like(n: int) -> torch.Tensor:
    return 255 * torch.rand(n, 1, 5, 7)


def test_copies_are_found():
    train = digits_like(3000)
    opened = ArraySamples(train.numpy(), Facts(1, (5, 7)))
    held, fresh, copied = digits_like(400), digits_like(200), train[torch.randperm(3000)[:200]]
    said = list[float]()
    near = compare.nearest(torch.cat([fresh, copied, held]), opened, said.append)
    assert near.distance[200:400].eq(0).all()
    assert train[near.which[200:400]].equal(copied)
    expected = (fresh[:3, None] - train[None]).flatten(2).double().norm(dim=2).min(dim=1)
    torch.testing.assert_close(near.distance[:3].double(), expected.values)
    assert said == sorted(said)
    assert said[-1] == 1
    figures = compare.memorisation(near.distance[:400], near.distance[400:])
    assert figures["copies"].samples == pytest.approx(0.5, abs=0.03)
    assert figures["copies"].floor == pytest.approx(0.01)
    assert compare.memorisation(near.distance[:200], near.distance[400:])["nearest"].ratio == pytest.approx(1, abs=0.05)
    assert compare.memorisation(near.distance[200:400], near.distance[400:])["nearest"].samples == 0


@pytest.mark.parametrize(("mean", "std"), [(300, 0.1), (101325, 50), (-40, 0.01)])
def test_copies_of_data_far_from_0_are_found(mean: float, std: float):
    """Temperatures in K and pressures in Pa: what all samples share must not hide how they differ."""
    train, held, fresh = (mean + std * torch.randn(n, 1, 8, 8) for n in (1500, 200, 200))
    which = torch.randperm(1500)[:200]
    near = compare.nearest(
        torch.cat([train[which], fresh, held]), ArraySamples(train.numpy(), Facts(1, (8, 8))), lambda done: None
    )
    assert near.which[:200].equal(which)
    copied = compare.memorisation(near.distance[:200], near.distance[400:])
    assert copied["copies"].samples == 1
    assert copied["nearest"].samples == 0
    assert compare.memorisation(near.distance[200:400], near.distance[400:])["nearest"].ratio == pytest.approx(
        1, abs=0.1
    )


def test_a_floor_within_its_error_has_no_ratio():
    """Of real data against real data: the floor is 0 but for chance, and what is divided by it says nothing."""
    train = torch.randn(2000, 8)
    figures = [compare.in_features([torch.randn(200, 8)], torch.randn(200, 8), train)["kernel"] for _ in range(20)]
    assert any(f.floor > 0 for f in figures)
    assert sum(f.ratio is not None for f in figures) <= 4
    assert Figure("", 1.0, 0.3, None, "", floor_error=0.2).ratio is None
    assert Figure("", 1.0, 0.5, None, "", floor_error=0.2).ratio == 2


def test_no_ratio_to_a_floor_of_nothing():
    assert Figure("", 1.0, 0.0, None, "").ratio is None
    assert Figure("", 1.0, -0.1, None, "").ratio is None
    assert Figure("", 1.0, 4.0, None, "").ratio == 0.25
