"""What a run leaves for `anydit.load`: weights that go with the recipe beside them, and with no other."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from anydit import load
from anydit.train.loop import train
from anydit.weights import read_id
from tests.train.tiny import tiny_with


def quietly(out: Path, **fields: int) -> None:
    train(tiny_with(**fields), out, "cpu", lambda _: None)


@pytest.mark.fault("T18")
def test_weights_of_another_run_are_refused(tmp_path: Path):
    """Two runs that differ in their seed alone: all shapes are the same."""
    for seed in (0, 1):
        quietly(tmp_path / str(seed), steps=1, seed=seed)
        load(tmp_path / str(seed), "cpu")
    (tmp_path / "1" / "recipe.json").write_bytes((tmp_path / "0" / "recipe.json").read_bytes())
    with pytest.raises(ValueError, match=r"model\.safetensors of the id .*, as recipe\.json has"):
        load(tmp_path / "1", "cpu")


def test_a_run_keeps_its_id_while_it_goes_on(tmp_path: Path):
    quietly(tmp_path, steps=1)
    id = read_id(tmp_path / "recipe.json")
    quietly(tmp_path, steps=2, log_every=2)
    assert id is not None and read_id(tmp_path / "recipe.json") == id
    load(tmp_path, "cpu")


def test_a_run_of_before_there_were_ids_opens_and_goes_on(tmp_path: Path):
    quietly(tmp_path, steps=1)
    recipe = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))
    del recipe["id"]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    load(tmp_path, "cpu")
    for steps in (2, 2):  # the second time nothing is left to do
        quietly(tmp_path, steps=steps)
        assert read_id(tmp_path / "recipe.json") is None
        load(tmp_path, "cpu")
