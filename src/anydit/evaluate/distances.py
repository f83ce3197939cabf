"""Distances between two sets of samples, given their features: pure functions, in double precision where it matters.

Rows are samples. Nothing here needs more memory than the features and one block of a matrix of distances.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROWS_AT_ONCE = 1024
"""Rows of a matrix of distances that are in memory at one time."""

QUANTILES = 1000
"""Quantiles that stand for a distribution of numbers."""


class Estimate(NamedTuple):
    """A figure with its standard error."""

    value: float
    error: float


class PrecisionRecall(NamedTuple):
    """The share of samples that lie where real data lie, and the share of real data that lie where samples do."""

    precision: float
    recall: float


class Neighbours(NamedTuple):
    """Of each query: the distance to its nearest reference, and which reference that is."""

    distance: Float[Tensor, " n"]
    which: Int[Tensor, " n"]


class Moments(NamedTuple):
    """Mean and covariance (with n - 1) of features, in double precision."""

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]


def moments(features: Float[Tensor, "n d"]) -> Moments:
    """Mean and covariance of at least two rows."""
    if len(features) < 2:
        raise ValueError(f"features: got {len(features)} samples, expected at least 2 for a covariance")
    x = features.double()
    return Moments(x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def frechet(a: Moments, b: Moments) -> float:
    """The squared Fréchet distance of two Gaussians (Heusel 2017, eq. 6): |mean|^2 + tr(A + B - 2 (A B)^(1/2)).

    The trace of the root is that of the symmetric (A^(1/2) B A^(1/2))^(1/2), which exists for singular A and B too.
    """
    # By NumPy, since MKL, which PyTorch asks, gives up where few samples have features that are nearly all 0.
    values, vectors = np.linalg.eigh(a.covariance.cpu().numpy())
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b.covariance.cpu().numpy() @ root).clip(min=0)).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * float(cross)
    return max(0.0, float(distance))


def kernel_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], groups: int = 10) -> Estimate:
    """The unbiased squared maximum mean discrepancy under (x.y / d + 1)^3 (KID: Binkowski 2018, section 4).

    It is taken over all pairs. Its standard error comes from leaving out, one after the other, each of `groups`
    disjoint subsets of both sets (jackknife). For sets of one distribution it is 0 on average, so it may be negative.
    """
    groups = min(groups, len(a) // 2, len(b) // 2)
    if groups < 2:
        raise ValueError(
            f"features: got {len(a)} and {len(b)} samples, expected at least 4 of each for a kernel distance"
        )
    a, b = a.double(), b.double()
    in_a, in_b = (torch.arange(len(x), device=x.device) % groups for x in (a, b))
    aa, bb, ab = (
        _sums(x, y, i, j, groups) for x, y, i, j in ((a, a, in_a, in_a), (b, b, in_b, in_b), (a, b, in_a, in_b))
    )
    # A sample with itself is no pair.
    aa -= torch.diag(_per_group(_kernel_of_self(a), in_a, groups))
    bb -= torch.diag(_per_group(_kernel_of_self(b), in_b, groups))
    n, m = in_a.bincount(minlength=groups).double(), in_b.bincount(minlength=groups).double()

    def of(kept: Bool[Tensor, " g"]) -> float:
        k = kept.double()
        i, j = float(k @ n), float(k @ m)
        return float((k @ aa @ k) / (i * (i - 1)) + (k @ bb @ k) / (j * (j - 1)) - 2 * (k @ ab @ k) / (i * j))

    left_out = torch.tensor(
        [of(torch.arange(groups, device=a.device) != g) for g in range(groups)], dtype=torch.float64
    )
    error = ((groups - 1) / groups * (left_out - left_out.mean()).square().sum()).sqrt()
    return Estimate(of(torch.ones(groups, dtype=torch.bool, device=a.device)), float(error))


def precision_recall(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi 2019, arXiv 1904.06991, eqs. 1 and 2).

    A set's region is the union of balls around its samples, each reaching to that sample's k-th nearest neighbour.
    Both figures depend on the counts, so compare them at equal ones only.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"features: got {len(real)} and {len(fake)} samples, expected more than k = {k} of each")
    return PrecisionRecall(
        float(_covered(fake, real, _radii(real, k)).double().mean()),
        float(_covered(real, fake, _radii(fake, k)).double().mean()),
    )


def merge_nearest(
    best: Neighbours | None, queries: Float[Tensor, "n d"], more: Float[Tensor, "m d"], first: int
) -> Neighbours:
    """The nearest neighbours after `more` references, numbered from `first`, were looked at too."""
    near = [torch.cdist(q, more).min(dim=1) for q in queries.split(ROWS_AT_ONCE)]
    found = Neighbours(torch.cat([n.values for n in near]), torch.cat([n.indices for n in near]) + first)
    if best is None:
        return found
    nearer = found.distance < best.distance
    return Neighbours(torch.where(nearer, found.distance, best.distance), torch.where(nearer, found.which, best.which))


def _radii(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Each row's distance to its k-th nearest other row."""
    return torch.cat([torch.cdist(part, x).kthvalue(k + 1, dim=1).values for part in x.split(ROWS_AT_ONCE)])


def _covered(x: Float[Tensor, "n d"], centres: Float[Tensor, "m d"], radii: Float[Tensor, " m"]) -> Bool[Tensor, " n"]:
    return torch.cat([(torch.cdist(part, centres) <= radii).any(dim=1) for part in x.split(ROWS_AT_ONCE)])


def _kernel_of_self(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def _per_group(values: Float[Tensor, "n *rest"], group: Int[Tensor, " n"], groups: int) -> Tensor:
    return values.new_zeros(groups, *values.shape[1:]).index_add_(0, group, values)


def _sums(a: Tensor, b: Tensor, in_a: Tensor, in_b: Tensor, groups: int) -> Float[Tensor, "g g"]:
    """The kernel summed over all pairs, for each group of rows of `a` and of `b`."""
    total = a.new_zeros(groups, groups)
    for rows, group in zip(a.split(ROWS_AT_ONCE), in_a.split(ROWS_AT_ONCE), strict=True):
        kernel = (rows @ b.T / a.shape[1] + 1) ** 3
        total += _per_group(_per_group(kernel, group, groups).T.contiguous(), in_b, groups).T
    return total


def units(deviations: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Deviations as what to divide by: 1 where nothing varies."""
    return torch.where(deviations > 0, deviations, torch.ones_like(deviations))


def wasserstein(a: Float[Tensor, "*a"], b: Float[Tensor, "*b"]) -> float:
    """The distance (W1) of two sets of numbers, of any sizes: the mean distance between their quantiles."""
    at = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    both = [x.flatten().double().sort().values for x in (a, b)]
    # torch's own quantiles take no more than 2**24 numbers.
    first, second = (x[(at * len(x)).long()] for x in both)
    return float((first - second).abs().mean())


def crps(members: Float[Tensor, "m *shape"], truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The continuous ranked probability score of an ensemble, fair for few members (Ferro 2014): 0 is foreseen exactly.

    It is the members' mean distance from what came, less half of their mean distance from each other; of one member
    the absolute error.
    """
    m = len(members)
    away = (members - truth).abs().mean(0)
    if m == 1:
        return away
    # Sorted, the sum of all distances is a weighted sum: member i is above i others and below m - 1 - i.
    weight = 2 * torch.arange(m, device=members.device) - m + 1
    between = (members.sort(0).values * weight.reshape(-1, *(1,) * truth.ndim)).sum(0) * 2
    return away - between / (2 * m * (m - 1))
