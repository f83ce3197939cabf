"""Samples of several sizes: what reads them goes bucket by bucket, and nothing mixes."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from anydit.data import ArraySamples, Facts, Samples
from anydit.data.base import Bucketed, digest
from anydit.data.buckets import Groups, OneSize, by_bucket, by_size, each_size, fullest, shares, together
from anydit.data.mirrored import Mirrored
from anydit.tensors import Batch

FACTS = Facts(1, (4, 2), {"label": ("a", "b")})


def group(size: tuple[int, ...], n: int, first: int = 0) -> ArraySamples:
    """`n` samples, each full of its number from `first` on, in two classes."""
    number = torch.arange(first, first + n)
    x = number.reshape(-1, 1, *(1,) * len(size)).expand(-1, 1, *size).float().numpy()
    return ArraySamples(np.array(x), replace(FACTS, size=size), {"label": number % 2})


def three() -> Groups:
    """Ten samples: two of 2x4, five of 4x2, three of 3x3, numbered by their ids."""
    return Groups([group((2, 4), 2), group((4, 2), 5, 2), group((3, 3), 3, 7)])


@dataclass(frozen=True)
class Turning:
    """Samples of two sizes in turn: what a modality of one's own may be."""

    facts: Facts = FACTS
    sizes: tuple[tuple[int, ...], ...] = ((4, 2), (2, 4), (9, 9))

    @property
    def buckets(self) -> torch.Tensor:
        return torch.arange(7) % 2

    def __len__(self) -> int:
        return 7

    def read(self, ids: torch.Tensor) -> Batch:
        assert len((ids % 2).unique()) == 1
        x = ids.reshape(-1, 1, 1, 1).expand(-1, 1, *self.sizes[int(ids[0]) % 2]).float()
        return Batch(x, {"label": ids % 2}, ids)


def test_groups_are_one_data_set() -> None:
    samples = three()
    assert isinstance(samples, Bucketed) and isinstance(samples, Samples) and not isinstance(group((2,), 3), Bucketed)
    assert len(samples) == 10 and samples.sizes == [(2, 4), (4, 2), (3, 3)]
    assert samples.buckets.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert samples.facts == replace(FACTS, size=(4, 2)), "the size that most have"
    for ids, size in (([1, 0], (2, 4)), ([6, 2, 2], (4, 2)), ([9], (3, 3))):
        batch = samples.read(torch.tensor(ids))
        assert batch.x.shape[2:] == size and batch.ids.tolist() == ids
        assert batch.x[:, 0, 0, 0].tolist() == ids and batch.cond["label"].tolist() == [i % 2 for i in ids]


def test_a_batch_never_mixes_sizes() -> None:
    with pytest.raises(ValueError, match=r"^ids: got samples of sizes 2x4 and 3x3 in one batch, expected one size"):
        three().read(torch.tensor([1, 8]))


def test_groups_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="groups: got none"):
        Groups([])
    with pytest.raises(ValueError, match="groups: got two of size 2x4, expected one of each size"):
        Groups([group((2, 4), 2), group((2, 4), 3)])
    with pytest.raises(ValueError, match="groups: got one of the sizes 2x4, 4x2, 3x3, expected one size in each"):
        Groups([group((5, 5), 2), three()])
    other = replace(group((5, 5), 2), facts=Facts(1, (5, 5), {"label": ("a", "c")}))
    with pytest.raises(
        ValueError, match=r"groups: got classes \{'label': \('a', 'c'\)\} of .* 5x5, expected .* of size 2x4"
    ):
        Groups([group((2, 4), 2), other])


@pytest.mark.parametrize("samples", [three(), Turning()], ids=["groups", "a class of one's own"])
def test_all_ids_come_bucket_by_bucket(samples: Bucketed) -> None:
    ids = torch.arange(len(samples)).flip(0)
    parts = list(by_bucket(samples, ids, 2))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(samples)))
    for part in parts:
        assert len(part) <= 2 and len(samples.buckets[part].unique()) == 1
        assert part.tolist() == sorted(part.tolist(), reverse=True), "in their order"
        assert samples.read(part).x[:, 0, 0, 0].tolist() == part.tolist()


def test_ids_of_one_size_come_in_order() -> None:
    assert [part.tolist() for part in by_bucket(group((3,), 5), torch.tensor([4, 1, 0]), 2)] == [[4, 1], [0]]


def test_each_size_is_data_of_its_own() -> None:
    groups, turning = by_size(three()), by_size(Turning())
    assert [part.facts.size for part in groups] == [(4, 2), (3, 3), (2, 4)], "the most first"
    assert [part.facts.size for part in turning] == [(4, 2), (2, 4)], "none without samples"
    for part in (*groups, *turning):
        batch = part.read(torch.arange(len(part)))
        assert batch.ids.tolist() == list(range(len(part))) and batch.x.shape[2:] == part.facts.size
    assert turning[1].read(torch.tensor([2, 0])).x[:, 0, 0, 0].tolist() == [5, 1]
    assert isinstance(turning[1], OneSize) and not isinstance(turning[1], Bucketed)
    alone = group((2,), 3)
    assert by_size(alone) == [alone] and fullest(alone) is alone
    assert fullest(three()).facts.size == (4, 2)
    assert shares(three()) == "4x2 (50%), 3x3 (30%), 2x4 (20%)"


def test_what_wraps_samples_wraps_each_size() -> None:
    mirrored = each_size(three(), Mirrored)
    assert isinstance(mirrored, Bucketed) and len(mirrored) == 20
    assert mirrored.buckets.bincount().tolist() == [10, 6, 4]
    assert isinstance(each_size(group((2, 2), 3), Mirrored), Mirrored)


def test_together_leaves_out_what_is_empty() -> None:
    full, empty = group((2, 4), 2), group((3, 3), 0)
    assert together([empty, full]) is full and together([empty]) is empty
    assert len(together([empty, full, group((4, 2), 3)])) == 5


def test_the_digest_knows_sizes() -> None:
    plain, turned = three(), Groups([group((4, 2), 2), group((2, 4), 5, 2), group((3, 3), 3, 7)])
    assert digest(plain) == digest(three()) != digest(turned)
    # More than 64 samples, of which one beyond those that are looked at is in another bucket.
    several = [Groups([group((2, 2), n), group((1, 1), 1000 - n, n)]) for n in (500, 501)]
    assert digest(several[0]) != digest(several[1])
