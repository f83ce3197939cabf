"""Frozen, strict configuration: dataclasses that refuse what they do not know, to JSON and back, and from dotted flags.

A config is a dataclass made by `@config`. In JSON it carries its class name under `"type"`, so a field annotated with a
union (`position: SinCos | Rope`) or with an open base class (`data: Data`) comes back as the class that was written.
A name is only ever looked up among classes that are already imported: reading a file imports no code.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError

T = TypeVar("T")
Json = dict[str, Any]

TYPE = "type"
"""The key under which a config's class name stands in JSON."""


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a config: a frozen dataclass, validated when it is built, that refuses unknown fields."""
    setattr(cls, "_dispatch", model_validator(mode="wrap")(classmethod(_dispatch)))  # noqa: B010, pydantic collects it
    return cast("type[T]", pydantic_dataclass(cls, frozen=True, config=ConfigDict(extra="forbid")))


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


def explain(error: ValidationError) -> str:
    """All that a validation found, one `field: expected (got value)` per fault, without pydantic's decoration."""
    faults = error.errors()
    plain = [f for f in faults if f["type"] != "other_type"] or faults
    lines: list[str] = []
    for fault in plain:
        where = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
        message = fault["msg"].removeprefix("Value error, ")
        value = fault["input"]
        got = "" if fault["type"] in {"value_error", "other_type", "missing"} else f" (got {value!r})"
        lines.append(f"{where}: {message}{got}" if where else f"{message}{got}")
    return "; ".join(dict.fromkeys(lines))


def overridden(default: T, args: Sequence[str], program: str, description: str = "") -> T:
    """`default` with dotted command-line flags applied: `--model.depth 8`, or `--model.position Rope` for another class.

    Prints a message and exits with code 2 where a flag is unknown or a value is not of its field's type.

    Raises:
        ValueError: the flags parse, but the config they make is refused.
    """
    import tyro  # costs 0.2 s, and only the command line needs it

    chosen, rest = _choose(default, list(args))
    marks = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    try:
        return tyro.cli(type(default), prog=program, description=description, default=chosen, args=rest, config=marks)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def _choose(default: T, args: list[str]) -> tuple[T, list[str]]:
    """Apply the flags that name a class for a field that now holds a config; return the other flags untouched."""
    data, rest = to_json(default), list[str]()
    while args:
        flag = args.pop(0)
        parent: Any = data
        *way, name = flag.removeprefix("--").replace("-", "_").split(".")
        for part in way:
            parent = cast("Json", parent).get(part) if isinstance(parent, Mapping) else None
        now = cast("Json", parent).get(name) if isinstance(parent, Mapping) else None
        if flag.startswith("--") and isinstance(now, Mapping) and args and not args[0].startswith("-"):
            cast("Json", parent)[name] = {TYPE: args.pop(0)}
        else:
            rest.append(flag)
    return from_json(type(default), data), rest


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
        return TypeAdapter(known[name]).validate_python(fields)
    expected = ", ".join(sorted({cls.__name__, *known}))
    raise PydanticCustomError("other_type", "{message}", {"message": f"type: got {name!r}, expected {expected}"})
