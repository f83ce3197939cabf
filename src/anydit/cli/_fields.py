"""The page that lists the fields of a config as flags: what each takes, holds and means. No command of its own."""

import dataclasses
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from inspect import getdoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from anydit.config import Json
from anydit.inference.config import PipelineConfig
from anydit.overrides import entries

WORDS = {int: "INT", float: "NUMBER", str: "TEXT", bool: "True|False", Path: "PATH", NoneType: "None", Any: "VALUE"}
DOCUMENTED = re.compile(r"(?:^|(?<=\. ))((?:`\w+`, )*`\w+`): ")
"""Where a docstring begins to tell of one or several fields."""


def page(config: Any, prefix: str = "--") -> str:
    """Every field of `config` as a flag, below the name of the config that holds it."""
    width = min(shutil.get_terminal_size().columns, 100)
    return "\n".join(line for block in _blocks(config, prefix) for line in (*_wrapped(block, width), "")).rstrip()


def asks_for_help(argv: list[str]) -> bool:
    """Whether the user wants to be told instead of served."""
    return bool({"-h", "--help"} & set(argv))


def asked_of(recipe: PipelineConfig, argv: list[str]) -> set[str]:
    """The model's conditions that flags say something of."""
    return entries(argv, "model.conditions", "encoders", "field_codecs") & recipe.model.conditions.keys()


def without_help(argv: list[str]) -> list[str]:
    """The same flags, which say what the page is to show."""
    return [word for word in argv if word not in {"-h", "--help"}]


Row = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Block:
    """One config on the page: its name, its docstring's first paragraph, and (flag, value, meaning) of each field."""

    title: str
    about: str
    rows: list[Row]


def _blocks(config: Any, prefix: str) -> Iterator[Block]:
    hints, (about, meanings) = get_type_hints(type(config)), _described(config)
    rows, inner = list[Row](), list[tuple[str, Any]]()
    said = ""
    for f in dataclasses.fields(config):
        flag, value = f"{prefix}{f.name.replace('_', '-')}", getattr(config, f.name)
        if isinstance(value, Mapping) and hints[f.name] != Json:
            inner += [(f"{flag}.{key}", entry) for key, entry in value.items()]
            continue
        nested = dataclasses.is_dataclass(value)
        shown = type(value).__name__ if nested else _shown(value)
        choices = taken(hints[f.name])
        if not nested or choices != shown:  # a field that takes one class alone is not a choice
            meaning = meanings.get(f.name, "")
            rows.append((f"{flag} {choices}", shown, "the same" if meaning and meaning == said else meaning))
            said = meaning
        if nested and dataclasses.fields(value):
            inner.append((flag, value))
    name = prefix.strip("-.")
    yield Block(f"{name} = {type(config).__name__}" if name else type(config).__name__, about, rows)
    for flag, value in inner:
        yield from _blocks(value, f"{flag}.")


def taken(hint: Any) -> str:
    """What a field with this annotation takes, in words that stand for values: `INT`, `SinCos|Rope|None`."""
    if get_origin(hint) in {Union, UnionType}:
        return "|".join(dict.fromkeys(taken(arg) for arg in get_args(hint)))
    if hint == Json:
        return "JSON"
    if get_origin(hint) is tuple:
        args = get_args(hint)
        return f"{taken(args[0])}.." if args[-1] is Ellipsis else " ".join(map(taken, args))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "|".join(cls.__name__ for cls in _concrete(hint))
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _concrete(cls: type) -> Iterator[type]:
    """`cls` where it can be built, and whatever extends it."""
    if not getattr(cls, "__abstractmethods__", None):
        yield cls
    for sub in cls.__subclasses__():
        yield from _concrete(sub)


def _described(config: Any) -> tuple[str, dict[str, str]]:
    """A config's docstring as its first paragraph and, by field, what the rest of it and of its bases' says."""
    own, meanings = {f.name for f in dataclasses.fields(config)}, dict[str, str]()
    for cls in reversed(type(config).__mro__):
        pieces = DOCUMENTED.split(" ".join((getdoc(cls) or "").partition("\n\n")[2].split()))
        for names, text in zip(pieces[1::2], pieces[2::2], strict=True):
            meanings |= {name: text.strip() for name in re.findall(r"`(\w+)`", names) if name in own}
    return " ".join((getdoc(type(config)) or "").partition("\n\n")[0].split()), meanings


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{len(cast('Json', value))} entries"
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _wrapped(block: Block, width: int) -> Iterator[str]:
    yield from textwrap.wrap(f"{block.title}: {block.about}", width)
    for flag, value, meaning in block.rows:
        line = f"  {flag}  [{value}]"
        if meaning and len(line) + 2 + len(meaning) <= width:
            yield f"{line}  {meaning}"
            continue
        while len(line) > width and "|" in line[10:width]:  # between two choices
            end = line.rindex("|", 10, width) + 1
            yield line[:end]
            line = " " * 8 + line[end:]
        yield line
        yield from textwrap.wrap(meaning, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
