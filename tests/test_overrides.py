"""Dotted flags for single fields of a config, and what is said of those that no field takes."""

import dataclasses
import re
from typing import Any

import pytest

from anydit.overrides import entries, overridden
from tests.test_config import WHOLE, OpenSource, Round, Square


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), {}),
        (("--steps", "7"), {"steps": 7}),
        (("--steps=7", "--fast", "False"), {"steps": 7, "fast": False}),
        (("--shape.side", "9"), {"shape": Square(9)}),
        (("--shape", "Round"), {"shape": Round()}),
        (("--shape=Round", "--shape.radius", "3"), {"shape": Round(3)}),
        (("--shape.radius", "3", "--shape=Round"), {"shape": Round(3)}),
        (("--inner", "None"), {"inner": None}),
        (("--inner", "Square", "--inner.side=4"), {"inner": Square(4)}),
        (("--sizes", "5", "6", "7"), {"sizes": (5, 6, 7)}),
        (("--named.b.side", "2"), {"named": {"a": Round(), "b": Square(2)}}),
        (("--named.a", "Square"), {"named": {"a": Square(), "b": Square(7)}}),
        (("--named.a", "None"), {"named": {"b": Square(7)}}),
        (("--source", "OpenSource"), {"source": OpenSource()}),
    ],
)
def test_flags_override_single_fields(args: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert overridden(WHOLE, args, "anydit") == dataclasses.replace(WHOLE, **expected)


def test_a_flag_gives_a_class_to_a_field_that_held_none() -> None:
    without = dataclasses.replace(WHOLE, inner=None, named={})
    assert overridden(without, ("--inner", "Round", "--inner.radius", "3"), "anydit").inner == Round(3)
    assert overridden(without, ("--named.c", "Square"), "anydit").named == {"c": Square()}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--stepz", "7"), "--stepz"),
        (("--steps", "many"), "--steps"),
        (("--shape.radius", "2"), "--shape.radius"),
        (("--shape", "Round", "--shape.radius", "-2"), "expected above 0"),
    ],
)
def test_unknown_flags_and_values_are_refused_in_one_line(args: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        overridden(WHOLE, args, "anydit")
    assert "\n" not in str(refused.value) and not set("╭│─") & set(str(refused.value))


def test_a_class_that_the_field_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^shape\.type: got 'Triangle', expected one of Round, Square$"):
        overridden(WHOLE, ("--shape", "Triangle"), "anydit")
    with pytest.raises(ValueError, match=r"^shape\.type: got 'None'"):
        overridden(WHOLE, ("--shape", "None"), "anydit")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--stepz", "7"), "--stepz, 7; perhaps you meant --steps"),
        (("--shape.sid=7", "--fast", "True"), "--shape.sid=7; perhaps you meant --shape.side"),
        (("--named.c.side", "7"), "--named.c.side, 7; perhaps you meant --named.b.side"),
        (("--lable", "7"), "--lable, 7; perhaps you meant --label"),
        (("--stepz", "7", "--lable", "3"), "--stepz, 7, --lable, 3; perhaps you meant --steps, --label"),
        (("--something", "7", "lable"), "--something, 7, lable"),
    ],
)
def test_the_nearest_flags_are_named_those_beside_too(args: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=f"^unrecognized options: {re.escape(told)}$"):
        overridden(WHOLE, args, "anydit", ["--label", "--seed"])


def test_what_of_dictionaries_flags_speak_of() -> None:
    words = [
        "--a.b.one",
        "Square",
        "--a.b.two.side=3",
        "--a.bc.three",
        "4",
        "--d-e.four",
        "x",
        "--a.b",
        "--f.b.five",
        "6",
    ]
    assert entries(words, "a.b", "d_e") == {"one", "two", "four"}
