"""The page that lists a config's fields."""

from dataclasses import field
from pathlib import Path

import pytest

from anydit.cli._fields import Block, _wrapped, page, taken
from anydit.config import config
from anydit.data import Data


@config
class Round:
    """No corners."""

    radius: float = 1.0


@config
class Square:
    """Four corners. As wide as high."""


@config
class Drawing:
    """What is drawn.

    `width`: in cm. `shape`: what is on it; None is nothing. `margins`, `colours`: all around.
    `absent`: no field of this name.
    """

    width: int
    shape: Round | Square | None = None
    margins: tuple[float, float] = (1.0, 2.0)
    colours: tuple[str, ...] = ()
    only: Round = Round()
    parts: dict[str, Round] = field(default_factory=dict[str, Round])
    dry_run: bool = False


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "INT"),
        (int | None, "INT|None"),
        (Path, "PATH"),
        (tuple[int, ...], "INT.."),
        (tuple[float, float], "NUMBER NUMBER"),
        (Round | Square | None, "Round|Square|None"),
        (float | tuple[float, ...], "NUMBER|NUMBER.."),
    ],
)
def test_what_a_field_takes(hint: object, words: str):
    assert taken(hint) == words


def test_a_base_is_taken_as_any_class_that_extends_it():
    assert {"Digits", "Arrays"} < set(taken(Data).split("|"))
    assert "Data" not in taken(Data).split("|")


def test_every_field_once_with_what_it_takes_holds_and_means():
    lines = page(Drawing(width=3, parts={"eye": Round(0.5)})).splitlines()
    assert lines == [
        "Drawing: What is drawn.",
        "  --width INT  [3]  in cm.",
        "  --shape Round|Square|None  [None]  what is on it; None is nothing.",
        "  --margins NUMBER NUMBER  [1.0 2.0]  all around.",
        "  --colours TEXT..  []  the same",
        "  --dry-run True|False  [False]",
        "",
        "only = Round: No corners.",
        "  --only.radius NUMBER  [1.0]",
        "",
        "parts.eye = Round: No corners.",
        "  --parts.eye.radius NUMBER  [0.5]",
    ]


def test_a_chosen_class_brings_its_fields():
    assert "shape = Round: No corners.\n  --shape.radius NUMBER  [2.0]" in page(Drawing(width=3, shape=Round(2.0)))
    assert "  --shape Round|Square|None  [Square]" in page(Drawing(width=3, shape=Square()))


def test_long_lines_are_broken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "50")
    lines = page(Drawing(width=3)).splitlines()
    assert max(map(len, lines)) <= 50
    assert "        what is on it; None is nothing." in lines


def test_many_choices_are_wrapped_between_two():
    rows = [(f"--data {'|'.join(f'Choice{i}' for i in range(20))}", "Choice3", "what it is")]
    lines = list(_wrapped(Block("Recipe", "all of it", rows), 60))
    assert max(map(len, lines)) <= 60
    assert "".join(line.strip() for line in lines[1:-1]).endswith("|Choice18|Choice19  [Choice3]")
    assert all(line.endswith("|") for line in lines[1:-2])
