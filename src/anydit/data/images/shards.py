"""Images in tar files, as WebDataset lays them out: all members of one name are one sample."""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anydit.config import config
from anydit.data.base import Part, Samples
from anydit.data.folders import state
from anydit.data.images.cache import Sources
from anydit.data.images.decode import SUFFIXES
from anydit.data.images.folder import ImageData
from anydit.data.outside import Unreadable, rows_of

LONGEST = 2**16
"""Bytes of a class or a caption that are read."""


@dataclass
class Shard:
    """One sample of a tar file: the places of its members by suffix, or why there are none."""

    tar: Path
    members: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    broken: str = ""

    def read(self, suffix: str, at_most: int | None = None) -> bytes:
        """A member's bytes.

        Raises:
            Unreadable: it is not there, or not whole.
        """
        if self.broken:
            raise Unreadable(self.broken)
        if suffix not in self.members:
            raise Unreadable(f"no {suffix}, which others have")
        start, size = self.members[suffix]
        if at_most is not None and size > at_most:
            raise Unreadable(f"{size} bytes of {suffix}, expected at most {at_most}")
        with self.tar.open("rb") as file:
            file.seek(start)
            found = file.read(size)
        if len(found) < size:
            raise Unreadable("cut off: the tar file ends before it")
        return found

    def text(self, suffix: str) -> str:
        """A member's text.

        Raises:
            Unreadable: as `read`, or it is no text.
        """
        try:
            return self.read(suffix, LONGEST).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise Unreadable(f"{suffix} is not text in UTF-8") from None


@config
class ImageShards(ImageData):
    """The images in tar files that are not compressed: `path` is one, or a folder of them, as WebDataset writes them.

    Members `NAME.jpg` (or another format), `NAME.cls` and `NAME.txt` are one sample, its class and its caption, which
    the model is told as `label` and `text`; of captions and classes all samples have one, or none. A tar file that is
    damaged counts as one unreadable image from there on.
    """

    path: Path = Path("shards")

    def open(self, part: Part) -> Samples:
        root = self.path.expanduser()
        tars = [root] if root.is_file() else sorted(root.rglob("*.tar"))
        found = {name: shard for tar in tars for name, shard in _shards(root, tar)}
        if not any(_image(shard) for shard in found.values()):
            raise ValueError(f"data.path: got {root}, expected a tar file with images, or a folder of such")
        told = {suffix: any(suffix in shard.members for shard in found.values()) for suffix in (".cls", ".txt")}
        kept = {name: shard for name, shard in found.items() if shard.broken or _image(shard)}
        values = {suffix: _told(kept, suffix) for suffix, there in told.items() if there}
        classes = sorted(set(values.get(".cls", {}).values()), key=lambda name: (not name.isdigit(), len(name), name))
        names, shards = list(kept), list(kept.values())

        def load(i: int) -> bytes:
            for suffix, of_each in values.items():
                if names[i] not in of_each:
                    shards[i].text(suffix)  # which raises what is wrong
            return shards[i].read(_image(shards[i]) or "an image")

        labels = [classes.index(values[".cls"].get(name, classes[0])) for name in names] if classes else None
        decoded = self._decoded(Sources(names, labels, load, [state(tar) for tar in tars]))
        texts = {"text": [values[".txt"][name] for name in decoded.names]} if ".txt" in values else {}
        return self._samples(decoded, classes, part, rows_of(decoded.names, self.held_out, part), texts)


def _image(shard: Shard) -> str | None:
    """The suffix of a sample's image."""
    return next((suffix for suffix in shard.members if suffix.endswith(SUFFIXES)), None)


def _told(shards: Mapping[str, Shard], suffix: str) -> dict[str, str]:
    """The texts of members with a suffix, by sample, where they can be read."""
    out = dict[str, str]()
    for name, shard in shards.items():
        try:
            out[name] = shard.text(suffix)
        except Unreadable:
            continue
    return out


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
