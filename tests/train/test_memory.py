"""The memory of a step: counted without taking it, as large as what is taken, and refused where it is not there."""

import platform
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from math import prod
from pathlib import Path

import jaxtyping
import pytest
from torch.distributed import HashStore

from anydit.codecs import CodecConfig, KLAutoencoder, Latents, Normalize, TextEncoder
from anydit.codecs.base import CPU
from anydit.model.dit import DiTConfig
from anydit.model.flops import cost
from anydit.model.text import Cross, Text
from anydit.train import memory, parallel, room
from anydit.train.base import Site
from anydit.train.config import TrainConfig
from anydit.train.kernels import Kernels
from anydit.train.latents import Cached
from anydit.train.loop import train
from anydit.train.memory import Planned, needed
from anydit.train.mesh import Mesh
from anydit.train.optim import Muon
from anydit.train.parallel import Processes
from anydit.train.posthoc import Profiles
from anydit.train.room import fitting, largest_batch, largest_grid
from anydit.train.routing import Route
from tests.codecs.test_published import SIZES
from tests.codecs.test_representation import CONFIG, encoder
from tests.codecs.tiny import images, saved, survey
from tests.train.tiny import silent, tiny, tiny_with

MIB = 2**20


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are checked where tensors have values; checking those that have none takes half of the time here.

    Nor is memory given back at once in this process, which would go on for good.
    """
    monkeypatch.setattr(room, "give_back", lambda: False)
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
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    with pytest.raises(ValueError, match=r"train\.batch: got 64, .* 0\.\d GiB .* or --train\.accumulate \d"):
        fitting(step(), CPU)
    fitting(step(batch=16), CPU)
    fitting(step(accumulate=4), CPU)
    monkeypatch.setattr(room, "free_bytes", lambda _: MIB)
    with pytest.raises(ValueError, match=r"a smaller model, or --train\.mesh\.shard"):
        fitting(step(), CPU)


def test_the_pieces_that_it_names_are_of_one_size(monkeypatch: pytest.MonkeyPatch):
    free = int(1.1 * needed(step(batch=3), CPU) / room.MARGIN)
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    with pytest.raises(ValueError, match=r"--train\.batch \d+ or --train\.accumulate \d+") as refused:
        fitting(step(), CPU)
    pieces = int(str(refused.value).partition("--train.accumulate ")[2].split()[0])
    fitting(step(accumulate=pieces), CPU)
    with pytest.raises(ValueError, match=r"--train\.batch \d+ --train\.accumulate 1 or"):
        fitting(step(accumulate=2), CPU)


def test_training_says_so_before_it_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(room, "free_bytes", lambda _: 2**15)
    with pytest.raises(ValueError, match=r"train\.batch: got 8, whose step needs"):
        train(tiny(), tmp_path, "cpu", silent)
    assert not (tmp_path / "log.jsonl").exists()


def test_processes_share_a_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The mesh counts that the processes have filled in, not the recipe's, which leaves their number open."""
    recipe, counted = tiny_with(batch=64), list[Planned]()

    def count(asked: Planned, *_: object) -> None:
        counted.append(asked)
        raise RuntimeError("counted")

    monkeypatch.setattr("anydit.train.recipe.fitting", count)
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

    best = room._largest(need, guess, 10**8)
    assert best == (10**8 - 10**6) // 700 and len(asked) == len(set(asked)) <= 6


def test_the_smallest_share_of_blocks_that_helps_is_found(monkeypatch: pytest.MonkeyPatch):
    """Of ten blocks six or so; a share that was given is offered another, and one that is left open is filled in."""
    deep = replace(step(recompute=None), model=replace(step().model, depth=10))
    whole, none = (needed(replace(deep, train=replace(deep.train, recompute=share)), CPU) for share in (0.0, 1.0))
    free, said = int((none + 0.4 * (whole - none)) / room.MARGIN), list[str]()
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    found = fitting(deep, CPU, said.append)
    assert found.recompute is not None and 0.4 < found.recompute < 0.8
    assert needed(replace(deep, train=found), CPU) <= room.MARGIN * free
    assert needed(replace(deep, train=replace(found, recompute=found.recompute - 0.1)), CPU) > room.MARGIN * free
    assert f"activations of {found.recompute:.0%} of the blocks are computed again" in said[0]
    for share in (0.0, 0.1):
        with pytest.raises(ValueError, match=rf"or --train\.recompute {found.recompute:g}$"):
            fitting(replace(deep, train=replace(deep.train, recompute=share)), CPU)
    monkeypatch.setattr(room, "free_bytes", lambda _: none // 2)
    with pytest.raises(ValueError, match=r"expected one that fits: --train\.batch \d+ or --train\.accumulate \d+$"):
        fitting(deep, CPU)


def test_where_a_step_fits_nothing_is_computed_again(monkeypatch: pytest.MonkeyPatch):
    assert fitting(step(recompute=None), CPU).recompute == 0
    monkeypatch.setattr(room, "free_bytes", lambda _: 3 * needed(step(), CPU))
    assert fitting(step(recompute=None), CPU).recompute == 0
    monkeypatch.setattr(room, "free_bytes", lambda _: None)
    assert fitting(step(recompute=None), CPU).recompute == 0


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch):
    free = int(2.5 * needed(step(), CPU))
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    monkeypatch.setattr(parallel, "free_bytes", lambda _: free)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda *_: None)
    for count in ("2", "3"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", count)
        each = parallel._least_free(CPU, None)
        assert each == free // int(count)
        with nullcontext() if count == "2" else pytest.raises(ValueError, match=r"got 64, whose step needs"):
            fitting(step(), CPU, silent, each)
    monkeypatch.setattr(parallel, "free_bytes", lambda _: None)
    assert parallel._least_free(CPU, None) is None


def test_all_processes_compute_again_what_the_first_has_no_memory_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Otherwise those that share weights would gather them in another order than the others."""
    recipe, store = tiny_with(batch=64, recompute=None), HashStore()
    recipe = recipe.resolved(recipe.data.open("train"), silent, CPU)
    shares = []
    for rank, found in enumerate((0.75, 0.25)):

        def fit(asked: Planned, *_: object, found: float = found) -> TrainConfig:
            return replace(asked.train, recompute=found if asked.train.recompute is None else asked.train.recompute)

        monkeypatch.setattr("anydit.train.recipe.fitting", fit)
        shares.append(recipe._again(Site(tmp_path, CPU, silent, Processes(rank, 2, Mesh(2), store=store))))
    assert shares == [0.75, 0.75]


KL = KLAutoencoder((16, 32), groups=8, latent=3, channels=1, axes=2, units=Normalize.to_unit(0, 255))
SHAPES = {"KL": (1, 32, 32), "RAE": (3, 32, 32)} | {name: shape for name, (shape, _) in SIZES.items()}


def codec_of(name: str, folder: Path) -> CodecConfig:
    """One that knows all of itself, with the encoder of an autoencoder of its own, of diffusers or of transformers."""
    if name == "KL":
        return KL
    config = replace(CONFIG, path=folder) if name == "RAE" else Latents(path=folder)
    (encoder if name == "RAE" else saved)(folder, *([] if name == "RAE" else [name]))
    return config.measured(survey(images(8, *SHAPES[name], low=0.0, high=255.0), (0.0, 255.0)))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", SHAPES)
def test_a_codec_that_encodes_each_batch_is_counted(name: str, tmp_path: Path):
    """Its weights, and the most that lives while it encodes; more samples than it takes at once need no more."""
    codec, (channels, *size) = codec_of(name, tmp_path), SHAPES[name]
    latents, space = codec.latent_channels(channels), codec.latent_size(tuple(size))
    assert codec.data_channels(latents) == channels
    model = replace(step().model, channels=latents, size=space, patch=(1,) * len(space))
    plain = replace(step(batch=4), model=model)
    coded = replace(plain, codec=codec, encodes=True)
    weights = sum(v.nbytes for v in codec.build().state_dict().values())
    assert needed(replace(coded, encodes=False), CPU) - needed(plain, CPU) == pytest.approx(weights, rel=0.01, abs=400)
    counted = memory._coding(coded, 4, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FakeTensorMode", nullcontext)
        assert memory._coding(coded, 4, CPU).peak == pytest.approx(counted.peak, rel=0.02)
    data = 4 * channels * prod(size) * 4
    assert counted.of_sample == data // 4 and counted.peak > data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "PLACES_AT_ONCE", 4 * prod(size))
        assert memory._coding(coded, 64, CPU).peak == pytest.approx(counted.peak, rel=0.3)


def test_the_codec_of_a_recipe_is_counted_where_it_has_weights():
    recipe = replace(tiny(), codec=KL)
    assert (recipe.step.codec, recipe.step.encodes) == (recipe.codec, True)
    cached = replace(recipe, train=replace(recipe.train, latents=Cached()))
    assert (cached.step.codec, cached.step.encodes) == (recipe.codec, False)
    assert tiny().step.codec is None


def test_what_compiling_saves_is_counted_of_blocks_that_keep_their_activations():
    plain, compiled = needed(step(), CPU), needed(step(compile=True), CPU)
    assert 0.89 * plain < compiled < 0.93 * plain
    assert needed(step(compile=True, recompute=1.0), CPU) == needed(step(recompute=1.0), CPU)


def test_kernels_are_counted_as_they_are():
    few, fused = step(batch=8), step(batch=8, kernels=Kernels(update=False))
    plain, counted = (memory._traced(each, 8, CPU).peak for each in (few, fused))
    assert 0.5 * plain < counted < 0.95 * plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FakeTensorMode", nullcontext)
        assert memory._traced(fused, 8, CPU).peak == pytest.approx(counted, rel=0.02)


TAKEN = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from anydit.data import Digits
from anydit.diffusion.predictions import V
from anydit.model.dit import DiTConfig
from anydit.train import room
from anydit.train.memory import needed
from anydit.train.recipe import Recipe, TrainConfig
from anydit.train.trial import trial

def now(name):
    (kib,) = (l.split()[1] for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name))
    return int(kib) * 1024

cpu, model = torch.device("cpu"), DiTConfig(192, 6, 3, (2, 2), channels=4, size=(32, 32))
whole = Recipe(model=model, prediction=V(), data=Digits(), train=TrainConfig(batch=24, recompute=1.0)).step
small = replace(whole, model=replace(model, depth=1), train=replace(whole.train, batch=1))
need = needed(whole, cpu)
if sys.argv[1] == "scarce":
    room.free_bytes = lambda device: int(1.5 * need)
room.fitting(whole, cpu, lambda said: print(said, file=sys.stderr))
step, batch = trial(small, cpu)
step(batch, 0)
Path("/proc/self/clear_refs").write_text("5")
before = now("VmRSS:")
step, batch = trial(whole, cpu)
for n in range(2):
    step(batch, n)
print((now("VmHWM:") - before) / need)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_where_memory_is_scarce_the_c_library_keeps_none():
    """Else it would be nearly twice what is counted, since activations come and go; measured in processes anew."""
    found = {}
    for kind in ("plenty", "scarce"):
        done = subprocess.run([sys.executable, "-c", TAKEN, kind], capture_output=True, text=True, check=True)
        found[kind] = float(done.stdout)
        assert ("memory is given back at once" in done.stderr) == (kind == "scarce")
    assert found["scarce"] < 1.1 and found["scarce"] < found["plenty"] - 0.2, found


def test_scores_that_are_asked_for_are_counted(monkeypatch: pytest.MonkeyPatch):
    """By an estimate that knows nothing of them they would fit."""
    long = replace(step(batch=2), model=replace(step().model, heads=4, size=(64, 64)))
    math = replace(long, train=replace(long.train, attention_backend="math"))
    scores = 2 * long.model.heads * long.model.depth * 1024**2 * 4
    assert needed(math, CPU) - needed(long, CPU) > 1.3 * scores
    free = needed(math, CPU) - 1
    assert room._rough(math) * room.CLEAR < free
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    fitting(long, CPU)
    with pytest.raises(ValueError, match=r"train\.batch: got 2, whose step needs"):
        fitting(math, CPU)


def test_what_is_not_counted_is_said_where_blocks_were_left_open(monkeypatch: pytest.MonkeyPatch):
    said = list[str]()
    monkeypatch.setattr(room, "free_bytes", lambda _: None)
    fitting(step(), CPU, said.append)
    assert not said
    fitting(step(recompute=None), CPU, said.append)
    assert len(said) == 1 and said[0].startswith("Nothing is computed again")


def test_gradients_of_earlier_pieces_live_while_a_piece_is_encoded():
    codec = replace(KL, widths=(64, 64))
    model = replace(step().model, depth=1, width=32, channels=3, size=(16, 16))
    one = Planned(model, tiny().objective, tiny_with(batch=8).train, codec=codec, encodes=True)
    assert memory._coding(one, 8, CPU).peak > memory._traced(one, 8, CPU).peak, "encoding is what takes most"
    shared = replace(one, train=replace(one.train, batch=16, mesh=Mesh(2)))
    weights = 4 * cost(model).parameters
    assert needed(shared, CPU) - needed(one, CPU) == pytest.approx(weights, rel=0.01)
