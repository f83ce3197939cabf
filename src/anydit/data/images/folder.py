"""A folder of image files, one subfolder for each class or flat; and what all data of image files has in common."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import R_OK, access, fsencode, walk
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import config
from anydit.data.arrays import ArraySamples
from anydit.data.base import Data, Facts, Part, Samples, check_share
from anydit.data.buckets import each_size, together
from anydit.data.images.aspects import Buckets
from anydit.data.images.cache import Cache, Decoded, Sources
from anydit.data.images.decode import SUFFIXES, Crop, Fit, Target
from anydit.data.outside import SHOWN, Unreadable, rows_of
from anydit.tensors import Batch

PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Names of folders that are parts of a data set, not classes."""

NO_TEXTS: Mapping[str, Sequence[str]] = MappingProxyType({})


@config
class ImageData(Data):
    """Image files, decoded once to `size` (height, width), `channels` 1 (grey), 3 (RGB) or 4 (RGBA), values 0 to 1.

    `fit`: what becomes of another aspect. `buckets`: sizes of other aspects, too, to one of which each image goes, so
    that less is cut; `size` then says how many pixels they have, or is one of them. `held_out`: the share of images
    kept from training, drawn by each image's name. `flip`: train on the mirrored images as well. `bad_limit`: the share
    that may be unreadable (a handful always, unless 0); they are skipped. `cache`: where decoded images are kept (None:
    `ANYDIT_CACHE`, ~/.cache/anydit).
    """

    size: tuple[int, int] = (64, 64)
    channels: Literal[1, 3, 4] = 3
    fit: Fit = Crop()
    buckets: Buckets | None = None
    held_out: float = 0.1
    flip: bool = False
    bad_limit: float = 0.01
    cache: Path | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size: got {self.size}, expected a height and a width of at least 1")
        if self.buckets is not None:
            self.buckets.of(self.size)
        check_share(self.held_out)
        if not 0 <= self.bad_limit <= 1:
            raise ValueError(f"bad_limit: got {self.bad_limit}, expected 0 to 1")

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        return [self.size] if self.buckets is None else self.buckets.of(self.size)

    def _decoded(self, sources: Sources) -> Decoded:
        if self.buckets is not None and len(self.sizes) < 2:
            raise ValueError(
                f"data.buckets: got {self.buckets} of size {self.size}, which are no more sizes than {self.sizes[0]}; "
                "expected another one in buckets.more, or a smaller buckets.multiple"
            )
        at_most = 1.0 if self.buckets is None else self.buckets.at_most
        return Cache(self.cache, Target(self.sizes, self.channels, self.fit, at_most), self.bad_limit).get(sources)

    def _samples(
        self,
        decoded: Decoded,
        classes: Sequence[str],
        part: Part,
        rows: Int[Tensor, " n"] | None,
        texts: Mapping[str, Sequence[str]] = NO_TEXTS,
    ) -> Samples:
        """The samples of one part: `rows` of all that were decoded, with their texts and labels, if any."""
        if part == "train" and decoded.skipped:
            print(decoded.told(), file=sys.stderr)
        if rows is not None and not len(rows):
            count = f"none of {len(decoded.names)} images in the part {part}"
            raise ValueError(f"data.held_out: got {self.held_out}, which leaves {count}; expected at least one")
        cond = dict[str, Tensor]()
        if decoded.labels is not None:
            cond["label"] = torch.tensor(decoded.labels)
            if missing := set(range(len(classes))) - set(decoded.labels):
                raise ValueError(
                    f"data: got no readable image of the class {classes[min(missing)]}, expected at least one"
                )
        facts = Facts(self.channels, self.size, {"label": tuple(classes)} if cond else {}, texts=tuple(texts))
        whole = ArraySamples(decoded.pixels[0], facts, cond, unit=1 / 255, rows=rows, texts=texts)
        samples: Samples = whole
        if self.buckets is not None:
            samples = together([_of_size(k, size, decoded, whole) for k, size in enumerate(self.sizes)])
            if part == "train":
                print(f"{decoded.told_sizes()}; {self.fit.told(decoded.off)}.", file=sys.stderr)
        return each_size(samples, Mirrored) if self.flip and part == "train" else samples


@config
class ImageFolder(ImageData):
    """The image files in `path`: one subfolder for each class (at any depth in it), or all in `path` and unconditional.

    Passed over are hidden files and folders, folders named `__...`, and, counted, files not named like images. Links
    are followed, wherever they lead, to files and to classes' folders, but not to folders within a class.
    """

    path: Path = Path("images")

    def open(self, part: Part) -> Samples:
        root = self.path.expanduser()
        names, classes, others = _listing(root)
        if part == "train" and others:
            print(_told(others), file=sys.stderr)
        index = {name: i for i, name in enumerate(classes)}
        labels = [index[name.partition("/")[0]] for name in names] if classes else None
        stats = [_stat(root / name) for name in names]

        def load(i: int) -> Path:
            if stats[i] is None:
                raise Unreadable("not a file, or one that is not there")
            return root / names[i]

        decoded = self._decoded(Sources(names, labels, load, stats))
        rows = rows_of(decoded.names, self.held_out, part)
        return self._samples(decoded, [_text(name) for name in classes], part, rows)


def _of_size(k: int, size: tuple[int, int], decoded: Decoded, whole: ArraySamples) -> ArraySamples:
    """The images of size number `k`, among those of the rows of `whole`."""
    ids = torch.nonzero(torch.tensor(decoded.which) == k)[:, 0]
    places: list[int] = ids.tolist()
    rows = None if whole.rows is None else torch.nonzero(torch.isin(ids, whole.rows))[:, 0]
    cond = {name: values[ids] for name, values in whole.cond.items()}
    texts = {name: [each[i] for i in places] for name, each in whole.texts.items()}
    return replace(whole, x=decoded.pixels[k], facts=replace(whole.facts, size=size), cond=cond, rows=rows, texts=texts)


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
        mirrored = (ids >= len(self.samples)).reshape(-1, *(1,) * (batch.x.ndim - 1))
        return replace(batch, x=torch.where(mirrored, batch.x.flip(-1), batch.x), ids=ids)


class Listing(NamedTuple):
    """What is in a folder, by names relative to it; no `classes` where it is flat."""

    images: list[str]
    classes: list[str]
    others: list[str]


def _listing(root: Path) -> Listing:
    """Find the images, and refuse what is neither a folder for each class nor a flat one."""
    if not root.is_dir():
        raise ValueError(f"data.path: got {root}, which is not a folder; expected one with images")
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("__"))
    top = sorted(entry.name for entry in entries if not entry.is_dir())
    within = {name: sorted(_below(root, root / name)) for name in classes}
    files = top + [file for name in classes for file in within[name]]
    images, flat = [file for file in files if _is_image(file)], sum(map(_is_image, top))
    if not images:
        raise ValueError(f"data.path: got {root} without images, expected files named {', '.join(SUFFIXES)}")
    if flat and classes:
        raise ValueError(
            f"data.path: got {root} with {flat} images of its own beside the folders {_some(classes)}; "
            "expected either one folder for each class, or images only"
        )
    if empty := [name for name in classes if not any(map(_is_image, within[name]))]:
        raise ValueError(f"data.path: got no images in {_some(empty)} of {root}, expected some of every class")
    if classes and {name.lower() for name in classes} <= PARTS:
        raise ValueError(
            f"data.path: got {root} with the folders {_some(classes)}, which are parts, not classes; "
            f"expected one of them, as {root / classes[0]}"
        )
    return Listing(images, classes, [file for file in files if not _is_image(file)])


def _below(root: Path, folder: Path) -> Iterator[str]:
    """The files at any depth in `folder`, relative to `root`, that are not hidden."""
    for at, folders, files in walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(at).relative_to(root).as_posix()
        yield from (f"{prefix}/{name}" for name in files if not name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _told(others: Sequence[str]) -> str:
    """One sentence on what is in the folder but is not read."""
    kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in others).most_common(SHOWN)
    found = ", ".join(f"{count} with {_text(kind)}" for kind, count in kinds)
    return f"Passed over files that are not named like images: {found}."


def _some(names: Sequence[str]) -> str:
    return ", ".join(_text(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _text(name: str) -> str:
    """A file's name on one line and in valid Unicode, which it need not be."""
    return " ".join(fsencode(name).decode(errors="replace").split())


def _stat(file: Path) -> tuple[int, int, bool] | None:
    """A file's bytes, when it was changed, and whether it may be read; None where it is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns, access(file, R_OK)) if S_ISREG(found.st_mode) else None
