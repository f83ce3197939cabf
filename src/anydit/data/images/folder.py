"""A folder of image files, one subfolder for each class or flat; and what all data of image files has in common."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import config
from anydit.data.absent import elsewhere
from anydit.data.arrays import ArraySamples
from anydit.data.base import Data, Facts, Part, Samples, check_share
from anydit.data.buckets import each_size, together
from anydit.data.folders import listing, passed_over, plain, state
from anydit.data.images.aspects import Buckets
from anydit.data.images.cache import Cache, Decoded, Sources
from anydit.data.images.decode import ROUNDING, SUFFIXES, Crop, Fit, Target, told_off
from anydit.data.mirrored import Mirrored
from anydit.data.outside import Unreadable, rows_of

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
        target = Target.of(self.size, self.buckets, self.channels, self.fit)
        return Cache(self.cache, target, self.bad_limit).get(sources)

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
        elif part == "train" and decoded.off > ROUNDING:
            print(told_off(self.fit, decoded.off, self.size, "Some images"), file=sys.stderr)
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
        names, classes, others = listing(root, SUFFIXES, "images")
        if part == "train" and others:
            print(passed_over(others, "images"), file=sys.stderr)
        index = {name: i for i, name in enumerate(classes)}
        labels = [index[name.partition("/")[0]] for name in names] if classes else None
        stats = [state(root / name) for name in names]

        def load(i: int) -> Path:
            if why := elsewhere(root / names[i]):
                raise Unreadable(why)
            if stats[i] is None:
                raise Unreadable("not a file, or one that is not there")
            return root / names[i]

        decoded = self._decoded(Sources(names, labels, load, stats))
        rows = rows_of(decoded.names, self.held_out, part)
        return self._samples(decoded, [plain(name) for name in classes], part, rows)


def _of_size(k: int, size: tuple[int, int], decoded: Decoded, whole: ArraySamples) -> ArraySamples:
    """The images of size number `k`, among those of the rows of `whole`."""
    ids = torch.nonzero(torch.tensor(decoded.which) == k)[:, 0]
    places: list[int] = ids.tolist()
    rows = None if whole.rows is None else torch.nonzero(torch.isin(ids, whole.rows))[:, 0]
    cond = {name: values[ids] for name, values in whole.cond.items()}
    texts = {name: [each[i] for i in places] for name, each in whole.texts.items()}
    return replace(whole, x=decoded.pixels[k], facts=replace(whole.facts, size=size), cond=cond, rows=rows, texts=texts)
