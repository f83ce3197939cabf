"""The data that a run was trained on, for commands that look at it again."""

from pathlib import Path

from anydit.config import from_json
from anydit.data import Data
from anydit.inverse.measured import Measured
from anydit.train.recipe import Recipe
from anydit.weights import RUN_FILE, read_config

OUTSIDE = (Measured,)
"""Kinds of data beside those of `anydit.data`, known by name once they are imported."""


def data_of(run: Path) -> Data:
    """The data that a run's recipe names.

    Raises:
        ValueError: the recipe is not there, or its data is of a kind that is not known.
    """
    content = read_config(run / RUN_FILE)
    try:
        return from_json(Recipe, content).data
    except ValueError as error:
        raise ValueError(f"{error}; where its data is a class of your own, say --recipe FILE.py:FUNCTION") from None
