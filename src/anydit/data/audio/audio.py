"""Audio: sounds of any length up to a longest one, from files, with their classes and texts."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import check_fraction, check_positive, config
from anydit.data.audio.cache import Clips, Sound, kept
from anydit.data.audio.files import Mix, Pieces, Refused, Resample, Wanted, clips, soundfile
from anydit.data.audio.listing import InFolder, found_in
from anydit.data.audio.view import AudioView
from anydit.data.base import Data, Facts, Part, Samples, cache_folder, check_share
from anydit.data.outside import rows_of, told
from anydit.data.sources import InTars
from anydit.tensors import MASK, Batch

TEXT = "text"

STEPS = 64
"""Lengths that a model draws from: those of the data, rounded up to so many parts of the longest."""


@config
class Audio(Data):
    """The files of sound in `path`: one subfolder for each class (at any depth in it), or all in `path`, as they are.

    Or tar files, in which a sound, its class and its text are NAME.wav, NAME.cls and NAME.txt. `rate`: in Hz.
    `seconds`: the longest that a sample may be; shorter ones keep their length. `channels`: 1 or 2. `other_rate`,
    `other_channels`, `longer`: what becomes of files that are not so. Texts are in a file NAME.txt beside each
    NAME.wav. `held_out`: the share of files kept from training, drawn by name. `bad_limit`: the share that may be
    unreadable (a handful always, unless 0); they are skipped. `cache`: where sounds are kept once they are decoded.
    """

    path: Path = Path("audio")
    rate: int = 16_000
    seconds: float = 1.0
    channels: Literal[1, 2] = 1
    other_rate: Refused | Resample = Refused()
    other_channels: Refused | Mix = Refused()
    longer: Refused | Pieces = Refused()
    held_out: float = 0.1
    bad_limit: float = 0.0
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.rate < 1:
            raise ValueError(f"rate: got {self.rate}, expected at least 1 Hz")
        check_positive("seconds", self.seconds)
        check_share(self.held_out)
        check_fraction("bad_limit", self.bad_limit)
        if self.size[0] < 1:
            raise ValueError(f"seconds: got {self.seconds}, expected at least 1 of {self.rate} places in a second")

    @property
    def size(self) -> tuple[int]:
        """Places of the longest sample."""
        return (round(self.seconds * self.rate),)

    def open(self, part: Part) -> Samples:
        soundfile()
        found = found_in(self.path.expanduser())
        decoded = self._clips(found)
        if part == "train":
            skipped = [told(decoded.skipped, len(found.names), "files")] if decoded.skipped else []
            for sentence in (*found.said, *skipped):
                print(sentence, file=sys.stderr)
        return self._samples(found, decoded, part)

    def _clips(self, found: InFolder | InTars) -> Clips:
        how = (self.other_rate, self.other_channels, self.longer)
        wanted = Wanted(self.rate, self.size[0], self.channels, *how)

        def load(name: str) -> Sound:
            if found.classes:
                found.class_of(name)  # which says what is wrong
            return {"name": name, TEXT: found.text(name)}, clips(found.source(name), wanted)

        root = (self.cache.expanduser() if self.cache else cache_folder()) / "audio"
        key = [str(self.path.expanduser().resolve()), found.states, [repr(each) for each in wanted]]
        return kept(root, key, found.names, load, self.channels, self.bad_limit)

    def _samples(self, found: InFolder | InTars, decoded: Clips, part: Part) -> Samples:
        names: list[str] = [about["name"] for about in decoded.about]
        texts: list[str] = [about[TEXT] for about in decoded.about]
        rows: dict[Part, Int[np.ndarray, " n"]] = {
            each: np.nonzero(np.isin(decoded.files, rows_of(names, self.held_out, each).numpy()))[0]
            for each in ("train", "held_out")
        }
        if not len(rows[part]):
            raise ValueError(
                f"data.held_out: got {self.held_out}, which leaves none of {len(names)} files in the part {part}; "
                "expected at least one"
            )
        cond = dict[str, Tensor]()
        if classes := tuple(found.classes):
            index = {name: i for i, name in enumerate(classes)}
            of_files = [index[found.class_of(name)] for name in names]
            if missing := set(range(len(classes))) - set(of_files):
                raise ValueError(
                    f"data: got no readable file of the class {classes[min(missing)]}, expected at least one"
                )
            cond["label"] = torch.tensor(of_files)
        facts = facts_of(decoded, rows["train"], self.size[0], self.rate, {"label": classes} if classes else {},
                         texts=(TEXT,) if any(texts) else ())  # fmt: skip
        return AudioSamples(decoded, rows[part], facts, cond, {TEXT: texts} if any(texts) else {})


def facts_of(
    found: Clips,
    training: Int[np.ndarray, " n"],
    length: int,
    rate: int,
    classes: Mapping[str, tuple[str, ...]],
    numbers: Mapping[str, tuple[str, ...]] | None = None,
    texts: tuple[str, ...] = (),
) -> Facts:
    """What samples of these clips have in common; lengths are those of the clips to train on, if not all are whole."""
    lengths = found.lengths[training]
    counted = tuple[tuple[int, int], ...]()
    if len(lengths) and (found.lengths < length).any():
        step = ceil(length / STEPS)
        values, counts = np.unique(np.minimum(-(-lengths // step) * step, length), return_counts=True)
        counted = tuple(zip(values.tolist(), counts.tolist(), strict=True))
    return Facts(found.values.shape[1], (length,), classes, numbers or {}, texts=texts, view=AudioView(rate=rate),
                 lengths=counted)  # fmt: skip


@dataclass(frozen=True)
class AudioSamples:
    """Some of the clips, by `rows`; where one has ended there is silence, and the mask says so.

    `cond`, `texts`: what is known of each file.
    """

    clips: Clips
    rows: Int[np.ndarray, " n"]
    facts: Facts
    cond: Mapping[str, Tensor]
    texts: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        rows, length = self.rows[ids.numpy()], self.facts.size[0]
        x = np.zeros((len(rows), self.facts.channels, length), np.float32)
        lengths = self.clips.lengths[rows]
        for out, start, n in zip(x, self.clips.starts[rows], lengths, strict=True):
            out[:, :n] = self.clips.values[start : start + n].T
        of = torch.from_numpy(self.clips.files[rows])
        cond = {name: value[of] for name, value in self.cond.items()}
        if self.facts.lengths:
            cond[MASK] = torch.arange(length) < torch.from_numpy(lengths)[:, None]
        files: list[int] = of.tolist()
        texts = {name: [values[i] for i in files] for name, values in self.texts.items()}
        return Batch(torch.from_numpy(x), dict(cond), ids, texts)
