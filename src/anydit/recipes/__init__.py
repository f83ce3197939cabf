"""Recipes by name: one function for each task, which returns everything about a run."""

import importlib.util
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from anydit.config import from_json
from anydit.data import Data
from anydit.recipes.arrays import arrays
from anydit.recipes.audio import audio, spoken_digits, spoken_digits_gpu, spoken_digits_text, spoken_digits_wave
from anydit.recipes.brain import brain, brain_codec, brain_gpu, brain_latent
from anydit.recipes.digits import digits
from anydit.recipes.fashion import fashion, fashion_gpu
from anydit.recipes.fields import fields, flow, flow_fine, flow_forecast, flow_gpu
from anydit.recipes.images import huggingface, images, shards
from anydit.recipes.latent import fashion_codec, fashion_latent
from anydit.recipes.molecules import molecules, small_molecules, small_molecules_gpu
from anydit.recipes.pairs import emoji, pairs
from anydit.recipes.series import series, weather, weather_forecast, weather_forecast_gpu, weather_gaps
from anydit.recipes.slices import brain_slices, brain_slices_mri, slices
from anydit.recipes.video import moving_digits, moving_digits_gpu, moving_digits_next, moving_digits_text, video
from anydit.recipes.volumes import volumes
from anydit.train.base import Trainable
from anydit.train.recipe import Recipe
from anydit.weights import RUN_FILE, read_config

AnyRecipe = Trainable[Any]

_ALL: tuple[Callable[[], AnyRecipe], ...] = (
    digits, fashion, fashion_gpu, fashion_codec, fashion_latent, pairs, emoji, images, shards, huggingface, arrays,
    video, moving_digits, moving_digits_text, moving_digits_next, moving_digits_gpu,
    audio, spoken_digits, spoken_digits_text, spoken_digits_wave, spoken_digits_gpu,
    volumes, brain, brain_codec, brain_gpu, brain_latent, slices, brain_slices, brain_slices_mri,
    molecules, small_molecules, small_molecules_gpu,
    series, weather, weather_forecast, weather_forecast_gpu, weather_gaps,
    fields, flow, flow_fine, flow_forecast, flow_gpu,
)  # fmt: skip

RECIPES = {make.__name__.replace("_", "-"): make for make in _ALL}


def find(name: str) -> Callable[[], AnyRecipe]:
    """The recipe called `name`, or the function in a file of the user's: `my_recipes.py:birds`.

    Raises:
        ValueError: there is no such recipe, file or function.
    """
    file, colon, function = name.rpartition(":")
    if colon:
        return _from_file(Path(file), function)
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(RECIPES)}, or FILE.py:FUNCTION{hint}")
    return RECIPES[name]


def data_of(run: Path) -> Data:
    """The data that a run's recipe names: every kind that a recipe here has is known.

    Raises:
        ValueError: the recipe is not there, or its data is of a kind that is not known.
    """
    content = read_config(run / RUN_FILE)
    try:
        return from_json(Recipe, content).data
    except ValueError as error:
        raise ValueError(f"{error}; where its data is a class of your own, say --recipe FILE.py:FUNCTION") from None


def _from_file(file: Path, function: str) -> Callable[[], AnyRecipe]:
    if not file.is_file():
        raise ValueError(f"recipe: got {file}, which is not a file; expected FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"recipe: got {file}, which is not a Python file; expected FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Any = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"recipe: got {function!r}, expected a function that {file} defines")
    return cast("Callable[[], AnyRecipe]", found)
