"""Recipes: what cannot be is refused before any work."""

from dataclasses import replace

import pytest

from anydit.config import from_json, to_json
from anydit.data import Arrays, ImageFolder
from anydit.diffusion.paths import DDPM
from anydit.diffusion.predictions import V
from anydit.diffusion.times import Discrete, Respaced
from anydit.inference.config import Sampling
from anydit.recipes import RECIPES, find
from anydit.train.loop import train
from anydit.train.recipe import TrainConfig
from tests.train.tiny import tiny, tiny_with


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_json(name: str):
    recipe = find(name)()
    assert from_json(type(recipe), to_json(recipe)) == recipe
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
    [
        ("steps", 0),
        ("batch", -1),
        ("accumulate", 3),
        ("ema_decay", 1.0),
        ("clip", 0.0),
        ("keep", 0),
        ("workers", -1),
        ("seed", 2**64),
    ],
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


def test_a_grid_of_other_steps_than_the_path_is_refused_before_work():
    with pytest.raises(ValueError, match=r"grid\.of: got 1000, expected 100, as many steps as the path has"):
        replace(tiny(), path=DDPM(steps=100), prediction=V(), sampling=Sampling(steps=10, grid=Respaced()))
    replace(tiny(), path=DDPM(steps=100), prediction=V(), sampling=Sampling(steps=10, grid=Respaced(100)))
