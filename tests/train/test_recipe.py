"""Recipes: what they leave open comes from the data; what cannot be is refused before any work."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from anydit.codecs import Normalize
from anydit.config import from_json, to_json
from anydit.data import Arrays, Facts, ImageFolder
from anydit.diffusion.times import Discrete, Respaced
from anydit.inference.config import Sampling
from anydit.model.conditioning import Label, Numbers
from anydit.model.dit import DiTConfig
from anydit.recipes import RECIPES, find
from anydit.tensors import Batch
from anydit.train.loop import train
from anydit.train.recipe import Recipe, TrainConfig, resolved
from tests.train.tiny import tiny, tiny_with


@dataclass
class Few:
    """Seven samples in memory, with a class and two numbers each."""

    facts: Facts = field(
        default_factory=lambda: Facts(2, (4, 6), {"label": ("a", "b", "c")}, frozenset({"label", "numbers"}))
    )

    def __len__(self) -> int:
        return 7

    def read(self, ids):
        x = torch.arange(7.0)[ids][:, None, None, None].expand(-1, 2, 4, 6)
        numbers = torch.stack([ids.float(), torch.full((len(ids),), 4.0)], dim=1)
        return Batch(x, {"label": ids % 3, "numbers": numbers}, ids)


def open_recipe(**conditions) -> Recipe:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2, 2), conditions=conditions)
    return replace(tiny(), model=model, codec=Normalize())


def test_everything_open_is_filled_in_from_the_data():
    recipe = resolved(open_recipe(label=Label(), numbers=Numbers(("Re", "Ma"))), Few())
    assert recipe.model.channels == 2 and recipe.model.size == (4, 6)
    assert recipe.model.conditions["label"] == Label(3, names=("a", "b", "c"))
    numbers = recipe.model.conditions["numbers"]
    assert isinstance(numbers, Numbers) and numbers.mean == (3.0, 4.0) and numbers.std == (2.0, 1.0)
    assert recipe.codec == Normalize((3.0, 3.0), (2.0, 2.0))
    assert resolved(recipe, Few()) == recipe
    assert from_json(Recipe, to_json(recipe)) == recipe


def test_a_label_that_the_data_lack_is_left_out_and_said():
    said: list[str] = []
    recipe = resolved(open_recipe(other=Label()), Few(), said.append)
    assert recipe.model.conditions == {} and "no other" in said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 3}, r"model\.channels: got 3, expected 2"),
        ({"size": (4, 4)}, r"model\.size: got \(4, 4\), expected \(4, 6\)"),
        ({"conditions": {"label": Label(2)}}, r"label\.classes: got 2, expected 3"),
        ({"conditions": {"other": Label(2)}}, r"model\.conditions: got other, expected one of: "),
    ],
)
def test_what_the_data_contradict_is_refused(change, message: str):
    recipe = open_recipe()
    with pytest.raises(ValueError, match=message):
        resolved(replace(recipe, model=replace(recipe.model, **change)), Few())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_json(name: str):
    recipe = find(name)()
    assert from_json(Recipe, to_json(recipe)) == recipe
    assert (RECIPES[name].__doc__ or "").splitlines()[0].endswith(".") or ":" in (RECIPES[name].__doc__ or "")


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="did you mean digits"):
        find("digit")
    with pytest.raises(ValueError, match="is not a file"):
        find(f"{tmp_path}/none.py:f")
    (tmp_path / "mine.py").write_text("x = 1", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a function"):
        find(f"{tmp_path}/mine.py:f")


@pytest.mark.parametrize(
    ("field_name", "value"),
    [("steps", 0), ("batch", -1), ("accumulate", 3), ("ema_decay", 1.0), ("clip", 0.0), ("keep", 0)],
)
def test_bad_training_options_are_refused(field_name: str, value):
    with pytest.raises(ValueError, match=rf"train\.{field_name}: got {value}"):
        TrainConfig(**{"batch": 8, field_name: value})


def test_a_size_that_no_patch_divides_is_refused_before_the_folder_is_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"size: got \(30, 30\)"):
        replace(tiny(), data=ImageFolder(path=tmp_path / "missing", size=(30, 30)))


def test_missing_data_are_refused_in_a_sentence(tmp_path):
    recipe = replace(tiny(), data=Arrays(path=tmp_path / "none.npy"))
    with pytest.raises(ValueError, match=r"none\.npy"):
        train(recipe, tmp_path / "run", "cpu")


def test_learned_variance_wants_discrete_times():
    with pytest.raises(ValueError, match=r"train\.times: got Uniform with model\.learned_variance"):
        replace(tiny_with(), model=replace(tiny().model, learned_variance=True))


def test_the_bound_is_over_the_steps_that_are_trained_at():
    recipe = tiny_with(times=Discrete(100))
    with pytest.raises(ValueError, match=r"train\.bound\.steps: got 1000"):
        replace(recipe, model=replace(recipe.model, learned_variance=True))


def test_steps_that_the_grid_has_not_are_refused_before_any_work():
    with pytest.raises(ValueError, match="steps: got 1500"):
        replace(tiny(), sampling=Sampling(steps=1500, grid=Respaced()))
