"""Frozen, strict configuration: dataclasses that refuse what they do not know, to JSON and back.

A config is a dataclass made by `@config`. In JSON it carries its class name under `"type"`, so a field annotated with a
union (`position: SinCos | Rope`) or with an open base class (`data: Data`) comes back as the class that was written.
A name is only ever looked up among classes that are already imported: reading a file imports no code.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from inspect import get_annotations
from math import inf
from numbers import Integral
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, cast, dataclass_transform, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, Strict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError

T = TypeVar("T")
Json = dict[str, Any]

TYPE = "type"
"""The key under which a config's class name stands in JSON."""

OTHER_TYPE = "other_type"


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a config: a frozen dataclass that validates its fields and refuses unknown ones, by `ValueError`.

    Lists are taken for tuples and texts for paths, as JSON has them; but "3" is no number, and 1 is not True.
    """
    cls.__annotations__ = {name: _strict(hint) for name, hint in get_annotations(cls).items()}
    setattr(cls, "_dispatch", model_validator(mode="wrap")(cast("Any", classmethod(_dispatch))))  # noqa: B010
    made = cast("Any", pydantic_dataclass(cls, frozen=True, config=ConfigDict(extra="forbid")))
    validate = made.__init__

    @functools.wraps(validate)
    def init(self: Any, *args: Any, **fields: Any) -> None:
        try:
            validate(self, *args, **fields)
        except ValidationError as error:
            raise ValueError(explain(error)) from None

    made.__init__ = init
    return made


def check_positive(name: str, value: float) -> None:
    """Refuse what is no finite number above 0."""
    if not 0 < value < inf:
        raise ValueError(f"{name}: got {value}, expected a finite number above 0")


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below `least`, and one that is not finite."""
    if not least <= value < inf:
        raise ValueError(f"{name}: got {value}, expected at least {least}")


def check_fraction(name: str, value: float) -> None:
    """Refuse what is not from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}, expected 0 to 1")


def to_json(value: Any) -> Any:
    """A config, or a container of configs, as plain JSON values; each config carries its class name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {TYPE: type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in cast("Sequence[Any]", value)]
    return str(value) if isinstance(value, Path) else value


def from_json(cls: type[T], data: Any) -> T:
    """Build a `cls` from what `to_json` made.

    Raises:
        ValueError: names each field that is wrong, with what was expected and what came.
    """
    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def write_json(path: Path, data: Any) -> None:
    """Write `data` to `path`, readable by people (two-space indent, one trailing newline)."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def differences(old: Any, new: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted fields in which two JSON trees differ, as (field, old, new); an absent side is None."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        a, b = cast("Json", old), cast("Json", new)
        for key in sorted({*a, *b}):
            yield from differences(a.get(key), b.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield at, old, new


def filled(config: T, full: Any) -> T:
    """`config` with what it leaves open (None, at any depth) as in `full`, JSON of such a config with nothing open.

    Where the two differ in anything else, `config` as it is.
    """
    return from_json(type(config), full) if _agrees(to_json(config), full) else config


def _agrees(some: Any, full: Any) -> bool:
    """Whether two JSON trees are the same wherever the first is not None."""
    if isinstance(some, Mapping) and isinstance(full, Mapping):
        a, b = cast("Json", some), cast("Json", full)
        return a.keys() == b.keys() and all(_agrees(a[key], b[key]) for key in a)
    return some is None or some == full


def explain(error: ValidationError) -> str:
    """All that a validation found, one `field: expected (got value)` per fault, without pydantic's decoration."""
    plain: dict[str, str] = {}
    other: dict[str, list[str]] = {}
    got: dict[str, Any] = {}
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
        at = f"{where}: " if where else ""
        if fault["type"] == OTHER_TYPE:
            context = fault.get("ctx", {})
            other.setdefault(where, []).extend(context["expected"])
            got[where] = context["got"]
        elif fault["type"] in {"value_error", "missing"}:
            plain[at_field(where, fault["msg"].removeprefix("Value error, "))] = where
        else:
            plain[f"{at}{fault['msg']} (got {fault['input']!r})"] = where
    # In a union every class but the one named refuses the name; that says nothing where the named class has a fault.
    lines = list(plain)
    for where, expected in other.items():
        if not any(place == where or place.startswith(f"{where}.") for place in plain.values()):
            names = ", ".join(dict.fromkeys(expected))
            lines.append(f"{where + '.' if where else ''}{TYPE}: got {got[where]!r}, expected one of {names}")
    return "; ".join(lines)


def at_field(where: str, said: str) -> str:
    """What a config says of one of its fields, with the way to it before: once, where it says that itself."""
    if not where or said.startswith(f"{where}."):
        return said
    return f"{where}.{said}" if re.match(r"\w+: got ", said) else f"{where}: {said}"


def _strict(hint: Any) -> Any:
    """The annotation of a field, whose numbers, truth values and texts are not made of one another."""
    if hint in (int, float, bool, str):
        return Annotated[hint, BeforeValidator(_whole), Strict()] if hint is int else Annotated[hint, Strict()]
    origin, args = get_origin(hint), get_args(hint)
    inner = tuple(map(_strict, args))
    if inner == args or origin is ClassVar or hint == Json:
        return hint
    return Union[inner] if origin in (Union, UnionType) else origin[inner]  # noqa: UP007


def _whole(value: object) -> object:
    """NumPy's integers are integers, too."""
    return value if isinstance(value, bool) or not isinstance(value, Integral) else int(value)


def _subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _dispatch(cls: type[T], value: Any, build: Any) -> T:
    """Read the class name that JSON carries: build that class, which must be `cls` or one that extends it."""
    if not (isinstance(value, Mapping) and TYPE in value):
        return build(value)
    fields = dict(cast("Json", value))
    name = fields.pop(TYPE)
    if name == cls.__name__:
        return build(fields)
    known = {sub.__name__: sub for sub in _subclasses(cls)}
    if name in known:
        return cast("T", TypeAdapter(known[name]).validate_python(fields))
    expected = sorted({cls.__name__, *known})
    raise PydanticCustomError(OTHER_TYPE, "another class", {"got": name, "expected": expected})
