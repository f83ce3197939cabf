"""A folder of image files, one subfolder for each class or flat; and what all data of image files has in common."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from os import walk
from pathlib import Path
from stat import S_ISREG
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anydit.config import config
from anydit.data.arrays import ArraySamples
from anydit.data.base import Data, Facts, Part, Samples, check_share
from anydit.data.cache import Cache, Decoded, Sources
from anydit.data.decode import SUFFIXES, Crop, Fit, Unreadable
from anydit.tensors import Batch

PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Names of folders that are parts of a data set, not classes."""


@config
class ImageData(Data):
    """Image files, decoded once to `size` (height, width), `channels` 1 (grey), 3 (RGB) or 4 (RGBA), values 0 to 1.

    `fit`: what becomes of another aspect. `held_out`: the share of images kept from training, drawn by each image's
    name. `flip`: train on the mirrored images as well. `bad_limit`: the share that may be unreadable (a handful
    always, unless 0); they are skipped. `cache`: where decoded images are kept (None: `ANYDIT_CACHE`, ~/.cache/anydit).
    """

    size: tuple[int, int] = (64, 64)
    channels: Literal[1, 3, 4] = 3
    fit: Fit = Crop()
    held_out: float = 0.1
    flip: bool = False
    bad_limit: float = 0.01
    cache: Path | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size: got {self.size}, expected a height and a width of at least 1")
        check_share(self.held_out)
        if not 0 <= self.bad_limit <= 1:
            raise ValueError(f"bad_limit: got {self.bad_limit}, expected 0 to 1")

    def _decoded(self, sources: Sources) -> Decoded:
        return Cache(self.cache, self.size, self.channels, self.fit, self.bad_limit).get(sources)

    def _samples(self, decoded: Decoded, classes: Sequence[str], part: Part, rows: Int[Tensor, " n"] | None) -> Samples:
        """The samples of one part: `rows` of all that were decoded, with their labels where there are classes."""
        if part == "train" and decoded.skipped:
            print(decoded.told(), file=sys.stderr)
        if rows is not None and not len(rows):
            count = f"none of {len(decoded.names)} images in the part {part}"
            raise ValueError(f"data.held_out: got {self.held_out}, which leaves {count}; expected at least one")
        cond = dict[str, Tensor]()
        if decoded.labels is not None:
            cond["label"] = torch.tensor(decoded.labels)
            for index in sorted(set(range(len(classes))) - set(decoded.labels)):
                raise ValueError(f"data: got no readable image of the class {classes[index]}, expected at least one")
        facts = Facts(self.channels, self.size, {"label": tuple(classes)} if cond else {}, frozenset(cond))
        samples = ArraySamples(decoded.pixels, facts, cond, unit=1 / 255, rows=rows)
        return Mirrored(samples) if self.flip and part == "train" else samples


@config
class ImageFolder(ImageData):
    """The image files in `path`: one subfolder for each class (at any depth in it), or all in `path` and unconditional.

    Hidden files and folders are passed over, and so is what is not named like an image.
    """

    path: Path = Path("images")

    def open(self, part: Part) -> Samples:
        root = self.path.expanduser()
        names, classes = _listing(root)
        index = {name: i for i, name in enumerate(classes)}
        labels = [index[name.partition("/")[0]] for name in names] if classes else None
        stats = [_stat(root / name) for name in names]

        def load(i: int) -> Path:
            if stats[i] is None:
                raise Unreadable("not a file, or one that is not there")
            return root / names[i]

        decoded = self._decoded(Sources(names, labels, load, stats))
        return self._samples(decoded, classes, part, rows_of(decoded.names, self.held_out, part))


@dataclass(frozen=True)
class Mirrored:
    """Every sample twice, the second time mirrored left to right, under ids of its own."""

    samples: Samples

    @property
    def facts(self) -> Facts:
        return self.samples.facts

    def __len__(self) -> int:
        return 2 * len(self.samples)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        batch = self.samples.read(ids % len(self.samples))
        mirrored = (ids >= len(self.samples)).reshape(-1, 1, 1, 1)
        return Batch(torch.where(mirrored, batch.x.flip(-1), batch.x), batch.cond, ids)


def rows_of(names: Sequence[str], held_out: float, part: Part) -> Int[Tensor, " n"]:
    """The rows of one part, in order. Each is drawn by its name alone, so that more of them move none of the others."""
    draws = torch.tensor([int.from_bytes(sha256(name.encode()).digest()[:6]) for name in names]).double()
    chosen: Bool[Tensor, " all"] = draws / 2**48 < held_out
    return torch.nonzero(chosen if part == "held_out" else ~chosen)[:, 0]


def _listing(root: Path) -> tuple[list[str], list[str]]:
    """The image files by their names relative to `root`, and the classes; none where the folder is flat."""
    if not root.is_dir():
        raise ValueError(f"data.path: got {root}, which is not a folder; expected one with images")
    flat = sorted(e.name for e in root.iterdir() if _is_image(e.name) and not e.is_dir())
    classes = sorted(e.name for e in root.iterdir() if e.is_dir() and not e.name.startswith((".", "__")))
    by_class = {name: sorted(_below(root, root / name)) for name in classes}
    found = [name for names in by_class.values() for name in names]
    if not flat and not found:
        raise ValueError(f"data.path: got {root} without images, expected files named {', '.join(SUFFIXES)}")
    if flat and classes:
        raise ValueError(
            f"data.path: got {root} with {len(flat)} images of its own beside the folders {', '.join(classes[:5])}; "
            "expected either one folder for each class, or images only"
        )
    empty = [name for name, names in by_class.items() if not names]
    if empty:
        raise ValueError(f"data.path: got no images in {', '.join(empty[:5])} of {root}, expected some of every class")
    if len(classes) > 1 and {name.lower() for name in classes} <= PARTS:
        raise ValueError(
            f"data.path: got {root} with the folders {', '.join(classes)}, which are parts, not classes; "
            f"expected one of them, as {root / classes[0]}"
        )
    return flat or found, classes


def _below(root: Path, folder: Path) -> Iterator[str]:
    """The image files at any depth in `folder`, relative to `root`."""
    for at, folders, files in walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name).relative_to(root).as_posix() for name in files if _is_image(name))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _stat(file: Path) -> tuple[int, int] | None:
    """A file's bytes and when it was changed; None where it is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if S_ISREG(found.st_mode) else None
