"""What there is of a kind in a folder, or in tar files, by name, and what is known of each: its class, and its text."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anydit.data.shards import TEXT, Member, Packed


@dataclass(frozen=True)
class Found(ABC):
    """Things by name; no `classes` where they have none. `said`: sentences on what is passed over."""

    names: Sequence[str]
    classes: Sequence[str]
    said: Sequence[str]

    @abstractmethod
    def source(self, name: str) -> Path | Member:
        """Where one is.

        Raises:
            Unreadable: nowhere, for the tar file is damaged.
        """

    @abstractmethod
    def class_of(self, name: str) -> str:
        """The class of one, where there are classes.

        Raises:
            Unreadable: it has none.
        """

    @abstractmethod
    def text(self, name: str) -> str:
        """The text beside one, on one line.

        Raises:
            Unreadable: there is none, or it is no text.
        """


@dataclass(frozen=True)
class InTars(Found):
    """Samples of tar files, of which each has a member of the kind.

    `told`: whether they have texts, else each is empty; `line`: makes a text one line, given what it is named.
    """

    packed: Packed
    told: bool
    line: Callable[[str, str], str]

    @classmethod
    def of(cls, packed: Packed, one: str, told: bool, line: Callable[[str, str], str]) -> "InTars":
        """`one`: what a member of the kind is."""
        said = [f"Passed over {packed.others} samples without a {one}."] if packed.others else []
        return cls([*packed.shards], packed.classes, said, packed, told, line)

    @property
    def states(self) -> list[Any]:
        """By which they are known to be what they were."""
        return self.packed.states

    def source(self, name: str) -> Member:
        return self.packed.source(name)

    def class_of(self, name: str) -> str:
        return self.packed.class_of(name)

    def text(self, name: str) -> str:
        return self.line(self.packed.shards[name].text(TEXT), TEXT) if self.told else ""
