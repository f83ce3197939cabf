"""A folder of image files, one subfolder for each class or flat; and what all data of image files has in common."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import config
from anydit.data.arrays import ArraySamples
from anydit.data.base import Data, Facts, Part, Samples, check_share
from anydit.data.folders import listing, passed_over, plain, state
from anydit.data.images.cache import Cache, Decoded, Sources
from anydit.data.images.decode import SUFFIXES, Crop, Fit
from anydit.data.outside import Unreadable, rows_of
from anydit.tensors import Batch

NO_TEXTS: Mapping[str, Sequence[str]] = MappingProxyType({})


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
        samples = ArraySamples(decoded.pixels, facts, cond, unit=1 / 255, rows=rows, texts=texts)
        return Mirrored(samples) if self.flip and part == "train" else samples


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
            if stats[i] is None:
                raise Unreadable("not a file, or one that is not there")
            return root / names[i]

        decoded = self._decoded(Sources(names, labels, load, stats))
        rows = rows_of(decoded.names, self.held_out, part)
        return self._samples(decoded, [plain(name) for name in classes], part, rows)


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
