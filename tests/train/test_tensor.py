"""Processes that share the products of each block: they compute what one does, and have the gradients that it has."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.model.attention import Axial
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import LayerNorm, RMSNorm, SwiGLU
from anydit.model.points import Points
from anydit.model.text import Cross, Joint, Text
from anydit.tensors import Tokens
from anydit.train import checkpoint
from anydit.train.checkpoint import Checkpoint, Share, newest
from anydit.train.context import check_context
from anydit.train.log import read
from anydit.train.loop import train
from anydit.train.lora import LoRA
from anydit.train.mesh import Mesh
from anydit.train.optim import Muon
from anydit.train.pieces import Piece
from anydit.train.posthoc import Profiles
from anydit.train.tensor import Cut, Sharers, check_tensor, share_products
from anydit.weights import load_tensors, write_safetensors
from tests.train.test_parallel import off
from tests.train.tiny import ends_as, gated, pointed, silent, tiny, tiny_with
from tests.train.tiny_codec import tiny_codec
from tests.train.together import run_together

PLAIN = DiTConfig(width=24, depth=2, heads=6, patch=(2, 2), channels=1, size=(4, 4))
TOLD = {"text": Text(width=5, entry=Cross())}

TENSOR, SHARD, CONTEXT = (("--train.mesh." + name, "2") for name in ("tensor", "shard", "context"))

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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, whose network has norms of heads, and gates."""
    out = tmp_path_factory.mktemp("tensor") / "alone"
    train(gated(), out, "cpu", silent)
    return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two that have a half of its heads and hidden units each."""
    out = tmp_path_factory.mktemp("tensor") / "pair"
    codes, printed = run_together(out, 2, *TENSOR, recipe="gated")
    assert codes == [0, 0], printed
    return out


def exported(out: Path) -> bool:
    """Whether what was put together of the pieces in memory is what the checkpoint has on disk."""
    found, whole = newest(out / "checkpoints"), load_tensors(out / "model.safetensors")
    assert found is not None
    average = found.tensors("ema")
    return average.keys() == whole.keys() and all(torch.equal(average[name], whole[name]) for name in whole)


def test_two_that_share_products_learn_what_one_does(pair: Path, alone: Path):
    assert off(pair, alone) < 1e-6
    norms = [[entry["grad_norm"] for entry in read(out / "log.jsonl")] for out in (pair, alone)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6) and norms[0] != norms[1]
    assert exported(pair)


def test_products_outside_of_the_blocks_are_shared_too(tmp_path: Path):
    """What points learn of their distances, head by head; a half of the batch at a time, computed twice."""
    short = replace(pointed(), train=replace(tiny().train, steps=3))
    train(short, tmp_path / "alone", "cpu", silent)
    flags = ("--train.steps", "3", "--train.accumulate", "2", "--train.recompute", "1")
    codes, printed = run_together(tmp_path / "pair", 2, *TENSOR, *flags, recipe="pointed")
    assert codes == [0, 0], printed
    assert off(tmp_path / "pair", tmp_path / "alone") < 1e-6 and exported(tmp_path / "pair")


def test_a_run_that_stopped_goes_on_as_if_it_had_not(pair: Path, tmp_path: Path):
    for steps in ("6", "12"):
        assert run_together(tmp_path, 2, *TENSOR, "--train.steps", steps, recipe="gated")[0] == [0, 0]
    ends_as(tmp_path, pair)


@pytest.mark.fault("T11", "T12")
def test_a_run_goes_on_in_any_other_mesh(alone: Path, tmp_path: Path):
    """Two that share products, then two such pairs with half of their rows, or tokens, then one process."""
    assert run_together(tmp_path, 2, *TENSOR, "--train.steps", "3", recipe="gated")[0] == [0, 0]
    for mesh, steps in ((SHARD, "6"), (CONTEXT, "9")):
        codes, printed = run_together(tmp_path, 4, *TENSOR, *mesh, "--train.steps", steps, recipe="gated")
        assert codes == [0] * 4 and exported(tmp_path), printed
    train(gated(), tmp_path, "cpu", silent)
    assert off(tmp_path, alone) < 1e-6
    ours, theirs = newest(tmp_path / "checkpoints"), newest(alone / "checkpoints")
    assert ours is not None and theirs is not None
    for group in ("model", "ema", "optimizer"):
        torch.testing.assert_close(ours.tensors(group), theirs.tensors(group), rtol=1e-4, atol=1e-5)


Layout = list[Piece]


def layout(tensor: int, shard: int, axis: int, groups: int) -> Layout:
    """The pieces of a table of 12 x 8, in the order of the processes."""
    pieces = Layout()
    for row, column in product(range(shard), range(tensor)):
        shape = (12, 8 // tensor) if axis else (12 // tensor, 8)
        each = -(-shape[0] // shard)
        first, stop = (min(shape[0], n * each) for n in (row, row + 1))
        pieces.append(Cut(Sharers(column, tensor), axis, groups).piece(shape, first, stop))
    return pieces


MESHES = [(1, 1), (2, 1), (1, 5), (2, 2), (4, 2)]


@pytest.mark.parametrize(("axis", "groups"), [(0, 3), (1, 1)])
@pytest.mark.parametrize("written", MESHES)
def test_any_mesh_reads_what_any_mesh_wrote(tmp_path: Path, written: tuple[int, int], axis: int, groups: int):
    table = torch.arange(96.0).reshape(12, 8)

    def part(piece: Piece) -> Tensor:
        rows = torch.cat([table[a:b] for a, b in piece.rows] or [table[:0]])
        return rows[:, slice(*(piece.columns or (None,)))]

    checkpoint.begin(tmp_path, 3)
    pieces = layout(*written, axis, groups)
    for number, piece in reversed([*enumerate(pieces)]):
        share = Share(number, len(pieces), {"w": piece}, patience=5)
        checkpoint.save(tmp_path, 3, {"model": {"w": part(piece)}}, {"step": 3}, 1, share)
    found = newest(tmp_path)
    assert found is not None and torch.equal(found.tensors("model")["w"], table)
    for mesh in MESHES:
        for piece in layout(*mesh, axis, groups):
            assert torch.equal(found.tensors("model", {"w": piece})["w"], part(piece))


def test_pieces_that_were_rows_alone_are_read(tmp_path: Path):
    """As checkpoints said it before processes could share products."""
    table = torch.arange(10.0).reshape(5, 2)
    for n, (first, stop) in enumerate([(0, 3), (3, 5)]):
        said = {"rows": f'{{"w": [{first}, {stop}, 5]}}'}
        write_safetensors(tmp_path / f"model-{n + 1}-of-2.safetensors", {"w": table[first:stop].clone()}, said)
    found = Checkpoint(tmp_path, 3)
    assert torch.equal(found.tensors("model")["w"], table)
    piece = Piece((5, 2), ((1, 4),), (1, 2))
    assert torch.equal(found.tensors("model", {"w": piece})["w"], table[1:4, 1:])


def test_products_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match=r"train\.mesh\.tensor: got 3, expected a divisor of heads 2"):
        replace(tiny(), train=replace(tiny().train, mesh=Mesh(tensor=3)))
    with pytest.raises(ValueError, match=r"train\.mesh\.tensor: got 2, expected a divisor of hidden units 43"):
        check_tensor(replace(tiny().model, mlp=SwiGLU()), Mesh(tensor=2))
    with pytest.raises(ValueError, match=r"train\.mesh\.context: got 2, expected a divisor of heads 2 / tensor 2"):
        check_context(tiny().model, Mesh(context=2, tensor=2))
    with pytest.raises(ValueError, match=r"train\.mesh: got 1 x 1 x 2 for 3 processes"):
        Mesh(tensor=2).of(3)
    with pytest.raises(ValueError, match=r"train\.mesh\.tensor: got 0"):
        Mesh(tensor=0)


@pytest.mark.parametrize("beside", [{"optimizer": Muon()}, {"adapter": LoRA()}, {"profiles": Profiles()}])
def test_what_needs_whole_parameters_is_refused(beside: dict[str, Any]):
    with pytest.raises(
        ValueError, match=r"train\.mesh: got all x 1 x 1 x 2 .*, expected shard, context and tensor of 1"
    ):
        tiny_with(mesh=Mesh(tensor=2), **beside)


def test_an_autoencoder_shares_no_products():
    with pytest.raises(ValueError, match=r"train\.mesh: got all x 1 x 1 x 2 .* for an autoencoder"):
        replace(tiny_codec().train, mesh=Mesh(tensor=2))
