"""The digest that tells one data set from another."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from anydit.data import ArraySamples, Facts
from anydit.data.base import digest
from anydit.tensors import Batch, Tokens, select

FACTS = Facts(1, (4,), {"label": ("a", "b")})
TOLD = Facts(1, (4,), texts=("text",))


def samples(n: int = 100, **changes) -> ArraySamples:
    x = np.random.default_rng(0).random((n, 1, 4), np.float32)
    made = ArraySamples(x, FACTS, {"label": torch.arange(n) % 2})
    return replace(made, **changes)


def test_the_same_data_have_the_same_digest():
    assert digest(samples()) == digest(samples())
    x = samples().x
    assert digest(samples(x=np.concatenate([x, x]), rows=torch.arange(100))) == digest(samples()), "wherever it lies"


@pytest.mark.parametrize("n", [1, 63, 64, 65, 100])
@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_first_or_last_sample_is_seen(n: int, place: int):
    changed = samples(n).x.copy()
    changed[place] += 1
    assert digest(samples(n, x=changed)) != digest(samples(n))


def test_what_is_known_and_how_many_there_are_is_seen():
    renamed = replace(FACTS, classes={"label": ("a", "c")})
    others = [
        samples(99),
        samples(cond={"label": (torch.arange(100) + 1) % 2}),
        samples(cond={}),
        samples(facts=renamed),
    ]
    others.append(samples(x=samples().x[::-1]))
    assert len({digest(samples()), *map(digest, others)}) == 6


@dataclass
class Told:
    """Three samples of which words, or what an encoder made of them, are known."""

    texts: tuple[str, ...] = ("a", "b", "c")
    tokens: Tokens | None = None
    facts: Facts = TOLD

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, ids: torch.Tensor) -> Batch:
        cond = {} if self.tokens is None else select({"text": self.tokens}, ids)
        return Batch(torch.zeros(len(ids), 1, 4), cond, ids, {"text": [self.texts[i] for i in ids.tolist()]})


def test_texts_are_seen():
    assert FACTS.conditions == ("label",) and Told().facts.conditions == ("text",)
    tokens = Tokens(torch.zeros(3, 2, 5), torch.ones(3, 2, dtype=torch.bool), torch.zeros(3, 4))
    last = torch.tensor([False, False, True])
    changes = [
        Told(("a", "b", "d")),
        Told(tokens=tokens),
        Told(tokens=tokens._replace(values=tokens.values + last[:, None, None])),
        Told(tokens=tokens._replace(exists=tokens.exists & ~last[:, None])),
        Told(tokens=tokens._replace(pooled=torch.ones(3, 4))),
        Told(tokens=tokens._replace(pooled=None)),
    ]
    assert digest(Told()) == digest(Told())
    assert len({digest(Told()), *map(digest, changes)}) == 7


@dataclass
class Counted:
    """A great many samples, of which it is counted how many are read."""

    facts: Facts = FACTS
    read_ids: list[int] = field(default_factory=list[int])

    def __len__(self) -> int:
        return 10**9

    def read(self, ids: torch.Tensor) -> Batch:
        self.read_ids += ids.tolist()
        return Batch(torch.zeros(len(ids), 1, 4), {"label": ids % 2}, ids)


def test_it_reads_little():
    counted = Counted()
    digest(counted)
    assert len(counted.read_ids) == 64
    assert (counted.read_ids[0], counted.read_ids[-1]) == (0, 10**9 - 1)
    assert max(np.diff(counted.read_ids)) < 10**9 / 60
