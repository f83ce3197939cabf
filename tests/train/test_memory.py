"""The memory of a step: counted without taking it, as large as what is taken, and refused where it is not there."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import torch

from anydit.codecs import TextEncoder
from anydit.codecs.base import CPU
from anydit.model.dit import DiTConfig
from anydit.model.flops import cost
from anydit.model.text import Cross, Text
from anydit.train import memory
from anydit.train.base import Site
from anydit.train.loop import train
from anydit.train.memory import Planned, largest_batch, largest_grid, needed, refuse_too_large
from anydit.train.mesh import Mesh
from anydit.train.optim import Muon
from anydit.train.parallel import Processes
from anydit.train.posthoc import Profiles
from anydit.train.routing import Route
from tests.train.tiny import silent, tiny, tiny_with

MIB = 2**20


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are checked where tensors have values; checking those that have none takes half of the time here."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def step(**train) -> Planned:
    """Digits, in a network whose activations are most of its memory."""
    model = DiTConfig(width=64, depth=3, heads=2, patch=(2, 2), channels=1, size=(16, 16))
    return Planned(model, tiny().objective, replace(tiny_with(batch=64).train, **train))


def test_it_is_what_is_really_kept():
    """The same count over a real step, whose tensors have values."""
    counted = needed(step(), CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FakeTensorMode", nullcontext)
        assert needed(step(), CPU) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_tokens_that_pass_by_blocks_keep_nothing_in_them(share: float):
    """Of three blocks they pass by one."""
    whole, empty = needed(step(), CPU), needed(step(batch=1), CPU)
    alone = needed(replace(step(), model=replace(step().model, depth=2)), CPU)
    routed = needed(step(routing=Route(share)), CPU)
    assert routed - empty == pytest.approx(whole - empty - share * (whole - alone), rel=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FakeTensorMode", nullcontext)
        assert needed(step(routing=Route(share)), CPU) == pytest.approx(routed, rel=0.02)


def test_it_falls_with_what_saves_memory():
    whole = needed(step(), CPU)
    for saving in ({"accumulate": 4}, {"recompute": 1.0}, {"mesh": Mesh(1, 4)}, {"mesh": Mesh(1, 1, 4)}, {"batch": 16}):
        assert needed(step(**saving), CPU) < 0.6 * whole, saving
    assert needed(step(mesh=Mesh(1, tensor=2)), CPU) < 0.75 * whole  # what is between the products is not shared
    assert needed(step(batch=128), CPU) == pytest.approx(2 * whole, rel=0.1)


def test_a_text_has_as_many_tokens_as_its_encoder_may_make():
    model = replace(step().model, conditions={"text": Text(16, 8, Cross())})
    short, long = (
        replace(tiny(), model=model, encoders={"text": TextEncoder("minilm", tokens)}).step for tokens in (10, 300)
    )
    values = 4 * short.train.batch * 290 * model.width * model.depth * 2  # each block's keys and values of a text
    assert needed(long, CPU) - needed(short, CPU) > values


def test_gradients_of_earlier_pieces_and_of_buckets_are_counted():
    """Where activations are most of it, at their peak there are no gradients but these."""
    one, weights = needed(step(batch=16), CPU), 4 * cost(step().model).parameters
    for change, copies in (
        ({"batch": 64, "accumulate": 4}, 1),
        ({"batch": 64, "mesh": Mesh(4)}, 1),
        ({"batch": 64, "mesh": Mesh(2), "accumulate": 2}, 2),
        ({"batch": 16, "profiles": Profiles(lengths=(0.05, 0.1, 0.2))}, 3),
    ):
        assert needed(step(**change), CPU) - one == pytest.approx(copies * weights, rel=0.1), change
    hidden = 3 * 12 * 4 * 64**2
    assert one - needed(step(batch=16, optimizer=Muon()), CPU) == hidden, "of which Muon has one moment"


@pytest.mark.parametrize("mesh", [Mesh(1, 4), Mesh(1, 1, 4), Mesh(1, 2, 2), Mesh(2, 2, 1)], ids=str)
def test_each_process_has_its_rows_of_all_there_is_of_the_weights(mesh: Mesh):
    wide = Planned(DiTConfig(width=256, depth=4, heads=4, patch=(2, 2), channels=1, size=(8, 8)), tiny().objective,
                replace(tiny_with(batch=8).train, mesh=mesh))  # fmt: skip
    weights = 4 * cost(wide.model).parameters
    gathered = needed(wide, CPU) - weights - 5 * weights // (mesh.shard * mesh.context)
    assert 0.3 * weights < gathered < 1.5 * weights, "beside the whole average: a block, what is in none, activations"


def test_the_largest_that_fit():
    free = 60 * MIB
    batch = largest_batch(step(), free, CPU)
    assert 0.9 * free < needed(step().with_(batch), CPU) <= free < needed(step().with_(batch + batch // 8), CPU)
    grid = largest_grid(step(), free, CPU)
    assert grid is not None and grid[0] == grid[1]
    assert 0.8 * free < needed(step().with_(1, grid), CPU) <= free
    assert largest_batch(step(), MIB // 4, CPU) == 0 and largest_grid(step(), MIB // 4, CPU) is None


def test_a_step_that_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch):
    free = needed(step(), CPU) // 2
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    with pytest.raises(ValueError, match=r"train\.batch: got 64, .* 0\.\d GiB .* or --train\.accumulate \d"):
        refuse_too_large(step(), CPU)
    refuse_too_large(step(batch=16), CPU)
    refuse_too_large(step(accumulate=4), CPU)
    monkeypatch.setattr(memory, "free_bytes", lambda _: MIB)
    with pytest.raises(ValueError, match=r"a smaller model, or --train\.mesh\.shard"):
        refuse_too_large(step(), CPU)


def test_the_pieces_that_it_names_are_of_one_size(monkeypatch: pytest.MonkeyPatch):
    free = int(1.1 * needed(step(batch=3), CPU) / memory.MARGIN)
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    with pytest.raises(ValueError, match=r"--train\.batch \d+ or --train\.accumulate \d+") as refused:
        refuse_too_large(step(), CPU)
    pieces = int(str(refused.value).partition("--train.accumulate ")[2].split()[0])
    refuse_too_large(step(accumulate=pieces), CPU)
    with pytest.raises(ValueError, match=r"--train\.batch \d+ --train\.accumulate 1 or"):
        refuse_too_large(step(accumulate=2), CPU)


def test_training_says_so_before_it_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory, "free_bytes", lambda _: 2**15)
    with pytest.raises(ValueError, match=r"train\.batch: got 8, whose step needs"):
        train(tiny(), tmp_path, "cpu", silent)
    assert not (tmp_path / "log.jsonl").exists()


def test_processes_share_a_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The mesh counts that the processes have filled in, not the recipe's, which leaves their number open."""
    recipe, counted = tiny_with(batch=64), list[Planned]()

    def count(asked: Planned, _: torch.device) -> None:
        counted.append(asked)
        raise RuntimeError("counted")

    monkeypatch.setattr("anydit.train.recipe.refuse_too_large", count)
    samples = recipe.data.open("train")
    with pytest.raises(RuntimeError, match="counted"):
        recipe.begin(samples, Site(tmp_path, CPU, silent, Processes(0, 8, Mesh(8))))
    assert counted[0].train == replace(recipe.train, mesh=Mesh(8)) and counted[0].parts == 8
    most = largest_batch(step(mesh=Mesh(4)), needed(step(batch=32), CPU), CPU)
    assert most % 4 == 0 < most


@pytest.mark.parametrize("guess", [10, 10**4, 10**7])
def test_a_largest_size_is_found_in_few_tries(guess: int):
    asked = list[int]()

    def need(n: int) -> int:
        asked.append(n)
        return 10**6 + 700 * n

    best = memory._largest(need, guess, 10**8)
    assert best == (10**8 - 10**6) // 700 and len(asked) == len(set(asked)) <= 6
