"""Processes that share the products of each block: they compute what one does, and have the gradients that it has."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from threading import Barrier, Thread

import pytest
import torch
from torch import Tensor

from anydit.model.attention import Axial
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import LayerNorm, RMSNorm, SwiGLU
from anydit.model.points import Points
from anydit.model.text import Cross, Joint, Text
from anydit.tensors import Tokens
from anydit.train.tensor import Cut, Sharers, share_products

PLAIN = DiTConfig(width=24, depth=2, heads=6, patch=(2, 2), channels=1, size=(4, 4))
TOLD = {"text": Text(width=5, entry=Cross())}

MODELS = {
    "plain": PLAIN,
    "norms of heads, gates": replace(PLAIN, qk_norm=RMSNorm(), mlp=SwiGLU(2.5)),
    "axial": replace(PLAIN, qk_norm=LayerNorm(), attention=Axial(((0,), (1,)))),
    "cross": replace(PLAIN, qk_norm=RMSNorm(), conditions=TOLD),
    "joint": replace(PLAIN, qk_norm=LayerNorm(), conditions={"text": Text(width=5, pooled=3, entry=Joint(dual=1))}),
    "points": replace(PLAIN, patch=(1,), channels=4, size=(5,), position=Points(axes=3)),
}


@dataclass
class Meeting:
    """Where threads add up what each has."""

    barrier: Barrier
    brought: dict[int, Tensor] = field(default_factory=dict[int, Tensor])


@dataclass(frozen=True)
class Threads(Sharers):
    """Sharers that are threads."""

    meeting: Meeting = field(default_factory=lambda: Meeting(Barrier(1)))

    def sum(self, x: Tensor) -> Tensor:
        self.meeting.brought[self.rank] = x
        self.meeting.barrier.wait()
        total = torch.stack([self.meeting.brought[n] for n in range(self.count)]).sum(0)
        self.meeting.barrier.wait()
        return total


def together(count: int, one: Callable[[Threads], None]) -> None:
    """Run it in so many threads."""
    meeting = Meeting(Barrier(count, timeout=20))
    threads = [Thread(target=one, args=(Threads(n, count, meeting=meeting),)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def filled(config: DiTConfig) -> DiT:
    """A network none of whose weights is zero, in doubles."""
    model, generator = DiT(config).double(), torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype) / 3
    return model


def passed(model: DiT) -> Tensor:
    """The output for a batch, whose gradients are found too."""
    generator, config = torch.Generator().manual_seed(2), model.config
    x = torch.randn(2, config.in_channels, *(config.size or ()), generator=generator, dtype=torch.float64)
    words, exists = torch.randn(2, 3, 5, generator=generator).double(), torch.tensor([[True, True, False], [True] * 3])
    cond = {name: Tokens(words, exists, words[:, 0, :3]) for name in config.conditions}
    output = model(x, torch.tensor([0.2, 0.7]).double(), cond)
    output.square().sum().backward()
    return output.detach()


def gradients(model: DiT) -> dict[str, Tensor]:
    """Of what was used."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [2, 3])
def test_each_computes_what_one_does_with_a_part_of_the_products(name: str, count: int):
    whole = filled(MODELS[name])
    models = [deepcopy(whole) for _ in range(count)]
    expected, outputs, cuts, partly = passed(whole), dict[int, Tensor](), list[dict[str, Cut]](), set[str]()

    def one(sharers: Threads) -> None:
        found, some = share_products(models[sharers.rank], sharers)
        cuts.append(found)
        partly.update(some)
        outputs[sharers.rank] = passed(models[sharers.rank])

    together(count, one)
    for n in range(count):
        torch.testing.assert_close(outputs[n], expected)
    own = [gradients(model) for model in models]
    for key, gradient in gradients(whole).items():
        parts = [some[key] for some in own]
        if key in cuts[0]:
            assert parts[0].numel() * count == gradient.numel()
            torch.testing.assert_close(cuts[0][key].whole(parts), gradient)
        elif key in partly:
            torch.testing.assert_close(torch.stack(parts).sum(0), gradient)
        else:
            torch.testing.assert_close(torch.stack(parts), gradient.expand(count, *gradient.shape))
    blocks = sum(p.numel() for p in whole.blocks.parameters())
    assert sum(p.numel() for p in models[0].blocks.parameters()) < 1.1 * blocks / count


@pytest.mark.parametrize(("axis", "groups"), [(0, 1), (0, 3), (1, 1)])
def test_a_part_is_where_its_piece_says(axis: int, groups: int):
    table, count = torch.arange(12 * 6).reshape(12, 6), 2
    cuts = [Cut(Sharers(n, count), axis, groups) for n in range(count)]
    parts = [cut.own(table) for cut in cuts]
    assert torch.equal(cuts[0].whole(parts), table)
    for cut, part in zip(cuts, parts, strict=True):
        for first, stop in ((0, len(part)), (1, 4), (3, 3)):
            piece = cut.piece(part.shape, first, stop)
            rows = torch.cat([table[a:b] for a, b in piece.rows] or [table[:0]])
            assert torch.equal(rows[:, slice(*(piece.columns or (None,)))], part[first:stop])
            assert piece.shape == table.shape and piece.own_shape == part[first:stop].shape
