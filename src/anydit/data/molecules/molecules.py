"""Molecules: sets of atoms from files, each in several orientations; and small organic ones that RDKit builds."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.config import config
from anydit.data.base import Data, Facts, Part, Samples, cache_folder, check_share
from anydit.data.molecules.cache import Prepared, Reading, prepare
from anydit.data.molecules.elements import numbers_of, symbols_of
from anydit.data.molecules.view import MoleculeView
from anydit.data.outside import rows_of
from anydit.tensors import MASK, Batch, Stream

COMPOSITION, PROPERTIES = "composition", "properties"
"""Conditions: how many atoms there are of each element; numbers from the files."""


@config
class Molecules(Data):
    """The molecules in `path`, a file or a folder: XYZ, extended XYZ, SDF, ASE's databases, .traj, .pdb, .gen; in Å.

    `elements`: symbols; none takes all that are there. `properties`: names of numbers that files tell of each molecule.
    `key`: the name of what tells molecules apart, so that all conformers of one are in one part (None: a title, "name"
    or "smiles"; else each alone). `turns`: orientations in which each is trained on, 0 as the files have it. `types`:
    the value of an atom's own element, beside 0 of the others; the larger, the earlier is it settled what an atom is.
    `closest`: Å between atoms at least. `atoms`: most of one molecule (None: of the largest). `bad_limit`, `cache`: as
    for images.
    """

    path: Path = Path("molecules.xyz")
    elements: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    key: str | None = None
    turns: int = 16
    types: float = 1.0
    closest: float = 0.5
    atoms: int | None = None
    held_out: float = 0.1
    bad_limit: float = 0.01
    cache: Path | None = None

    def __post_init__(self) -> None:
        check_share(self.held_out)
        numbers_of(self.elements)
        if self.turns < 0:
            raise ValueError(f"turns: got {self.turns}, expected 0 or more")
        if not (self.types > 0 and self.closest >= 0):
            raise ValueError(f"types, closest: got {self.types}, {self.closest}, expected above 0, and at least 0")
        if self.atoms is not None and self.atoms < 1:
            raise ValueError(f"atoms: got {self.atoms}, expected at least 1")
        if not 0 <= self.bad_limit <= 1:
            raise ValueError(f"bad_limit: got {self.bad_limit}, expected 0 to 1")

    def open(self, part: Part) -> Samples:
        reading = Reading(self.path.expanduser(), numbers_of(self.elements), self.properties, self.key, self.closest,
                          self.atoms)  # fmt: skip
        found = prepare(reading, self._folder, self.bad_limit)
        if found.skipped and part == "train":
            print(found.told(), file=sys.stderr)
        elements = self.elements or symbols_of(np.unique(found.numbers).tolist())
        numbers = {COMPOSITION: elements, **({PROPERTIES: self.properties} if self.properties else {})}
        rows = self._rows(found.keys, part)
        often = Counter(found.counts[self._rows(found.keys, "train").numpy()].tolist())
        facts = Facts(
            channels=3 + len(elements),
            size=(self.atoms or int(found.counts.max()),),
            numbers=numbers,
            view=MoleculeView(elements),
            lengths=tuple(sorted(often.items())),
            total_of=COMPOSITION,
        )
        return MoleculeSamples(found, rows, facts, self, part)

    @property
    def _folder(self) -> Path:
        return (self.cache.expanduser() if self.cache else cache_folder()) / "molecules"

    def _rows(self, keys: Sequence[str], part: Part) -> Int[Tensor, " n"]:
        rows = rows_of(keys, self.held_out, part)
        if not len(rows):
            count = f"none of {len(keys)} molecules in the part {part}"
            raise ValueError(f"data.held_out: got {self.held_out}, which leaves {count}; expected at least one")
        return rows


@dataclass(frozen=True)
class MoleculeSamples:
    """Molecules about their middles, in orientations that follow from the sample's id; 0 where there is no atom."""

    atoms: Prepared
    rows: Int[Tensor, " n"]
    facts: Facts
    data: Molecules
    part: Part

    @property
    def distinct(self) -> int:
        """How many there are, each in one orientation: they have the first ids."""
        return len(self.rows)

    def __len__(self) -> int:
        return self.distinct * (max(1, self.data.turns) if self.part == "train" else 1)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        rows, places = self.rows[ids % self.distinct].numpy(), np.arange(self.facts.size[0])
        mask = places < self.atoms.counts[rows][:, None]
        at = np.where(mask, self.atoms.starts[rows][:, None] + places, 0)
        positions = np.where(mask[..., None], self.atoms.positions[at], 0).astype(np.float32)
        middle = positions.sum(1, keepdims=True) / mask.sum(1)[:, None, None]
        x = torch.from_numpy(np.where(mask[..., None], positions - middle, 0).astype(np.float32))
        if self.data.turns:
            x = x @ turned(ids, self.part)
        one_hot = (self.atoms.numbers[at][..., None] == self._numbers) & mask[..., None]
        types = torch.from_numpy(one_hot.astype(np.float32))
        cond = {MASK: torch.from_numpy(mask), COMPOSITION: types.sum(1)}
        if self.data.properties:
            cond[PROPERTIES] = torch.from_numpy(self.atoms.properties[rows].astype(np.float32))
        return Batch(torch.cat([x, self.data.types * types], 2).transpose(1, 2).contiguous(), cond, ids)

    @property
    def _numbers(self) -> Int[np.ndarray, " e"]:
        return np.array(numbers_of(self.facts.numbers[COMPOSITION]))


def turned(ids: Int[Tensor, " b"], part: str) -> Float[Tensor, "b 3 3"]:
    """A rotation for each id, all equally likely: that of a normal quaternion (Shoemake 1992)."""
    q = Stream(0, f"turn {part}").normal(0, ids, (4,))
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
