"""Public data sets, as they come inside packages."""

import gzip
import zlib
from dataclasses import replace
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Shaped

from anydit.config import config
from anydit.data.arrays import ArraySamples, split
from anydit.data.base import Data, Facts, Part, Samples, check_share
from anydit.data.images.huggingface import HuggingFace


@config
class Digits(Data):
    """scikit-learn's 1,797 handwritten digits, 8x8, values 0 to 16 (UCI, Alpaydin & Kaynak 1998).

    `held_out`: the share of digits kept from training.
    """

    size: ClassVar[tuple[int, int]] = (8, 8)

    held_out: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.held_out)

    def open(self, part: Part) -> Samples:
        found = find_spec("sklearn")
        if found is None or found.origin is None:
            raise ValueError("data: Digits needs scikit-learn, which is missing; pip install 'anydit[digits]'")
        # Read off the package's files, which it keeps for load_digits: to import it takes longer than to train a while.
        lines = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", np.float32, delimiter=",")
        facts = Facts(1, (8, 8), {"label": tuple("0123456789")})
        x, labels = lines[:, :-1].reshape(-1, 1, 8, 8), torch.from_numpy(lines[:, -1].astype(np.int64))
        return ArraySamples(x, facts, {"label": labels}, rows=split(len(x), self.held_out, part))


@config
class FashionMNIST(Data):
    """70,000 pictures of clothes, 28x28, values 0 to 255, 10,000 of them held out (Xiao et al. 2017, arXiv 1708.07747).

    `path`: a folder of the four IDX files as published, gzipped or not; by default where the Debian package puts them.
    `name`: in place of it, a data set in the format of Hugging Face with the splits "train" and "test", by its name on
    the hub or a folder.
    """

    size: ClassVar[tuple[int, int]] = (28, 28)

    path: Path = Path("/usr/share/datasets/fashion-mnist")
    name: str | None = None

    def open(self, part: Part) -> Samples:
        return self._idx(part) if self.name is None else self._named(self.name, part)

    def _named(self, name: str, part: Part) -> Samples:
        """The same pixels and classes as those of the IDX files."""
        samples = HuggingFace(name=name, size=(28, 28), channels=1, held_out_split="test", bad_limit=0).open(part)
        assert isinstance(samples, ArraySamples), "nothing is mirrored"
        found = len(samples.facts.classes.get("label", ()))
        if found != len(CLOTHES):
            raise ValueError(
                f"data.name: got {name} with {found} classes, expected the {len(CLOTHES)} of Fashion-MNIST"
            )
        return replace(samples, facts=FASHION, unit=1.0)

    def _idx(self, part: Part) -> Samples:
        stem = "train" if part == "train" else "t10k"
        folder = self.path.expanduser()
        images, labels = _idx(folder, f"{stem}-images", 3), _idx(folder, f"{stem}-labels", 1)
        if images.shape[1:] != (28, 28) or not len(images):
            raise ValueError(f"data.path: got {stem} images of shape {images.shape} in {folder}, expected [n, 28, 28]")
        if len(images) != len(labels):
            raise ValueError(f"data.path: got {len(images)} {stem} images and {len(labels)} labels in {folder}")
        if labels.max() >= len(CLOTHES):
            raise ValueError(
                f"data.path: got {stem} label {labels.max()} in {folder}, expected 0 to {len(CLOTHES) - 1}"
            )
        return ArraySamples(images[:, None], FASHION, {"label": torch.from_numpy(labels.astype(np.int64))})


CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""Fashion-MNIST's classes, in the order of their labels."""

FASHION = Facts(1, (28, 28), {"label": CLOTHES})

IDX_BYTE = 0x08
"""IDX's code for unsigned bytes (LeCun's format: two zeros, type, axes, then big-endian sizes, then the values)."""

MOST_BYTES = 2**30
"""No file of these is near as large."""


def _idx(folder: Path, stem: str, axes: int) -> Shaped[np.ndarray, "..."]:
    """The bytes of an IDX file of so many axes, plain or gzipped."""
    names = [f"{stem}{mark}idx{axes}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise ValueError(
            f"data.path: got {folder}, which has no {names[0]}[.gz]; expected a folder with Fashion-MNIST's IDX files: "
            "apt-get install dataset-fashion-mnist, or --data.path FOLDER, or --data.name NAME_ON_HUGGING_FACE"
        )
    head_bytes = 4 + 4 * axes
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            head = opened.read(head_bytes)
            shape = tuple(np.frombuffer(head[4:].ljust(4 * axes, b"\0"), ">u4").tolist())
            # One byte more than the header tells, at most: a gzipped file may be far longer than it looks.
            values = opened.read(min(prod(shape), MOST_BYTES) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"data.path: {file} cannot be read: {error}") from None
    if len(head) < head_bytes or head[:4] != bytes([0, 0, IDX_BYTE, axes]) or len(values) != prod(shape):
        raise ValueError(f"data.path: got {file}, which is cut short or no IDX file; expected bytes on {axes} axes")
    return np.frombuffer(values, np.uint8).reshape(shape)
