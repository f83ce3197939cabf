"""Latents for training: encoded with each batch, or all of them once, into files that are mapped into memory."""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from anydit.codecs import Codec, CodecConfig, Normalize
from anydit.codecs.base import in_parts
from anydit.config import Json, config, to_json, write_json
from anydit.data import ArraySamples, Samples, cache_folder
from anydit.data.base import digest
from anydit.data.buckets import each_size
from anydit.data.kept import INDEX, made
from anydit.data.mirrored import Mirrored
from anydit.tensors import MASK, Batch, Tokens
from anydit.weights import checksum

SCHEMA = 1
"""Of the files of a cache, and of how latents are made: another number makes every cache anew."""

LATENTS, TOLD, TEXTS = "latents.npy", "known-{}.npy", "texts-{}.npy"
READ_AT_ONCE = 256
"""Samples that are in memory together while they are encoded."""


@dataclass(frozen=True)
class Encoding:
    """What is to be encoded, and by what: samples, the codec with its config, and where it computes.

    `coded`: the fields that are encoded, too.
    """

    samples: Samples
    config: CodecConfig
    codec: Codec
    device: torch.device
    coded: Collection[str] = ()


@config
class Live:
    """Each batch is encoded when it is read."""

    def opened(self, encoding: Encoding) -> tuple[Samples, Codec]:
        """What training reads, and the codec that encodes it."""
        return encoding.samples, encoding.codec


@config
class Cached:
    """All data are encoded before the first step, into a file that any run of the same data and codec uses again.

    Data of several sizes have a file for each. `flip`: every sample twice, the second time mirrored left to right,
    whatever its text may say of sides. `half`: 16 bits for each number, which rounds latents by a thousandth. `folder`:
    where to keep it; None is the cache folder. What nobody has used for 90 days is removed when other data are encoded.
    """

    flip: bool = False
    half: bool = False
    folder: Path | None = None

    def opened(self, encoding: Encoding) -> tuple[Samples, Codec]:
        """What training reads, and the codec that encodes it: latents already, so one that changes nothing.

        Raises:
            ValueError: the data cannot be kept or mirrored, or the folder has no room.
        """
        first = encoding.samples.read(torch.zeros(1, dtype=torch.long))
        if encoding.coded:
            raise ValueError(
                f"train.latents: got Cached beside {', '.join(encoding.coded)}, which each batch encodes; expected Live"
            )
        tokens = [name for name, value in first.cond.items() if isinstance(value, Tokens)]
        if tokens:
            raise ValueError(
                f"train.latents: got Cached for data with {', '.join(tokens)} as tokens, which it does not keep; "
                "expected Live, or data with the texts themselves and their encoder in the recipe"
            )
        latents = each_size(encoding.samples, lambda part: self._kept(replace(encoding, samples=part)))
        return latents, Normalize((0.0,), (1.0,)).build()

    def _kept(self, encoding: Encoding) -> Samples:
        """The latents of samples of one size, from their file."""
        samples = self._mirrored(encoding.samples) if self.flip else encoding.samples
        root = (self.folder.expanduser() if self.folder else cache_folder()) / "latents"
        own = replace(encoding, samples=samples)
        return made(
            root / self._key(encoding),
            partial(_read, samples=samples),
            lambda empty: self._fill(empty, own),
            "train.latents.folder",
        )

    def _mirrored(self, samples: Samples) -> Samples:
        if isinstance(samples, Mirrored):
            raise ValueError("train.latents.flip: got True, but data.flip mirrors the data already; set one of them")
        if len(samples.facts.size) < 2:
            raise ValueError(f"train.latents.flip: got True for data of size {samples.facts.size}, which has no left")
        first = samples.read(torch.zeros(1, dtype=torch.long))
        aligned = [name for name in first.cond if name in samples.facts.fields or name == MASK]
        if aligned:
            raise ValueError(
                f"train.latents.flip: got True, expected False: {', '.join(aligned)} would not be mirrored"
            )
        return Mirrored(samples)

    def _key(self, encoding: Encoding) -> str:
        """A name for these data under this codec; see `digest` for what it can miss of the data."""
        about = [SCHEMA, self.flip, self.half, digest(encoding.samples), to_json(encoding.config)]
        return sha256(f"{json.dumps(about)}{checksum(encoding.codec.state_dict())}".encode()).hexdigest()[:32]

    def _fill(self, folder: Path, encoding: Encoding) -> None:
        """Write the latents, what is known about the samples, and the index; the latents to a plain file, not to a map.

        A map of a full disk would kill the process.
        """
        count, shape = len(encoding.samples), tuple[int, ...]()
        known, texts = dict[str, list[Tensor]](), dict[str, list[str]]()
        with (folder / LATENTS).open("wb") as file:
            for batch, z in _encoded(encoding):
                latents = z.numpy().astype(np.float16 if self.half else np.float32)
                if not shape:
                    shape = (count, *latents.shape[1:])
                    _check_room(folder, prod(shape) * latents.itemsize, count)
                    header = {"descr": latents.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, cast("Any", header))
                file.write(latents.tobytes())
                for name in batch.cond:
                    known.setdefault(name, []).append(batch.tensor(name))
                for name, some in batch.texts.items():
                    texts.setdefault(name, []).extend(some)
            file.flush()
            os.fsync(file.fileno())
        for i, values in enumerate(known.values()):
            np.save(folder / TOLD.format(i), torch.cat(values).numpy())
        for i, lines in enumerate(texts.values()):
            np.save(folder / TEXTS.format(i), np.array(lines, np.str_))
        index: Json = {"schema": SCHEMA, "shape": shape, "known": [*known], "texts": [*texts]}
        index["codec"] = to_json(encoding.config)
        write_json(folder / INDEX, index)


AnyLatents = Live | Cached


def _encoded(encoding: Encoding) -> Iterator[tuple[Batch, Float[Tensor, "b c *space"]]]:
    """The samples in order, batch by batch, with their latents, behind a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    ids = torch.arange(len(encoding.samples))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar, torch.inference_mode():
        task = bar.add_task("Encoding", total=len(ids))
        for some in ids.split(READ_AT_ONCE):
            batch = encoding.samples.read(some)
            yield batch, in_parts(lambda x: encoding.codec.encode(x.to(encoding.device)).float().cpu(), batch.x)
            bar.advance(task, len(some))


def _read(folder: Path, samples: Samples) -> ArraySamples | None:
    """The latents of `samples` in the cache, mapped; None where they are absent or not whole."""
    try:
        index = cast("Json", json.loads((folder / INDEX).read_text(encoding="utf-8")))
        latents: np.ndarray = np.load(folder / LATENTS, mmap_mode="r", allow_pickle=False)
        values = [np.load(folder / TOLD.format(i), allow_pickle=False) for i in range(len(index["known"]))]
        lines = [np.load(folder / TEXTS.format(i), allow_pickle=False) for i in range(len(index["texts"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if index.get("schema") != SCHEMA or latents.shape != tuple(index["shape"]) or len(latents) != len(samples):
        return None
    facts = replace(samples.facts, channels=latents.shape[1], size=tuple(latents.shape[2:]))
    known = {name: torch.from_numpy(value) for name, value in zip(index["known"], values, strict=True)}
    texts = {name: some.tolist() for name, some in zip(index["texts"], lines, strict=True)}
    return ArraySamples(np.asarray(latents), facts, known, texts=texts)


def _check_room(folder: Path, need: int, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(
            f"train.latents.folder: got {folder.parent} with {free / 1e9:.1f} GB free, expected {need / 1e9:.1f} GB "
            f"for the latents of {count} samples; choose another folder by --train.latents.folder or ANYDIT_CACHE"
        )
