"""Molecules, read once into mapped arrays."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from anydit.data.folders import state
from anydit.data.kept import INDEX, filling, sweep, used
from anydit.data.molecules.files import Molecule, checked, entries, number, paths_in
from anydit.data.outside import Skipped, Unreadable, check_skipped, told

SCHEMA = 2
"""Of the files and of how molecules are read into them: another number makes all of them anew."""

WHAT = "molecules"
ARRAYS = ("numbers", "positions", "starts", "properties")
NAMES = ("name", "smiles")
"""What tells molecules apart where `Reading.key` is None: what a file says by the first of these names."""


@dataclass(frozen=True)
class Reading:
    """How the molecules in a file or folder are read; the fields are those of `Molecules`."""

    path: Path
    elements: tuple[int, ...] = ()
    properties: tuple[str, ...] = ()
    key: str | None = None
    closest: float = 0.5
    atoms: int | None = None


class Prepared(NamedTuple):
    """All molecules, one after the other: their atoms' numbers and places in Å, where each begins, what is known of it.

    `keys`: by which they are held out; those of one key are one molecule. `skipped`: what cannot be used, and why.
    """

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    starts: Int[np.ndarray, " n_plus_1"]
    properties: Float[np.ndarray, "n k"]
    keys: Sequence[str]
    skipped: Skipped

    @property
    def counts(self) -> Int[np.ndarray, " n"]:
        """Atoms of each molecule."""
        return np.diff(self.starts)

    def told(self) -> str:
        """One sentence on what was skipped."""
        return told(self.skipped, len(self.keys) + len(self.skipped), WHAT)


def prepare(reading: Reading, folder: Path, bad_limit: float) -> Prepared:
    """Read, unless that was done.

    Raises:
        ValueError: nothing is there, too much of it cannot be used, or `folder` cannot be written.
    """
    paths = paths_in(reading.path)
    how = [SCHEMA, reading.elements, reading.properties, reading.key, reading.closest, reading.atoms]
    states = [(name, str(path.resolve()), *(state(path) or (None, None))[:2]) for name, path in paths.items()]
    whole = folder / sha256(json.dumps([how, states]).encode()).hexdigest()[:32]
    # The limit is no part of the key: what a looser limit let pass must not be read anew to be refused.
    prepared = _prepared(whole)
    if prepared is None:
        read = _read(reading, paths)
        check_skipped(read.skipped, len(read.found) + len(read.skipped), bad_limit, WHAT)
        with filling(whole, _prepared) as empty:
            sweep(folder)
            _write(empty, read)
        prepared = _load(whole)
    used(whole)
    check_skipped(prepared.skipped, len(prepared.keys) + len(prepared.skipped), bad_limit, WHAT)
    return prepared


class Read(NamedTuple):
    """Molecules, of each its key and properties; and what is skipped, and why."""

    found: list[Molecule]
    keys: list[str]
    values: list[list[float]]
    skipped: list[tuple[str, str]]


def _read(reading: Reading, paths: Mapping[str, Path]) -> Read:
    out = Read([], [], [], [])
    for file, path in paths.items():
        for name, read in entries(file, path):
            try:
                molecule = checked(read(), reading.elements, reading.closest, reading.atoms)
                values = [number(molecule.said, each) for each in reading.properties]
                key = _key(reading, molecule, name)
            except Unreadable as error:
                out.skipped.append((name, str(error)))
                continue
            out.found.append(molecule._replace(said={}))
            out.keys.append(key)
            out.values.append(values)
    return out


def _key(reading: Reading, molecule: Molecule, name: str) -> str:
    if reading.key is not None:
        if reading.key not in molecule.said:
            raise Unreadable(f"no {reading.key}")
        return str(molecule.said[reading.key])
    return next((str(molecule.said[each]) for each in NAMES if each in molecule.said), name)


def _write(folder: Path, read: Read) -> None:
    arrays = (
        np.concatenate([m.numbers for m in read.found]).astype(np.uint8),
        np.concatenate([m.positions for m in read.found]).astype(np.float32),
        np.cumsum([0, *(len(m.numbers) for m in read.found)]),
        np.array(read.values, np.float64).reshape(len(read.found), -1),
    )
    for name, array in zip(ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array)
    about = {"keys": read.keys, "skipped": read.skipped}
    (folder / INDEX).write_text(json.dumps(about), encoding="utf-8")


def _prepared(whole: Path) -> Prepared | None:
    """What is in the cache; None where it is absent or not whole."""
    try:
        return _load(whole)
    except (OSError, ValueError, EOFError, KeyError):
        return None


@lru_cache(maxsize=4)
def _load(whole: Path) -> Prepared:
    about: dict[str, Any] = json.loads((whole / INDEX).read_text(encoding="utf-8"))
    arrays = {name: np.load(whole / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    return Prepared(**arrays, keys=about["keys"], skipped=[(name, why) for name, why in about["skipped"]])
