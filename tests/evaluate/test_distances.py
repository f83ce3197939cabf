"""Distances between sets: against closed forms, brute force and other implementations."""

from itertools import product

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from anydit.evaluate import distances
from anydit.evaluate.distances import Moments, frechet, kernel_distance, merge_nearest, moments, precision_recall


def spread_out(n: int, d: int, seed: int = 0) -> Tensor:
    """Correlated, off-centre features."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=random) @ torch.randn(d, d, generator=random) + torch.rand(d, generator=random)


def by_scipy(a: Moments, b: Moments) -> float:
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy())
    traces = a.covariance.trace() + b.covariance.trace() - 2 * np.trace(root).real
    return float((a.mean - b.mean).square().sum() + traces)


def test_frechet_against_scipy():
    a, b = moments(spread_out(500, 12)), moments(spread_out(400, 12, seed=1))
    assert frechet(a, b) == pytest.approx(by_scipy(a, b), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


def test_frechet_of_known_gaussians():
    """For covariances that commute it is |mean|^2 + the sum of (std - std)^2."""
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    s, r = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 0.5, 0.0]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    a = Moments(torch.zeros(3, dtype=torch.float64), turn @ torch.diag(s**2) @ turn.T)
    b = Moments(shift, turn @ torch.diag(r**2) @ turn.T)
    assert frechet(a, b) == pytest.approx(float(shift.square().sum() + (s - r).square().sum()), rel=1e-7)


def test_frechet_of_fewer_samples_than_features():
    few, many = spread_out(10, 30), spread_out(1000, 30)
    assert frechet(moments(few), moments(few)) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(frechet(moments(few), moments(many)))
    assert frechet(moments(few), moments(many)) > frechet(moments(many[:500]), moments(many))


def test_frechet_of_a_single_feature():
    a, b = torch.randn(50, 1), torch.randn(60, 1) * 2 + 1
    expected = (a.double().mean() - b.double().mean()) ** 2 + (a.double().std() - b.double().std()) ** 2
    assert frechet(moments(a), moments(b)) == pytest.approx(float(expected), rel=1e-9)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="got 1 samples, expected at least 2"):
        moments(torch.randn(1, 4))


def kernel(x: Tensor, y: Tensor) -> float:
    return (float(x @ y) / len(x) + 1) ** 3


@pytest.mark.parametrize("seed", range(6))
def test_frechet_of_features_that_are_nearly_all_zero(seed: int):
    """Of four of these MKL's solver, which PyTorch asks, finds no eigenvalues."""
    random = torch.Generator().manual_seed(seed)
    few, some = torch.zeros(20, 1280, dtype=torch.float64), torch.randperm(1280, generator=random)[:106]
    weak = 10 ** (-6 * torch.rand(106, generator=random, dtype=torch.float64) - 3)
    few[:, some] = torch.randn(20, 106, generator=random, dtype=torch.float64) * weak
    kept = moments(few[:, some])
    others = moments(spread_out(200, 106)[:, :106].double() * weak)
    wide = Moments(torch.zeros(1280).double(), torch.zeros(1280, 1280).double())
    wide.mean[some], wide.covariance[some[:, None], some] = others.mean, others.covariance
    assert frechet(moments(few), wide) == pytest.approx(frechet(kept, others), rel=1e-6)


def test_kernel_distance_by_brute_force():
    a, b = spread_out(13, 3).double(), spread_out(17, 3, seed=1).double()
    within = [
        sum(kernel(s[i], s[j]) for i, j in product(range(len(s)), repeat=2) if i != j) / (len(s) * (len(s) - 1))
        for s in (a, b)
    ]
    between = sum(kernel(p, q) for p, q in product(a, b)) / (len(a) * len(b))
    assert kernel_distance(a.float(), b.float()).value == pytest.approx(sum(within) - 2 * between, rel=1e-4)
    assert kernel_distance(a, b).value == pytest.approx(sum(within) - 2 * between, rel=1e-9)


def test_kernel_distance_against_torchmetrics():
    a, b = spread_out(200, 8).double(), spread_out(200, 8, seed=1).double()
    other = float(poly_mmd(a, b))
    assert kernel_distance(a, b).value == pytest.approx(other, rel=1e-9)


def test_kernel_distance_of_one_distribution_is_0_on_average():
    draws = [kernel_distance(torch.randn(40, 4), torch.randn(60, 4)).value for _ in range(150)]
    mean, error = float(np.mean(draws)), float(np.std(draws)) / len(draws) ** 0.5
    assert abs(mean) < 4 * error
    assert min(draws) < 0 < max(draws)
    with_itself = ((torch.randn(1000, 4).square().sum(1) / 4 + 1) ** 3).mean() / 40
    assert 8 * error < float(with_itself), "too few draws to see a sample counted as a pair with itself"


def test_kernel_distance_knows_its_error():
    found = [kernel_distance(torch.randn(100, 4) + 0.5, torch.randn(150, 4)) for _ in range(100)]
    said = float(np.mean([f.error for f in found]))
    assert said == pytest.approx(float(np.std([f.value for f in found])), rel=0.35)


def test_kernel_distance_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch):
    a, b = spread_out(50, 3), spread_out(31, 3, seed=1)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(distances, "ROWS_AT_ONCE", 7)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-9)


def test_kernel_distance_of_too_few():
    with pytest.raises(ValueError, match="got 3 and 50 samples, expected at least 4"):
        kernel_distance(torch.randn(3, 2), torch.randn(50, 2))


def covered_by_hand(x: Tensor, region: Tensor, k: int) -> float:
    radii = [sorted(float((p - q).norm()) for q in region)[k] for p in region]
    inside = [any(float((p - q).norm()) <= r for q, r in zip(region, radii, strict=True)) for p in x]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_by_brute_force(k: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distances, "ROWS_AT_ONCE", 9)
    real, fake = torch.randn(40, 2).double(), (torch.randn(33, 2) * 0.5 + 1.5).double()
    found = precision_recall(real, fake, k)
    assert found.precision == pytest.approx(covered_by_hand(fake, real, k))
    assert found.recall == pytest.approx(covered_by_hand(real, fake, k))
    assert found.precision != found.recall


def test_precision_and_recall_of_extremes():
    real = torch.cat([torch.randn(100, 2), torch.randn(100, 2) + 50])
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 1000) == (0, 0)
    one_mode = precision_recall(real, real[:100] + 0.01 * torch.randn(100, 2))
    assert one_mode.precision > 0.95
    assert one_mode.recall == pytest.approx(0.5, abs=0.03)


def test_precision_of_too_few():
    with pytest.raises(ValueError, match="got 10 and 3 samples, expected more than k = 3"):
        precision_recall(torch.randn(10, 2), torch.randn(3, 2))


def test_nearest_of_parts_is_nearest_of_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distances, "ROWS_AT_ONCE", 4)
    queries, train = torch.randn(11, 5), torch.randn(50, 5)
    best = None
    for first in range(0, 50, 8):
        best = merge_nearest(best, queries, train[first : first + 8], first)
    assert best is not None
    expected = (queries[:, None] - train[None]).norm(dim=2).min(dim=1)
    torch.testing.assert_close(best.distance, expected.values)
    assert best.which.equal(expected.indices)


def test_wasserstein_against_scipy():
    a, b = spread_out(3000, 1)[:, 0], 2 * spread_out(2000, 1, seed=1)[:, 0] + 1
    assert distances.wasserstein(a, b) == pytest.approx(scipy.stats.wasserstein_distance(a, b), rel=0.02)
    assert distances.wasserstein(a, a) == 0
    assert distances.wasserstein(a, a + 3) == pytest.approx(3, rel=1e-5)


def test_crps_against_all_pairs():
    members, truth = spread_out(7, 5), spread_out(1, 5, seed=1)[0]
    pairs = sum((a - b).abs() for a in members for b in members) / (7 * 6)
    expected = (members - truth).abs().mean(0) - pairs / 2
    assert torch.allclose(distances.crps(members, truth), expected, atol=1e-6)
    assert torch.equal(distances.crps(members[:1], truth), (members[0] - truth).abs())


def test_crps_of_a_gaussian_does_not_depend_on_how_many_members_there_are():
    """A calibrated ensemble has 1 / sqrt(pi) deviations."""
    for m in (2, 5, 40):
        draws = torch.randn(m + 1, 40_000, generator=torch.Generator().manual_seed(m))
        assert float(distances.crps(draws[1:], draws[0]).mean()) == pytest.approx(np.pi**-0.5, rel=0.02), m
