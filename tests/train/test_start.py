"""Runs that begin with the weights of another model: what they take over, keep, and need to go on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anydit.codecs import Normalize
from anydit.diffusion.paths import DDPM, Linear
from anydit.diffusion.predictions import V, Velocity
from anydit.inference.adapter import load_weights
from anydit.inference.config import PipelineConfig, load_config
from anydit.inference.pipeline import Pipeline, load
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.norms import RMSNorm
from anydit.model.tokens import Rope, SinCos, SinCosRope
from anydit.train.checkpoint import newest
from anydit.train.fit import KEPT
from anydit.train.loop import train
from anydit.train.start import INIT_FILE, Start, begun, read_origin, settled
from anydit.train.width import Width
from tests.train.tiny import losses, state_hash, tiny, tiny_with
from tests.train.tiny_codec import tiny_codec

NAMES = tuple("0123456789")


def silent(_: str) -> None:
    pass


def saved(folder: Path, **changes: Any) -> Path:
    """A folder with a random model of the digits' size, whose weights are all other than at a beginning."""
    fields: dict[str, Any] = {"channels": 1, "size": (8, 8), "conditions": {"label": Label(10, names=NAMES)}}
    model = DiTConfig(**{"width": 16, "depth": 1, "heads": 2, "patch": (4, 4), **fields, **changes})
    pipe = Pipeline(PipelineConfig(model=model, path=DDPM(), prediction=V(), codec=Normalize.to_unit(0, 16)))
    with torch.no_grad():
        for p in pipe.model.parameters():
            p.normal_(std=0.2)
    pipe.save(folder)
    return folder


def start_of(folder: Path) -> Start:
    config = load_config(folder)
    return Start.of(folder, config.model, load_weights(folder), config.path, config.prediction)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of another size and other classes than the digits'."""
    torch.manual_seed(1)
    label = Label(3, names=("7", "cat", "0"))
    return saved(tmp_path_factory.mktemp("other") / "model", size=(12, 12), conditions={"label": label})


@pytest.fixture(scope="module")
def whole(other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run that began with it."""
    out = tmp_path_factory.mktemp("whole")
    start = start_of(other)
    train(begun(tiny(), start.origin), out, "cpu", silent, start)
    return out


def test_the_first_weights_are_the_others(tmp_path: Path) -> None:
    start = start_of(saved(tmp_path / "model"))
    recipe = begun(tiny_with(steps=1, optimizer=replace(tiny().train.optimizer, lr=1e-9)), start.origin)
    assert (recipe.path, recipe.prediction) == (DDPM(), V())
    said: list[str] = []
    pipe = train(recipe, tmp_path / "run", "cpu", said.append, start)
    state = pipe.model.state_dict()
    for name, tensor in start.tensors.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-7)
    assert any("tensors are as they were" in line for line in said)
    assert pipe.config.model == load_config(tmp_path / "model").model


def test_the_table_is_printed_and_kept(other: Path, tmp_path: Path) -> None:
    start, said = start_of(other), list[str]()
    train(begun(tiny_with(steps=1), start.origin), tmp_path, "cpu", said.append, start)
    table = " ".join(next(line for line in said if line.startswith("Begins with")).split())
    assert str(other) in table
    assert "in part conditioner.vectors.label.table.weight 4x16 -> 11x16 2 of 10 classes are known" in table
    assert "changed model.size [12, 12] -> [8, 8]" in table
    assert "changed model.position.extent None -> [3, 3]" in table
    kept = json.loads((tmp_path / INIT_FILE).read_text())
    rows = {row["name"]: row for row in kept["tensors"]}
    assert rows["conditioner.vectors.label.table.weight"]["how"] == "in part"
    assert {row["how"] for name, row in rows.items() if name.startswith("blocks.")} == {KEPT}
    assert read_origin(tmp_path) == start.origin


def test_going_on_needs_the_weights_no_more(other: Path, whole: Path, tmp_path: Path) -> None:
    start = start_of(other)
    train(begun(tiny_with(steps=4), start.origin), tmp_path, "cpu", silent, start)
    origin = read_origin(tmp_path)
    assert origin is not None
    train(begun(tiny(), origin), tmp_path, "cpu", silent)
    assert losses(tmp_path) == losses(whole)
    assert state_hash(tmp_path) == state_hash(whole)
    train(begun(tiny(), origin), tmp_path, "cpu", silent, start)  # the same ones may be said again
    assert state_hash(tmp_path) == state_hash(whole)


def test_random_weights_train_otherwise(other: Path, whole: Path, tmp_path: Path) -> None:
    """The negative control of the comparison above."""
    train(begun(tiny(), start_of(other).origin), tmp_path, "cpu", silent)
    assert losses(tmp_path) != losses(whole)


def test_weights_to_begin_with_stay_as_they_are_where_the_width_decides(other: Path, tmp_path: Path) -> None:
    """How large weights are at first is not for them: that learning rates alone follow is said."""
    start, said = start_of(other), list[str]()
    train(begun(tiny_with(steps=1, width=Width(8)), start.origin), tmp_path, "cpu", said.append, start)
    assert any("learning rates alone follow the width" in each for each in said), said


def test_a_run_stopped_before_its_first_step_goes_on(other: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    first = newest(whole / "checkpoints")
    assert first is not None
    start = start_of(other)
    for step in (tmp_path / "run" / "checkpoints").iterdir():
        shutil.rmtree(step)
    (tmp_path / "run" / "log.jsonl").unlink()
    recipe = begun(tiny(), start.origin)
    with pytest.raises(ValueError, match=r"init: got none, expected it again: .* before its first checkpoint"):
        train(recipe, tmp_path / "run", "cpu", silent)
    train(recipe, tmp_path / "run", "cpu", silent, start)
    assert losses(tmp_path / "run") == losses(whole)


def test_other_weights_than_it_began_with_are_refused(other: Path, whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    another = start_of(saved(tmp_path / "another", size=(12, 12), conditions={"label": Label(3)}))
    before = state_hash(whole)
    with pytest.raises(ValueError, match=r"init: got .*another .* began with .*model .*expected the same or none"):
        train(begun(tiny(), another.origin), whole, "cpu", silent, another)
    assert state_hash(whole) == before
    plain = tmp_path / "plain"
    train(tiny_with(steps=1), plain, "cpu", silent)
    with pytest.raises(ValueError, match=r"init: got .*but the run in .*plain began without any"):
        train(begun(tiny(), another.origin), plain, "cpu", silent, another)


def test_a_model_of_another_width_is_refused(tmp_path: Path) -> None:
    start = start_of(saved(tmp_path / "wide", width=32))
    message = "init: got .*wide with blocks of width 32, 2 heads .*expected width 16, 2 heads .*: none of them fits"
    with pytest.raises(ValueError, match=message):
        train(tiny(), tmp_path / "run", "cpu", silent, start)


def test_the_network_is_the_others_and_the_task_the_recipes(tmp_path: Path) -> None:
    saved(tmp_path / "a", width=32, heads=4, norm=RMSNorm(), position=SinCosRope(), patch=(2, 2), learned_variance=True)
    origin = start_of(tmp_path / "a").origin
    model = begun(tiny(), origin).model
    table, rope = SinCos(interpolate=True, extent=(4, 4)), Rope(interpolate=True, extent=(4, 4))
    assert model == replace(
        origin.model,
        channels=None,
        size=None,
        conditions={"label": Label()},
        position=SinCosRope(table, rope),
        learned_variance=False,
    )
    bare = replace(origin, path=None, prediction=None)
    assert (begun(tiny(), bare).path, begun(tiny(), bare).prediction) == (Linear(), Velocity())


def test_positions_keep_the_extent_they_know_unless_told_otherwise(tmp_path: Path) -> None:
    origin = start_of(saved(tmp_path / "a", size=(12, 12))).origin
    recipe = begun(tiny(), origin)

    def at(side: int, **changes: Any) -> object:
        model = replace(recipe.model, channels=1, size=(side, side), conditions={}, **changes)
        return settled(replace(recipe, model=model), origin).model.position

    assert at(12) == SinCos()
    assert at(8) == SinCos(interpolate=True, extent=(3, 3))
    assert at(12, position=Rope()) == Rope()
    assert at(8, position=SinCos()) == SinCos()
    again = replace(origin, model=replace(origin.model, position=SinCos(interpolate=True, extent=(2, 2))))
    assert begun(tiny(), again).model.position == SinCos(interpolate=True, extent=(2, 2))


def test_another_number_of_axes_brings_the_recipes_patch_and_positions(tmp_path: Path) -> None:
    origin = start_of(saved(tmp_path / "a", patch=(2, 2, 2), size=(4, 4, 4), position=Rope())).origin
    model = begun(tiny(), origin).model
    assert (model.patch, model.position, model.width) == ((4, 4), SinCos(), 16)


def test_what_was_tuned_is_a_run_like_any_other(whole: Path) -> None:
    pipe = load(whole, "cpu")
    assert pipe.config.model.conditions == {"label": Label(10, names=NAMES)}
    assert pipe.sample(2, {"label": "7"}).shape == (2, 1, 8, 8)


def test_an_autoencoder_begins_anew(other: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^init: got .*model, expected none"):
        train(tiny_codec(), tmp_path, "cpu", silent, start_of(other))
    assert not (tmp_path / "recipe.json").exists()
