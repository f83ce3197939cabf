"""Texts for training: each encoded once, kept in files that are mapped into memory, and read as tokens."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import cast
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from anydit.codecs.normalize import moments
from anydit.codecs.text import TextEncoder, opened
from anydit.config import to_json, write_json
from anydit.data import Samples, cache_folder
from anydit.data.base import Wrapped
from anydit.data.buckets import by_bucket
from anydit.data.kept import INDEX, filling, sweep, used
from anydit.model.dit import DiT
from anydit.model.text import Text, TextTokens
from anydit.tensors import Batch, Tokens

SCHEMA = 1
"""Of the files, and of how texts are encoded: another number makes every cache anew."""

KEYS, BEGIN, VALUES, POOLED = "keys.npy", "begin.npy", "values.npy", "pooled.npy"
ENCODED_AT_ONCE, READ_AT_ONCE = 256, 1024
"""Texts that are encoded, and samples whose texts are read, together."""

MEASURED = 4096
"""Samples on whose texts mean and deviation of each channel are measured."""


@dataclass(frozen=True)
class Shard:
    """What an encoder made of some texts, in files: of text i the tokens from `begin[i]` to `begin[i + 1]`."""

    keys: UInt8[np.ndarray, "n 32"]
    begin: Int[np.ndarray, " m"]
    values: Float[np.ndarray, "t d"]
    pooled: Float[np.ndarray, "n p"]

    @classmethod
    def read(cls, folder: Path) -> "Shard":
        """The files of a folder, mapped.

        Raises:
            OSError, ValueError: they are not whole.
        """
        files = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (KEYS, BEGIN, VALUES, POOLED)]
        keys, begin, values, pooled = files
        if not len(keys) == len(begin) - 1 == len(pooled) or begin[-1] != len(values):
            raise ValueError(f"{folder} is not whole")
        return cls(np.asarray(keys), np.asarray(begin), np.asarray(values), np.asarray(pooled))

    def tokens(self, rows: Int[np.ndarray, " b"], longest: int) -> Tokens:
        """Those of some texts, filled up to `longest`."""
        begin, count = self.begin[rows], self.begin[rows + 1] - self.begin[rows]
        place = np.arange(longest)
        exists = place < count[:, None]
        values = self.values[np.where(exists, begin[:, None] + place, begin[:, None])]
        values[~exists] = 0
        return Tokens(torch.from_numpy(values), torch.from_numpy(exists), torch.from_numpy(self.pooled[rows]))


@dataclass(frozen=True)
class Table:
    """What an encoder made of texts: where each is, and the most tokens that one has."""

    shards: Sequence[Shard]
    places: Mapping[str, tuple[int, int]]

    @cached_property
    def longest(self) -> int:
        """So many tokens has every text of a batch, those that exist and others: one shape for all batches."""
        return max(int(self.shards[s].begin[i + 1] - self.shards[s].begin[i]) for s, i in self.places.values())

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Those of some texts, in order."""
        shard, row = np.array([self.places[text] for text in texts]).reshape(-1, 2).T
        used = np.unique(shard)
        if len(used) == 1:
            return self.shards[used[0]].tokens(row, self.longest)
        parts = [self.shards[s].tokens(row[shard == s], self.longest) for s in used]
        order = torch.from_numpy(np.argsort(np.concatenate([np.nonzero(shard == s)[0] for s in used])))
        pooled = [part.pooled for part in parts if part.pooled is not None]
        values, exists = torch.cat([part.values for part in parts]), torch.cat([part.exists for part in parts])
        return Tokens(values[order], exists[order], torch.cat(pooled)[order])


@dataclass(frozen=True)
class Told(Wrapped):
    """Samples whose texts are tokens, too."""

    tables: Mapping[str, Table]

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        batch = self.samples.read(ids)
        told = {name: table.tokens(batch.texts[name]) for name, table in self.tables.items()}
        return replace(batch, cond={**batch.cond, **told})


def tables(samples: Samples, encoders: Mapping[str, TextEncoder], device: torch.device) -> dict[str, Table]:
    """All texts of `samples` that an encoder is for, encoded, or read from the cache where they were before.

    Raises:
        ValueError: an encoder is not there, or the cache cannot be written.
    """
    if not encoders:
        return {}
    texts: dict[str, dict[str, None]] = {name: {} for name in encoders}
    for ids in by_bucket(samples, torch.arange(len(samples)), READ_AT_ONCE):
        batch = samples.read(ids)
        for name, distinct in texts.items():
            distinct.update(dict.fromkeys(batch.texts[name]))
    return {name: table(encoders[name], list(distinct), device) for name, distinct in texts.items()}


def table(encoder: TextEncoder, texts: Sequence[str], device: torch.device) -> Table:
    """What `encoder`, measured, makes of distinct texts; those that the cache has are not encoded again.

    Two processes may do this at the same time. What nobody has used for 90 days is removed when others come.

    Raises:
        ValueError: the encoder is not there, or the cache cannot be written.
    """
    root = cache_folder() / "texts"
    folder = root / _key(encoder)
    keys = {text: sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts}
    shards, places = _found(folder, keys)
    missing = [text for text in texts if text not in places]
    if missing:
        with filling(folder / uuid4().hex, field=None) as shard:
            write_json(folder / INDEX, to_json(encoder))
            sweep(root)
            sweep(folder)
            _write(shard, encoder, missing, keys, device)
        shards, places = _found(folder, keys)
    used(folder)
    return Table(shards, {text: places[text] for text in texts})


def _key(encoder: TextEncoder) -> str:
    """A name for what an encoder makes, wherever it lies."""
    about = to_json(replace(encoder, source=""))
    return sha256(json.dumps([SCHEMA, about], sort_keys=True).encode()).hexdigest()[:32]


def _found(folder: Path, keys: Mapping[str, bytes]) -> tuple[list[Shard], dict[str, tuple[int, int]]]:
    """The shards in the cache, and where those texts are that they have; a shard that is not whole is passed over."""
    shards, by_key = list[Shard](), dict[bytes, tuple[int, int]]()
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.name.startswith(".") or path.name == INDEX:
            continue
        try:
            shard = Shard.read(path)
        except (OSError, ValueError, EOFError):
            continue
        by_key |= {key.tobytes(): (len(shards), i) for i, key in enumerate(shard.keys)}
        shards.append(shard)
    return shards, {text: by_key[key] for text, key in keys.items() if key in by_key}


def _write(
    folder: Path, encoder: TextEncoder, texts: Sequence[str], keys: Mapping[str, bytes], device: torch.device
) -> None:
    """Encode texts into a shard."""
    encode, ordered = opened(encoder, device), sorted(texts, key=len)
    values, counts, pooled = list[Tensor](), list[Tensor](), list[Tensor]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Encoding texts", total=len(ordered))
        for start in range(0, len(ordered), ENCODED_AT_ONCE):
            some = ordered[start : start + ENCODED_AT_ONCE]
            made = encode(some)
            assert made.pooled is not None
            values.append(made.values[made.exists])
            counts.append(made.exists.sum(1))
            pooled.append(made.pooled)
            bar.advance(task, len(some))
    begin = torch.cat([torch.zeros(1, dtype=torch.long), *counts]).cumsum(0)
    np.save(folder / VALUES, torch.cat(values).numpy())
    np.save(folder / BEGIN, begin.numpy())
    np.save(folder / POOLED, torch.cat(pooled).numpy())
    np.save(folder / KEYS, np.frombuffer(b"".join(keys[text] for text in ordered), np.uint8).reshape(-1, 32))


def standardise(model: DiT, samples: Samples) -> None:
    """Make a new network's texts `Text.standard`, where its config says so: over evenly spread samples."""
    spread = torch.arange(n := min(len(samples), MEASURED)) * len(samples) // n
    for name, condition in model.config.conditions.items():
        if isinstance(condition, Text) and condition.standard:
            read = (samples.read(ids).cond[name] for ids in by_bucket(samples, spread, READ_AT_ONCE))
            mean, std = moments(text.values[text.exists] for text in read if isinstance(text, Tokens))
            cast("TextTokens", model.conditioner.texts[name]).standardise(torch.tensor(mean), torch.tensor(std))
