"""Configs: round trips, unions, open bases, and refusals with a path."""

import dataclasses
import importlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anydit.config import config, differences, from_json, to_json, write_json


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


@config
class Scalars:
    whole: int = 1
    real: float = 1.0
    truth: bool = False
    text: str = ""
    several: tuple[int | None, ...] = ()
    named: dict[str, float] = field(default_factory=dict[str, float])
    place: Path = Path()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole", "3"), ("whole", 3.0), ("whole", True), ("real", "3"), ("real", True), ("truth", 1), ("truth", "yes"),
        ("text", 3), ("text", Path("a")), ("several", (1, "2")), ("several", [1, True]), ("named", {"a": "1"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("build", [lambda fields: Scalars(**fields), lambda fields: from_json(Scalars, fields)])
def test_numbers_truth_values_and_texts_are_not_made_of_one_another(
    build: Callable[[dict[str, Any]], Scalars], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^{name}[.\w]*: Input should be a valid "):
        build({name: value})


def test_what_json_cannot_tell_apart_is_taken() -> None:
    made = Scalars(real=3, several=[1, None], place="a/b")  # pyright: ignore[reportArgumentType]
    assert (repr(made.real), made.several, made.place) == ("3.0", (1, None), Path("a/b"))


@pytest.mark.parametrize("whole", [np.int64(3), np.uint8(3)])
def test_numpy_s_numbers_are_numbers(whole: np.integer[Any]) -> None:
    made = Scalars(whole=whole, real=np.float32(0.5), several=(whole, None))  # pyright: ignore[reportArgumentType]
    assert made == Scalars(whole=3, real=0.5, several=(3, None)) and type(made.whole) is int


def test_every_config_of_ours_is_so_strict() -> None:
    """In each field, also in those that it inherits."""
    for name in ("codecs", "data", "evaluate", "inverse", "recipes", "train.recipe"):
        importlib.import_module(f"anydit.{name}")
    known = [
        value for name, module in sys.modules.items() if name.startswith("anydit.") for value in vars(module).values()
    ]
    ours = {cls for cls in known if isinstance(cls, type) and hasattr(cls, "__pydantic_validator__")}
    lax = [
        f"{cls.__module__}.{cls.__name__}.{f.name}"
        for cls in ours
        for f in dataclasses.fields(cls)
        if f.type in (int, float, bool, str) or isinstance(f.type, str)
    ]
    assert len(ours) > 100 and not lax


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
