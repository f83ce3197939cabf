"""Frozen, strict configuration: dataclasses that refuse what they do not know, to JSON and back, and from dotted flags.

A config is a dataclass made by `@config`. In JSON it carries its class name under `"type"`, so a field annotated with a
union (`position: SinCos | Rope`) or with an open base class (`data: Data`) comes back as the class that was written.
A name is only ever looked up among classes that are already imported: reading a file imports no code.
"""

import contextlib
import dataclasses
import functools
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, dataclass_transform, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError

T = TypeVar("T")
Json = dict[str, Any]

TYPE = "type"
"""The key under which a config's class name stands in JSON."""

OTHER_TYPE = "other_type"


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a config: a frozen dataclass that validates its fields and refuses unknown ones, by `ValueError`."""
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
            plain[_at(where, fault["msg"].removeprefix("Value error, "))] = where
        else:
            plain[f"{at}{fault['msg']} (got {fault['input']!r})"] = where
    # In a union every class but the one named refuses the name; that says nothing where the named class has a fault.
    lines = list(plain)
    for where, expected in other.items():
        if not any(place == where or place.startswith(f"{where}.") for place in plain.values()):
            names = ", ".join(dict.fromkeys(expected))
            lines.append(f"{where + '.' if where else ''}{TYPE}: got {got[where]!r}, expected one of {names}")
    return "; ".join(lines)


def _at(where: str, said: str) -> str:
    """What a config says of one of its fields, with the way to it before: once, where it says that itself."""
    if not where or said.startswith(f"{where}."):
        return said
    return f"{where}.{said}" if re.match(r"\w+: got ", said) else f"{where}: {said}"


def overridden(default: T, args: Sequence[str], program: str, description: str = "") -> T:
    """`default` with dotted flags applied: `--model.depth 8`; `--model.position Rope` puts another class in a field.

    None empties a field that may be empty, and takes an entry out of a dictionary: `--model.conditions.label None`.

    Raises:
        ValueError: a flag or a value that no field takes, or a config that is refused as a whole.
    """
    if not args:
        return default
    import tyro  # costs a second, with all that it learns of a recipe

    chosen, rest = _choose(default, args)
    marks = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _plain_json():
            return tyro.cli(
                type(default), prog=program, description=description, default=chosen, args=rest, config=marks
            )
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_sentence(said.getvalue())) from None
        raise


def _plain_json() -> contextlib.AbstractContextManager[Any]:
    """Where plain JSON is in a field (`dict[str, Any]`), let tyro take it as one text, and not look into it."""
    from tyro import constructors

    text: Any = constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda words: json.loads(words[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    )
    registry: Any = constructors.ConstructorRegistry()

    def rule(about: Any) -> Any:
        return text if about.type == Json else None

    registry.primitive_rule(rule)
    return registry


def _sentence(box: str) -> str:
    """What tyro draws as a box over several lines, as one line without the box."""
    # The frame is drawn in lines, or in ASCII where the terminal knows no others; a flag's own dashes stay.
    lines = (re.sub(r"^-+ |(^| )-+$", "", line.strip("╭╮╰╯│─+| ")).strip() for line in box.splitlines())
    text = " ".join(line for line in lines if line).partition("For full helptext")[0]
    text = text.replace(" Argument helptext:", "; expected").replace(" Perhaps you meant:", "; perhaps you meant")
    for title in ("Value error ", "Unrecognized options ", "Parsing error ", "Missing argument "):
        text = text.removeprefix(title)
    if text.startswith("Error parsing "):
        where, _, said = text.removeprefix("Error parsing ").strip().partition(": ")
        text = said if where[:1].isupper() else _at(where, said)  # of the whole config tyro says the class
    return text.strip().replace("Unrecognized options: ", "unrecognized options: ")


def _choose(default: T, args: Sequence[str]) -> tuple[T, list[str]]:
    """Apply the flags that put another class, or None, in a field that holds a config; return the other flags."""
    left, rest = list(args), list[str]()
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        *way, name = flag.removeprefix("--").replace("-", "_").split(".")
        takes = _takes(default, way, name) if flag.startswith("--") else set[type]()
        if not any(map(dataclasses.is_dataclass, takes)) or not (equals or left):
            rest.append(word)
            continue
        value = value if equals else left.pop(0)
        data = parent = to_json(default)
        for part in way:
            parent = parent[part]
        if value == "None" and TYPE not in parent:
            parent.pop(name, None)
        else:
            parent[name] = None if value == "None" and NoneType in takes else {TYPE: value}
        default = from_json(type(default), data)
    return default, rest


def _takes(value: Any, way: Sequence[str], name: str) -> set[type]:
    """The classes that a field may hold, found by following `way` from `value`; empty where there is no such field."""
    hint = cast("Any", type(value))
    for part in (*way, name):
        if isinstance(value, Mapping):
            hint = (*get_args(hint), Any)[1]
            value = cast("Json", value).get(part)
        elif dataclasses.is_dataclass(value):
            hint = get_type_hints(type(value)).get(part, Any)
            value = getattr(value, part, None)
        else:
            return set()
    return {cast("type", cls) for cls in (*get_args(hint), hint) if isinstance(cls, type)}


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
