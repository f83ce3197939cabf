"""Threads and compiling, chosen by trial: by what is measured, once, and only where a run can gain by it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from math import prod
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from torch.distributed import HashStore

from anydit.model.backend import use, used
from anydit.train import checkpoint, pace, trial
from anydit.train.base import Site
from anydit.train.config import TrainConfig
from anydit.train.loop import train
from anydit.train.memory import Planned
from anydit.train.mesh import Mesh
from anydit.train.pace import FOLDER, own_pace, paced
from anydit.train.parallel import Processes
from tests.train.tiny import silent, tiny

CPU = torch.device("cpu")
Times = Callable[[int, bool], float]


class Clock:
    """Stands for the clock alone: steps are taken, and said to take what a test wants."""

    def __init__(self) -> None:
        self.times: Times = lambda threads, compiled: 0.1
        self.backends: dict[str | None, float] = {}
        self.tried: list[tuple[int, bool]] = []
        self.tried_backends: list[str | None] = []

    def once(self, work: Callable[[], object], device: torch.device) -> float:
        work()
        return self._told(compiled=False)

    def by_compiling(self, model: object, work: Callable[[], object], device: torch.device) -> tuple[float, float]:
        work()
        return self._told(compiled=False), self._told(compiled=True)

    def by_backends(self, work: Callable[[], object], names: list[Any], device: torch.device) -> Any:
        work()
        self.tried_backends += names
        return {name: self._told(compiled=False) * self.backends.get(name, 1.0) for name in names}, {}

    def _told(self, *, compiled: bool) -> float:
        now = torch.get_num_threads(), compiled
        self.tried += [] if now in self.tried else [now]
        return self.times(*now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    clock = Clock()
    monkeypatch.setattr(pace, "cores", lambda: 4)
    monkeypatch.setattr(pace.os, "getloadavg", lambda: (0.1, 3.0, 3.0))
    monkeypatch.setattr(pace, "once", clock.once)
    monkeypatch.setattr(trial, "once", clock.once)
    monkeypatch.setattr(trial, "ROUNDS", 1)
    monkeypatch.setattr(pace, "by_compiling", clock.by_compiling)
    monkeypatch.setattr(pace, "by_backends", clock.by_backends)
    with own_pace():
        torch.set_num_threads(4)
        yield clock


def step(**options: Any) -> Planned:
    recipe = tiny()
    model = replace(recipe.model, channels=1, size=(8, 8), conditions={})
    return Planned(model, recipe.objective, TrainConfig(**{"steps": 4000, "batch": 4, **options}))


def found(step: Planned, note: Callable[[str], None] = silent) -> tuple[int | None, bool | None]:
    """The threads and whether compiled, by a process that has four threads."""
    torch.set_num_threads(4)
    chosen = paced(step, Site(Path(), CPU, note))
    assert torch.get_num_threads() == chosen.threads
    return chosen.threads, chosen.compile


def test_the_fastest_number_of_threads(clock: Clock):
    clock.times = lambda threads, compiled: {4: 0.03, 2: 0.02, 1: 0.04}[threads]
    said = list[str]()
    assert found(step(), said.append) == (2, False)
    assert clock.tried == [(4, False), (2, False), (1, False)]
    assert "Training in 2 threads: a step takes 0.02 s, and 0.03 s in 4 threads" in said[0]


def test_what_was_found_is_kept(clock: Clock):
    clock.times = lambda threads, compiled: 0.01 * threads
    assert found(step()) == found(step(steps=5000)) == (1, False)
    clock.times = lambda threads, compiled: 1 / threads
    said = list[str]()
    assert found(step(), said.append) == (1, False)
    assert said == ["Training in one thread, which was found to be fastest before."]
    assert found(step(batch=8)) == (4, False)  # another batch is another trial


def test_what_was_found_beside_other_work_is_not_kept(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    clock.times = lambda threads, compiled: 0.01 * threads
    monkeypatch.setattr(pace.os, "getloadavg", lambda: (2.5, 0.1, 0.1))
    assert found(step()) == (1, False)
    clock.times = lambda threads, compiled: 1 / threads
    assert found(step()) == (4, False)


@pytest.mark.parametrize("content", ["", "{", '{"threads": "many"}'])
def test_a_damaged_note_is_no_note(clock: Clock, tmp_path: Path, content: str):
    found(step())
    (kept,) = (tmp_path / "cache" / FOLDER).iterdir()
    kept.write_text(content)
    assert found(step()) == (4, False)
    assert json.loads(kept.read_text())["threads"] == 4


def test_a_cache_that_cannot_be_written(clock: Clock, tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    assert found(step()) == (4, False)


@pytest.mark.parametrize(("compiled", "expected"), [(0.3, True), (0.39, False)])
def test_a_long_run_is_compiled_where_that_pays(clock: Clock, compiled: float, expected: bool):
    clock.times = lambda threads, is_compiled: compiled if is_compiled else 0.4
    assert found(step()) == (4, expected)
    clock.times = lambda threads, is_compiled: 0.4
    assert found(step()) == (4, expected)
    assert clock.tried == [(4, False), (2, False), (1, False), (4, True)]


def test_a_short_run_is_not_compiled(clock: Clock):
    clock.times = lambda threads, compiled: 0.01 if compiled else 0.4
    assert found(step(steps=1000)) == (4, False)
    assert found(step(steps=4000)) == (4, True)
    assert found(step(steps=1000)) == (4, False)  # although it is known to be faster


def test_a_long_step_has_work_for_all(clock: Clock):
    clock.times = lambda threads, compiled: 2.0
    assert found(step(compile=False)) == (4, False)
    assert clock.tried == [(4, False)]


@pytest.mark.parametrize("options", [{"steps": 499}, {"threads": 3, "compile": False, "attention_backend": "flash"}])
def test_nothing_is_tried(clock: Clock, options: dict[str, Any]):
    assert found(step(**options)) == (options.get("threads", 4), False)
    assert not clock.tried


def test_what_the_recipe_says_holds(clock: Clock):
    clock.times = lambda threads, compiled: 0.4 / threads
    assert found(step(threads=3)) == (3, False)
    assert found(step(compile=True)) == (4, True)
    assert set(clock.tried) == {(3, False), (4, False), (2, False), (1, False)}


def test_no_more_threads_than_a_container_has_the_time_of(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    clock.times = lambda threads, compiled: 2.0
    monkeypatch.setattr(pace, "cores", lambda: 2)
    said = list[str]()
    assert found(step(compile=False, attention_backend="flash"), said.append) == (2, False)
    assert said == ["Training in 2 threads at most: this place gives no more of its 4 processors."]
    assert found(step(threads=3, compile=False)) == (3, False)  # as asked


@pytest.mark.parametrize(("gain", "expected"), [(0.9, "math"), (0.97, None)])
def test_attention_is_computed_by_what_is_fastest(clock: Clock, gain: float, expected: str | None):
    clock.backends = {"math": gain, "flash": 1.1}
    said = list[str]()
    for _ in range(2):  # the second from what is kept
        chosen = paced(step(compile=False, threads=3), Site(Path(), CPU, said.append))
        assert used() == chosen.attention_backend == expected
    assert clock.tried_backends == [None, "math"]
    assert bool(said) == bool(expected)
    if expected:
        assert said[0].startswith("Attention by PyTorch's backend math: a step takes 0.09 s, and 0.1 s otherwise")


def test_compiling_is_tried_with_the_fastest_attention(clock: Clock):
    clock.backends = {"math": 0.5, "flash": 1.1}
    seen = list[str | None]()

    def times(threads: int, compiled: bool) -> float:
        seen.append(used())
        return 0.7 if compiled else 0.8

    clock.times = times
    chosen = paced(step(threads=1), Site(Path(), CPU, silent))
    assert (chosen.attention_backend, chosen.compile) == ("math", True)
    assert seen[-1] == used() == "math"


def test_each_backend_is_timed_in_its_turn():
    seen = list[str | None]()
    found, failed = trial.by_backends(lambda: seen.append(used()), [None, "flash", "math"], CPU)
    assert list(found) == [None, "flash", "math"] and not failed
    assert seen == [None, "flash", "math"] * trial.TIMES
    assert used() is None


def test_a_backend_that_fails_is_left_out():
    """As cuDNN does on a GPU for what it has no plan for; PyTorch's choice must not."""

    def work() -> None:
        if used() == "flash":
            raise RuntimeError("No execution plans support the graph.\nand more")

    found, failed = trial.by_backends(work, [None, "flash", "math"], CPU)
    assert list(found) == [None, "math"] and failed == {"flash": "No execution plans support the graph."}
    with pytest.raises(RuntimeError, match="never"):
        trial.by_backends(fail, [None, "flash"], CPU)


def fail() -> None:
    raise RuntimeError("never")


def test_attention_in_products_is_not_tried_where_scores_would_take_much_memory(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    one = step(threads=1, compile=False)
    scores = 4 * one.model.heads * one.model.depth * prod(one.model.grid) ** 2
    monkeypatch.setattr(trial, "free_bytes", lambda device: trial.CLEAR * trial.SCORE_BYTES * scores)
    paced(one, Site(Path(), CPU, silent))
    assert not clock.tried_backends
    monkeypatch.setattr(trial, "free_bytes", lambda device: trial.CLEAR * trial.SCORE_BYTES * scores + 1)
    paced(one, Site(Path(), CPU, silent))
    assert clock.tried_backends == [None, "math"]


@pytest.mark.parametrize("steps", [500, 900])
def test_attention_is_tried_where_that_is_a_small_part_of_the_run(clock: Clock, steps: int):
    """Two backends nine times each are two in a hundred of 900 steps; what is kept of a shorter run is no trial."""
    clock.backends = {"math": 0.5}
    for so_many in (500, steps):
        chosen = paced(step(threads=1, compile=False, steps=so_many), Site(Path(), CPU, silent))
        assert chosen.attention_backend == ("math" if so_many == 900 else None)


def test_a_trial_that_takes_long_is_told_before(clock: Clock):
    clock.times = lambda threads, compiled: 0.5
    said = list[str]()
    paced(step(threads=1, compile=False), Site(Path(), CPU, said.append))
    assert said == ["Trying which kernel computes attention fastest, which takes about 9 s."]


def test_in_bfloat16_the_other_way_is_flash(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "product_dtype", lambda device, bf16: torch.bfloat16)
    assert trial.backends_to_try(step(), CPU) == [None, "flash"]
    assert trial.backends_to_try(step(), torch.device("cuda")) == [None, "flash", "cudnn", "efficient"]
    assert trial.backends_to_try(step(), torch.device("mps")) == [None]
    long = replace(step().model, size=(256, 256))
    assert trial.backends_to_try(replace(step(), model=long), CPU) == [None]


def test_the_backend_that_is_asked_for_is_taken(clock: Clock):
    clock.backends = {"math": 0.5}
    chosen = paced(step(threads=1, attention_backend="flash"), Site(Path(), CPU, silent))
    assert chosen.attention_backend == used() == "flash"
    assert not clock.tried_backends


def test_a_backend_that_the_device_has_not_is_refused():
    with pytest.raises(ValueError, match=r"train\.attention_backend: got cudnn on cpu, expected one of flash, math"):
        TrainConfig(attention_backend="cudnn").check_device(CPU)
    with pytest.raises(ValueError, match=r"got flash on mps, expected None"):
        TrainConfig(attention_backend="flash").check_device(torch.device("mps"))


class Both:
    """Two processes, one after the other, and where the first leaves word."""

    def __init__(self) -> None:
        self.store = HashStore()

    def site(self, rank: int, note: Callable[[str], None] = silent, shard: int = 1) -> Site:
        mesh = Mesh(2 // shard, shard)
        return Site(Path(), CPU, note, Processes(rank, 2, mesh, store=self.store))


def test_of_several_processes_the_first_tries_for_all_with_the_threads_that_it_has(clock: Clock):
    clock.backends = {"math": 0.5}
    clock.times = lambda threads, compiled: 0.8 if compiled else 1.5
    both = Both()
    for rank in range(2):
        torch.set_num_threads(4)
        chosen = paced(step(), both.site(rank))
        assert (chosen.threads, chosen.compile, chosen.attention_backend, used()) == (4, True, "math", "math")
        assert chosen.batch == 4
        tried = clock.tried
        use(None)
    assert tried == [(4, False), (4, True)]


def test_processes_that_share_a_model_try_nothing_and_say_so(clock: Clock):
    both, said = Both(), list[str]()
    for rank in range(2):
        chosen = paced(step(), both.site(rank, said.append, shard=2))
        assert (chosen.threads, chosen.compile, clock.tried) == (4, False, [])
    assert len(said) == 1 and said[0].startswith("Processes that share a model try neither compiling nor attention's")


def test_what_one_process_has_the_memory_for_is_decided_by_the_first_alone(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """Nobody may wait for a word that the first does not leave."""
    both = Both()
    both.store.set_timeout(timedelta(seconds=1))
    with monkeypatch.context() as less:
        less.setattr(trial, "free_bytes", lambda device: 0)
        first = paced(step(compile=False), both.site(0))
    assert paced(step(compile=False), both.site(1)) == first


def test_training_goes_on_where_blocks_cannot_be_compiled(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The checked annotations of the tests cannot be, so that this is a real failure."""
    monkeypatch.undo()
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pace, "LONG", 0.0)
    said = list[str]()
    assert found(step(threads=1), said.append) == (1, False)
    assert said[-1].startswith("Blocks are not compiled here (")


def test_a_run_says_how_it_went_and_leaves_the_threads_as_they_were(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(pace, "FEW", 1)
    clock.times = lambda threads, compiled: 0.1 * threads
    train(tiny(), tmp_path / "run", "cpu", silent)
    assert torch.get_num_threads() == 4
    newest = checkpoint.newest(tmp_path / "run" / "checkpoints", silent)
    assert newest is not None
    assert {"threads": 1, "compile": False, "attention_backend": None}.items() <= newest.info().items()
    said, recipe = list[str](), tiny()
    train(replace(recipe, train=replace(recipe.train, steps=16, threads=2)), tmp_path / "run", "cpu", said.append)
    assert "The run had threads 1, now it is 2: losses may differ in their last bits." in said


def test_a_run_goes_on_as_it_began(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Although nothing is known any more of what was found, and would be found otherwise."""
    monkeypatch.setattr(pace, "FEW", 1)
    clock.times = lambda threads, compiled: 0.1 * threads
    train(tiny(), tmp_path / "run", "cpu", silent)
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "another"))
    clock.times = lambda threads, compiled: 0.1 / threads
    said, recipe = list[str](), tiny()
    train(replace(recipe, train=replace(recipe.train, steps=16)), tmp_path / "run", "cpu", said.append)
    assert not [line for line in said if "The run had" in line]
    newest = checkpoint.newest(tmp_path / "run" / "checkpoints", silent)
    assert newest is not None
    assert (newest.step, newest.info()["threads"]) == (16, 1)


def test_on_another_kind_of_device_a_run_is_tried_anew(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What computes attention on a CPU is not what should on a GPU."""
    clock.backends = {"math": 0.5}
    monkeypatch.setattr(pace, "FEW", 1)
    monkeypatch.setattr(pace, "SMALL", 1e9)
    train(tiny(), tmp_path / "run", "cpu", silent)
    now, clock.backends = checkpoint.told(tmp_path / "run" / "checkpoints"), {}
    assert (now["device"], now["attention_backend"]) == ("cpu", "math")
    site = Site(tmp_path / "run", CPU, silent)
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "another"))
    assert paced(step(), site).attention_backend == "math"
    monkeypatch.setattr(pace, "told", lambda root: now | {"device": "cuda"})
    assert paced(step(), site).attention_backend is None


def test_trials_leave_no_memory_behind(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    models, real = list[Any](), pace.trial

    def once_more(*given: Any) -> Any:
        assert not [model for model in models if model() is not None], "a GPU has memory for one"
        made = real(*given)
        models.append(ref(made[0].model))
        return made

    monkeypatch.setattr(pace, "trial", once_more)
    clock.times = lambda threads, compiled: 0.4
    found(step())
    assert len(models) == 3
    assert not [model for model in models if model() is not None]


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match=r"train\.threads: got 0, expected at least 1"):
        TrainConfig(threads=0)
