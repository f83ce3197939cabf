"""Emoji: colour pictures with their Unicode names, as an npm package brings them."""

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

from anydit.config import config
from anydit.data.base import Part, Samples
from anydit.data.images.cache import Sources
from anydit.data.images.folder import ImageData
from anydit.data.outside import Unreadable, rows_of

PACKAGE = "emoji-datasource-google"
INDEX, PICTURES = "emoji.json", Path("img", "google", "64")
"""What the package has where."""

MOST_BYTES = 2**26
"""No index is near as large."""

TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}
"""Skin, by Unicode's modifiers."""


class Entry(NamedTuple):
    """One picture: its file, its text, that of the emoji without a tone, and its category."""

    image: str
    text: str
    emoji: str
    category: str


@config
class Emoji(ImageData):
    """Google's emoji, 64x64 in 3,786 pictures with texts like "waving hand sign, medium skin tone" and their category.

    `path`: the unpacked npm package emoji-datasource-google (images by Google, Apache-2.0). All skin tones of an emoji
    are in one part. What is transparent is white, unless `channels` is 4. Mirrored (`flip`), an arrow points the other
    way than its text says.
    """

    size: tuple[int, int] = (32, 32)
    held_out: float = 0.05
    path: Path = Path("node_modules") / PACKAGE

    def open(self, part: Part) -> Samples:
        root = self.path.expanduser()
        entries = {entry.image: entry for entry in _entries(root)}
        names, classes = list(entries), sorted({entry.category for entry in entries.values()})
        files = [root / PICTURES / name for name in names]

        def load(i: int) -> Path:
            if not files[i].is_file():
                raise Unreadable("not in the package")
            return files[i]

        states = [(file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None for file in files]
        labels = [classes.index(entry.category) for entry in entries.values()]
        decoded = self._decoded(Sources(names, labels, load, states))
        kept = [entries[name] for name in decoded.names]
        rows = rows_of([entry.emoji for entry in kept], self.held_out, part)
        return self._samples(decoded, classes, part, rows, {"text": [entry.text for entry in kept]})


def _entries(root: Path) -> list[Entry]:
    """All pictures that the package's index names."""
    file = root / INDEX
    if not file.is_file():
        raise ValueError(
            f"data.path: got {root}, which has no {INDEX}; expected the npm package {PACKAGE}: "
            f"npm install {PACKAGE}, or --data.path FOLDER"
        )
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"data.path: got {file} of {file.stat().st_size} bytes, expected at most {MOST_BYTES}")
    try:
        listed = cast("list[Any]", json.loads(file.read_text(encoding="utf-8")))
        entries = [entry for each in listed if each["has_img_google"] for entry in _with_tones(each)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"data.path: got {file}, which is not the index of {PACKAGE} ({why})") from None
    if not entries:
        raise ValueError(f"data.path: got {file}, which names no picture, expected the index of {PACKAGE}")
    return entries


def _with_tones(each: Any) -> list[Entry]:
    """An emoji's picture, and those of its skin tones."""
    text, category = " ".join(each["name"].lower().split()), str(each["category"])
    if not text:
        raise ValueError(f"no name for {each['image']}")
    entries = [Entry(_file(each["image"]), text, text, category)]
    for tones, other in each.get("skin_variations", {}).items():
        if other["has_img_google"]:
            skin = " and ".join(TONES[tone] for tone in tones.split("-"))
            entries.append(Entry(_file(other["image"]), f"{text}, {skin} skin tone", text, category))
    return entries


def _file(name: str) -> str:
    """A file's name, which must not lead out of its folder."""
    if Path(name).name != name:
        raise ValueError(f"the image {name!r} is no file's name")
    return name
