"""Tar files as WebDataset lays them out: all members of one name are one sample, and are read where they lie."""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anydit.data.folders import files_in, state, walked
from anydit.data.outside import Unreadable, listed

TAR, CLASS, TEXT = ".tar", ".cls", ".txt"
"""What the names of tar files end in, and those of members that are a sample's class and its text."""

LONGEST = 2**16
"""Bytes of a class or a text that are read."""


class Member(NamedTuple):
    """A member of a tar file, which is opened as a file is; `suffix`: the last of its name, in lower case."""

    tar: Path
    start: int
    size: int
    suffix: str

    @property
    def name(self) -> str:
        """What it is called where its sample is not named."""
        return f"a member of {self.tar.name}"

    @property
    def state(self) -> Any:
        """By which it is known to be what it was."""
        return [str(self.tar.resolve()), state(self.tar), self.start, self.size]

    def open(self, mode: Literal["rb"] = "rb") -> BufferedReader:
        """Its bytes.

        Raises:
            Unreadable: they are not all there.
        """
        try:
            if self.tar.stat().st_size < self.start + self.size:
                raise Unreadable("cut off: the tar file ends before it")
            return BufferedReader(_Window(self.tar.open(mode), self.start, self.size))
        except OSError as error:
            raise Unreadable(error.strerror or "the tar file cannot be read") from None


class _Window(RawIOBase):
    """A part of an open file as a file, which closes it."""

    def __init__(self, file: BufferedReader, start: int, size: int) -> None:
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at

    def readinto(self, into: Any) -> int:
        self.file.seek(self.start + self.at)
        found = self.file.read(min(len(into), max(0, self.size - self.at)))
        into[: len(found)] = found
        self.at += len(found)
        return len(found)

    def close(self) -> None:
        self.file.close()
        super().close()


@contextmanager
def readable(source: Path | Member) -> Iterator[str | BufferedReader]:
    """What libraries open: a file by its name, a member by its bytes."""
    if isinstance(source, Path):
        yield str(source)
        return
    with source.open() as file:
        yield file


@dataclass
class Shard:
    """One sample of a tar file: the places of its members by suffix, or why there are none."""

    tar: Path
    members: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    broken: str = ""

    def suffix(self, known: Sequence[str]) -> str | None:
        """The first of its members' suffixes that ends in a known one."""
        return next((suffix for suffix in self.members if suffix.endswith(tuple(known))), None)

    def member(self, suffix: str) -> Member:
        """Where a member is.

        Raises:
            Unreadable: it is not there.
        """
        if self.broken:
            raise Unreadable(self.broken)
        if suffix not in self.members:
            raise Unreadable(f"no {suffix}, which others have")
        return Member(self.tar, *self.members[suffix], "." + suffix.rpartition(".")[2])

    def read(self, suffix: str, at_most: int | None = None) -> bytes:
        """A member's bytes.

        Raises:
            Unreadable: it is not there, or not whole.
        """
        member = self.member(suffix)
        if at_most is not None and member.size > at_most:
            raise Unreadable(f"{member.size} bytes of {suffix}, expected at most {at_most}")
        with member.open() as file:
            return file.read()

    def text(self, suffix: str) -> str:
        """A member's text.

        Raises:
            Unreadable: as `read`, or it is no text.
        """
        try:
            return self.read(suffix, LONGEST).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise Unreadable(f"{suffix} is not text in UTF-8") from None


@dataclass(frozen=True)
class Packed:
    """The samples of tar files by name, in order: those with a member of a kind, and one for each damaged file.

    `others`: how many samples have no such member.
    """

    tars: Sequence[Path]
    suffixes: Sequence[str]
    shards: Mapping[str, Shard]
    others: int

    @classmethod
    def of(cls, root: Path, suffixes: Sequence[str], what: str) -> "Packed":
        """The samples in a tar file, or in those at any depth in a folder; `what` their members are, in the plural.

        Raises:
            ValueError: there are none.
        """
        tars = [root] if root.is_file() else [path for path in files_in(root) if path.suffix.lower() == TAR]
        found = {name: shard for tar in tars for name, shard in _shards(root, tar)}
        kept = {name: shard for name, shard in found.items() if shard.broken or shard.suffix(suffixes)}
        if all(shard.broken for shard in kept.values()):
            why = f" ({listed([(name, shard.broken) for name, shard in kept.items()])})" if kept else ""
            expected = f"a tar file with {what} ({', '.join(suffixes)}), or a folder of such"
            raise ValueError(f"data.path: got {root} without {what}{why}, expected {expected}")
        return cls(tars, suffixes, kept, len(found) - len(kept))

    @property
    def states(self) -> list[Any]:
        """By which the tar files are known to be what they were."""
        return [state(tar) for tar in self.tars]

    def source(self, name: str) -> Member:
        """Where a sample's member is.

        Raises:
            Unreadable: nowhere, for the tar file is damaged.
        """
        shard = self.shards[name]
        return shard.member(shard.suffix(self.suffixes) or self.suffixes[0])

    def has(self, suffix: str) -> bool:
        """Whether any sample has such a member beside."""
        return any(suffix in shard.members for shard in self.shards.values())

    @cached_property
    def told(self) -> Mapping[str, str]:
        """What the class of each sample is that says it."""
        return self.texts(CLASS) if self.has(CLASS) else {}

    @cached_property
    def classes(self) -> list[str]:
        """All classes, in order: by number, where they are numbers."""
        return sorted(set(self.told.values()), key=lambda name: (not name.isdigit(), len(name), name))

    def class_of(self, name: str) -> str:
        """The class of a sample.

        Raises:
            Unreadable: it does not say it.
        """
        return self.told[name] if name in self.told else self.shards[name].text(CLASS)

    def texts(self, suffix: str) -> dict[str, str]:
        """The texts of members with a suffix, by sample, where they can be read."""
        out = dict[str, str]()
        for name, shard in self.shards.items():
            try:
                out[name] = shard.text(suffix)
            except Unreadable:
                continue
        return out


def is_packed(root: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a path is a tar file, or a folder with tar files and no others named with `suffixes`, in lower case."""
    if not root.is_dir():
        return root.suffix.lower() == TAR and root.is_file()
    packed = False
    for name in (name.lower() for _, _, files in walked(root) for name in files):
        if name.endswith(suffixes):
            return False
        packed = packed or name.endswith(TAR)
    return packed


def _shards(root: Path, tar: Path) -> Iterator[tuple[str, Shard]]:
    """The samples in a tar file by name, in order, and one more that is broken where the file is."""
    inside = tar.name if tar == root else tar.relative_to(root).as_posix()
    found, broken = dict[str, Shard](), ""
    try:
        with tarfile.open(tar, "r:") as members:
            for member in members:
                name, suffix = _split(member.name)
                if member.isfile() and suffix and not name.rpartition("/")[2].startswith("."):
                    shard = found.setdefault(f"{inside}/{name}", Shard(tar))
                    shard.members.setdefault(suffix, (member.offset_data, member.size))
            end = members.offset  # where Python's reader stops, without a word, if what is there is no header
        with tar.open("rb") as file:
            file.seek(end)
            broken = f"damaged after {len(found)} samples" if any(file.read(tarfile.BLOCKSIZE)) else ""
    except (tarfile.TarError, OSError, EOFError) as error:
        broken = f"damaged after {len(found)} samples ({error})"
    yield from found.items()
    if broken:
        yield inside, Shard(tar, broken=broken)


def _split(member: str) -> Sequence[str]:
    """A member's name up to the first dot of its last part, and the rest in lower case, as WebDataset splits it."""
    folder, slash, file = member.removeprefix("./").rpartition("/")
    name, dot, suffix = file.partition(".")
    return folder + slash + name, (dot + suffix).lower()
