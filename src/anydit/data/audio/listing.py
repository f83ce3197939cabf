"""The sounds in a folder, or in tar files, by name, and what is known of each: where it is, its class, its text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anydit.data.audio.files import SUFFIXES
from anydit.data.folders import listing, passed_over, plain, state
from anydit.data.outside import Unreadable
from anydit.data.shards import TEXT, Packed, is_packed
from anydit.data.sources import Found, InTars

MOST_TEXT = 2**14
"""Bytes of a text beside a sound."""


@dataclass(frozen=True)
class InFolder(Found):
    """Files below `root`. `told`: whether each has a text, else it is empty."""

    root: Path
    told: bool

    @property
    def states(self) -> list[Any]:
        """By which they are known to be what they were."""
        beside = [state(self._text_of(name)) if self.told else None for name in self.names]
        return [[state(self.root / name), text] for name, text in zip(self.names, beside, strict=True)]

    def source(self, name: str) -> Path:
        return self.root / name

    def class_of(self, name: str) -> str:
        return plain(name.partition("/")[0])

    def text(self, name: str) -> str:
        if not self.told:
            return ""
        file = self._text_of(name)
        try:
            with file.open("rb") as opened:
                return _line(opened.read(MOST_TEXT + 1).decode("utf-8"), file.name)
        except OSError as error:
            raise Unreadable(f"no text {file.name} beside it, as others have ({error.strerror})") from None
        except UnicodeDecodeError:
            raise Unreadable(f"{file.name} beside it is not in UTF-8") from None

    def _text_of(self, name: str) -> Path:
        return (self.root / name).with_suffix(TEXT)


def _line(text: str, name: str) -> str:
    """A text on one line."""
    line = " ".join(text.split())
    if not line or len(line) > MOST_TEXT:
        raise Unreadable(f"{name} beside it has {'no words' if not line else f'more than {MOST_TEXT} bytes'}")
    return line


def found_in(root: Path) -> InFolder | InTars:
    """Find the sounds: files in a subfolder for each class, or all in `root`.

    Or those in a tar file, or in those of a folder in which there are no other sounds.

    Raises:
        ValueError: there are none, or `root` is neither a folder for each class nor a flat one.
    """
    if is_packed(root, SUFFIXES):
        packed = Packed.of(root, SUFFIXES, "sounds")
        return InTars.of(packed, "sound", packed.has(TEXT), _line)
    names, classes, others = listing(root, SUFFIXES, "sounds")
    beside = {name.removesuffix(TEXT) for name in others if name.endswith(TEXT)}
    told = any(name.rpartition(".")[0] in beside for name in names)
    others = [name for name in others if not (told and name.endswith(TEXT))]
    said = [passed_over(others, "sounds")] if others else []
    return InFolder(names, [plain(name) for name in classes], said, root, told)
