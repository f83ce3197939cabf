"""Dotted flags, as people type them, for the fields of a config: `--model.depth 8`."""

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_type_hints

from anydit.config import TYPE, Json, at_field, from_json, to_json

T = TypeVar("T")


def overridden(default: T, args: Sequence[str], program: str, beside: Iterable[str] = ()) -> T:
    """`default` with dotted flags applied: `--model.depth 8`; `--model.position Rope` puts another class in a field.

    None empties a field that may be empty, and takes an entry out of a dictionary: `--model.conditions.label None`.
    `beside`: other flags that the program takes.

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
            made, unknown = tyro.cli(
                type(default), prog=program, default=chosen, args=rest, config=marks, return_unknown_args=True
            )
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_sentence(said.getvalue())) from None
        raise
    if unknown:
        raise ValueError(f"unrecognized options: {', '.join(unknown)}{meant(unknown, [*_flags(made), *beside])}")
    return made


def entries(args: Sequence[str], *fields: str) -> set[str]:
    """What of dictionaries flags speak of: `label` of `--model.conditions.label.dropout 0.2`, in "model.conditions"."""
    flags = [word.partition("=")[0].removeprefix("--").replace("-", "_") for word in args if word.startswith("--")]
    pairs = [(flag, f"{field}.") for flag in flags for field in fields]
    return {flag.removeprefix(begin).partition(".")[0] for flag, begin in pairs if flag.startswith(begin)}


def meant(words: Sequence[str], flags: Iterable[str]) -> str:
    """What ends the sentence that refuses `words`: the flags that are written nearly as these."""
    known = list(flags)
    typed = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    near = dict.fromkeys(flag for word in typed for flag in get_close_matches(word, known, n=1))
    return f"; perhaps you meant {', '.join(near)}" if near else ""


def _flags(value: Any, prefix: str = "--") -> Iterator[str]:
    """The flag of each field of a config, and of those within."""
    inner = dict[str, Any]()
    if dataclasses.is_dataclass(value):
        inner = {f.name.replace("_", "-"): getattr(value, f.name) for f in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        inner = cast("Json", value)
    for name, each in inner.items():
        yield f"{prefix}{name}"
        yield from _flags(each, f"{prefix}{name}.")


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
    text = text.replace(" Argument helptext:", "; expected")
    for title in ("Value error ", "Parsing error ", "Missing argument "):
        text = text.removeprefix(title)
    if text.startswith("Error parsing "):
        where, _, said = text.removeprefix("Error parsing ").strip().partition(": ")
        text = said if where[:1].isupper() else at_field(where, said)  # of the whole config tyro says the class
    return text.strip()


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
