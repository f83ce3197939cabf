"""Processes that have parts of a model, or of each sample's tokens: the same curve, checkpoints that anyone reads."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anydit.model.attention import Axial
from anydit.model.dit import DiT
from anydit.model.points import Points
from anydit.model.text import Joint, Text
from anydit.train import checkpoint
from anydit.train.checkpoint import Share, Unwritten, newest
from anydit.train.context import check_context
from anydit.train.loop import train
from anydit.train.mesh import Mesh
from anydit.train.pieces import Piece
from anydit.train.recompute import recompute
from tests.train.test_parallel import off
from tests.train.tiny import ends_as, losses, silent, state_hash, tiny, tiny_with
from tests.train.tiny_codec import tiny_codec
from tests.train.together import run_together

SHARD, CONTEXT = ("--train.mesh.shard", "2"), ("--train.mesh.context", "2")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that have a half of the weights each."""
    out = tmp_path_factory.mktemp("split") / "parts"
    codes, printed = run_together(out, 2, *SHARD)
    assert codes == [0, 0], printed
    return out


def test_a_model_in_parts_learns_the_same(parts: Path, whole: Path):
    assert 0 < off(parts, whole) < 1e-5
    found = newest(parts / "checkpoints")
    assert found is not None
    assert {file.name for file in found.folder.glob("*.safetensors")} == {
        f"{group}-{n}-of-2.safetensors" for group in ("model", "ema", "optimizer", "norms") for n in (1, 2)
    }
    own = DiT(train(tiny(), whole, "cpu", silent).config.model).state_dict()
    for group in ("model", "ema"):
        assert {name: tensor.shape for name, tensor in found.tensors(group).items()} == {
            name: tensor.shape for name, tensor in own.items()
        }


@pytest.mark.fault("T11", "T12")
def test_what_is_in_parts_goes_on_in_others(whole: Path, tmp_path: Path):
    """Two halves, then two copies of two halves each (HSDP), then one process; nothing is lost on the way."""
    assert run_together(tmp_path, 2, *SHARD, "--train.steps", "4")[0] == [0, 0]
    saved = state_hash(tmp_path)
    codes, printed = run_together(tmp_path, 4, *SHARD, "--train.steps", "4")
    assert codes == [0] * 4 and state_hash(tmp_path) == saved
    codes, printed = run_together(tmp_path, 4, *SHARD, "--train.steps", "8")
    assert codes == [0] * 4
    assert "The run had mesh 1 x 2 x 1 x 1 (replicate, shard, context, tensor), now it is 2 x 2 x 1 x 1" in " ".join(
        printed[0].split()
    )
    train(tiny(), tmp_path, "cpu", silent)
    assert off(tmp_path, whole) < 1e-5


def test_tokens_in_parts_give_the_same(whole: Path, tmp_path: Path):
    codes, printed = run_together(tmp_path, 2, *CONTEXT, "--train.accumulate", "2")
    assert codes == [0, 0], printed
    assert off(tmp_path, whole) < 1e-5


@pytest.mark.fault("T3", "T5")
def test_one_that_is_killed_while_it_writes_its_part(parts: Path, tmp_path: Path):
    """The checkpoint of step 8 has one of its two parts, and does not count."""
    kill = """
import os, signal
from anydit.train import checkpoint
real = checkpoint._write
def write(folder, groups, share):
    os.kill(os.getpid(), signal.SIGKILL) if folder.name.endswith("8") else None
    return real(folder, groups, share)
checkpoint._write = write
"""
    codes, _ = run_together(tmp_path, 2, *SHARD, own={1: kill})
    assert codes == [1, -signal.SIGKILL]
    found = newest(tmp_path / "checkpoints")
    assert found is not None and found.step == 4
    assert run_together(tmp_path, 2, *SHARD)[0] == [0, 0]
    ends_as(tmp_path, parts)


@pytest.mark.fault("T10")
def test_a_part_that_cannot_be_written_is_said_by_all(tmp_path: Path):
    """Of several processes: the disk of one is full."""
    full = """
from anydit.train import checkpoint
def write(folder, groups, share):
    raise OSError(28, "No space left on device")
checkpoint._write = write
"""
    codes, printed = run_together(tmp_path, 2, *SHARD, own={1: full})
    assert all(code != 0 for code in codes) and "No space left on device" in "".join(printed)
    assert newest(tmp_path / "checkpoints") is None and not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(("writers", "readers"), [(1, 3), (3, 1), (2, 3), (3, 2), (4, 5)])
def test_any_number_reads_what_any_number_wrote(tmp_path: Path, writers: int, readers: int):
    """Five rows among so many, some of which then have none."""
    table, count = torch.arange(10.0).reshape(5, 2), torch.tensor(7.0)

    def cut(number: int, of: int) -> Piece:
        each = -(-5 // of)
        return Piece((5, 2), ((min(5, number * each), min(5, (number + 1) * each)),))

    def rows(piece: Piece) -> Tensor:
        return table[slice(*piece.rows[0])]

    checkpoint.begin(tmp_path, 3)
    for number in reversed(range(writers)):
        piece = cut(number, writers)
        groups = {"optimizer": {"w:exp_avg": rows(piece), "w:step": count}}
        checkpoint.save(tmp_path, 3, groups, {"step": 3}, 1, Share(number, writers, {"w": piece}, patience=5))
    found = newest(tmp_path)
    assert found is not None
    for number in range(readers):
        piece = cut(number, readers)
        read = found.tensors("optimizer", {"w": piece})
        assert torch.equal(read["w:exp_avg"], rows(piece)) and read["w:step"] == count


def test_a_writer_that_says_nothing_is_not_waited_for_without_end(tmp_path: Path):
    checkpoint.begin(tmp_path, 3)
    with pytest.raises(Unwritten, match=r"had not written its part of the checkpoint after 0\.1 s"):
        checkpoint.save(tmp_path, 3, {"model": {}}, {}, 1, Share(0, 2, patience=0.1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mesh", "world", "said"),
    [
        (Mesh(shard=2), 3, r"train\.mesh: got 2 x 1 x 1 for 3 processes, expected a divisor of their number"),
        (Mesh(2, 2), 2, r"train\.mesh: got 2 x 2 x 1 x 1 for 2 processes, expected their number"),
        (Mesh(context=2), 1, r"train\.mesh: got 1 x 2 x 1 for 1 processes"),
    ],
)
def test_a_mesh_of_another_number_of_processes_is_refused(mesh: Mesh, world: int, said: str):
    with pytest.raises(ValueError, match=said):
        mesh.of(world)
    assert str(Mesh(shard=2).of(6)) == "3 x 2 x 1 x 1 (replicate, shard, context, tensor)"


def test_tokens_that_cannot_be_shared_are_refused():
    model, two = tiny().model, Mesh(context=2)
    for changed, said in (
        (replace(model, depth=2, attention=Axial(((0,), (1,)))), "beside Axial"),
        (replace(model, patch=(1,), position=Points(axes=1)), "beside Points"),
        (replace(model, conditions={"text": Text(entry=Joint())}), "beside a text that enters by Joint"),
        (replace(model, size=(12, 12)), "a divisor of the 9 tokens"),
    ):
        with pytest.raises(ValueError, match=said):
            check_context(changed, two)
    with pytest.raises(ValueError, match="got 3, expected a divisor of heads 2"):
        replace(tiny(), train=replace(tiny().train, mesh=Mesh(context=3)))


def test_an_autoencoder_is_not_split():
    with pytest.raises(ValueError, match=r"train\.mesh: got all x 2 x 1 x 1 .* for an autoencoder"):
        replace(tiny_codec().train, mesh=Mesh(shard=2))


def test_what_is_computed_again_is_the_same_and_keeps_less(whole: Path, tmp_path: Path):
    train(tiny_with(recompute=1.0), tmp_path, "cpu", silent)
    assert losses(tmp_path) == losses(whole)
    assert kept_bytes(0.0) > 1.5 * kept_bytes(0.5) > 2 * kept_bytes(1.0)
    with pytest.raises(ValueError, match=r"train\.recompute: got 2\.0, expected 0 to 1"):
        tiny_with(recompute=2)


@pytest.mark.parametrize(("depth", "share", "expected"), [(100, 0.29, 29), (12, 0.5, 6), (3, 0.0, 0), (7, 1.0, 7)])
def test_the_nearest_number_of_blocks_is_computed_again(depth: int, share: float, expected: int):
    with torch.device("meta"):
        model = DiT(replace(tiny().model, depth=depth, channels=1, size=(8, 8), conditions={}))
    recompute(model, share)
    assert sum("forward" in vars(block) for block in model.blocks) == expected


def kept_bytes(share: float) -> int:
    """What the backward pass of a network keeps."""
    model = DiT(replace(tiny().model, depth=4, channels=1, size=(8, 8), conditions={}))
    recompute(model, share)
    kept = list[int]()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        model(torch.ones(4, 1, 8, 8), torch.ones(4))
    return sum(kept)
