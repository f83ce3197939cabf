"""Configs: round trips, unions, open bases, refusals with a path, and command-line flags."""

import dataclasses
import json
import re
from abc import ABC, abstractmethod
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from anydit.config import config, differences, from_json, overridden, to_json, write_json


@config
class Round:
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"radius: got {self.radius}, expected above 0")


@config
class Square:
    side: int = 1


class Source(ABC):
    """An open base: classes that are written later may extend it."""

    @abstractmethod
    def read(self) -> int: ...


@config
class Files(Source):
    path: Path = Path("somewhere")

    def read(self) -> int:
        return 1


@config
class Numbers(Source):
    values: tuple[int, ...] = (1, 2)

    def read(self) -> int:
        return sum(self.values)


@config
class MoreNumbers(Numbers):
    extra: int = 0


@config
class OpenSource:
    kind: str = "base"


@config
class Extended(OpenSource):
    more: int = 3


@config
class Whole:
    shape: Round | Square
    inner: Round | Square | None = None
    named: dict[str, Round | Square] = field(default_factory=dict[str, Round | Square])
    source: OpenSource = OpenSource()
    sizes: tuple[int, ...] = ()
    steps: int = 5
    fast: bool = False


WHOLE = Whole(
    Square(3), inner=Round(2.5), named={"a": Round(), "b": Square(7)}, source=Extended(more=9), sizes=(3, 4), fast=True
)


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", to_json(WHOLE))
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert from_json(Whole, json.loads(text)) == WHOLE
    assert json.loads(text)["source"] == {"type": "Extended", "kind": "base", "more": 9}


def test_every_value_is_plain() -> None:
    assert to_json(Files(Path("x/y"))) == {"type": "Files", "path": "x/y"}
    assert from_json(Files, to_json(Files(Path("x/y")))) == Files(Path("x/y"))
    assert to_json(Numbers((4,)))["values"] == [4]


def test_a_config_is_frozen_and_checked_when_built() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WHOLE.steps = 6  # type: ignore[misc]
    for build in (lambda: Round(-1), lambda: dataclasses.replace(Round(), radius=-1)):
        with pytest.raises(ValueError, match=r"radius: got -1\.0, expected above 0") as error:
            build()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, r"^stepz: Unexpected keyword argument \(got 3\)$"),
        ({"shape": {"type": "Square", "sid": 3}}, r"^shape\.sid: Unexpected"),
        ({"shape": {"type": "Round", "radius": "wide"}}, r"^shape\.radius: .*number.* \(got 'wide'\)$"),
        ({"shape": {"type": "Round", "radius": -2}}, r"^shape\.radius: got -2\.0, expected above 0$"),
        ({"shape": {"type": "Triangle"}}, r"^shape\.type: got 'Triangle', expected one of Round, Square$"),
        ({"named": {"b": {"type": "Triangle"}}}, r"^named\.b\.type: got 'Triangle', expected one of Round, Square$"),
        ({"source": {"type": "Files"}}, r"^source\.type: got 'Files', expected one of Extended, OpenSource$"),
        ({"sizes": [1, "x"]}, r"^sizes\.1: .*integer.* \(got 'x'\)$"),
        ({"steps": 2.5}, r"^steps: .*integer.*2\.5"),
        ({"steps": "x", "shape": {"type": "Triangle"}}, r"^steps: .*; shape\.type: got 'Triangle'"),
    ],
)
def test_json_that_does_not_fit_is_refused_with_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        from_json(Whole, {**to_json(WHOLE), **change})
    assert "\n" not in str(error.value)


def test_a_missing_field_and_another_class_are_refused() -> None:
    with pytest.raises(ValueError, match="shape: Field required"):
        from_json(Whole, {"type": "Whole"})
    with pytest.raises(ValueError, match="type: got 'Square', expected one of Round"):
        from_json(Round, to_json(Square()))
    with pytest.raises(ValueError, match="dictionary"):
        from_json(Whole, 3)


def test_an_open_base_takes_what_extends_it_and_looks_nothing_up_elsewhere() -> None:
    assert from_json(Numbers, {"type": "MoreNumbers", "values": [1], "extra": 4}) == MoreNumbers((1,), 4)
    with pytest.raises(ValueError, match=r"got 'os\.system'"):
        from_json(Numbers, {"type": "os.system"})


def test_differences_are_dotted() -> None:
    other = dataclasses.replace(WHOLE, shape=Round(4), steps=6)
    found = {at: (a, b) for at, a, b in differences(to_json(WHOLE), to_json(other))}
    assert found == {
        "shape.type": ("Square", "Round"),
        "shape.side": (3, None),
        "shape.radius": (None, 4.0),
        "steps": (5, 6),
    }
    assert not list(differences(to_json(WHOLE), to_json(WHOLE)))


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
