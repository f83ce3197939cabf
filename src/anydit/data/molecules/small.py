"""Small organic molecules: of the NCI's list that RDKit ships, with conformers, and of the g2 set that ASE ships."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import check_at_least, config
from anydit.data.base import Part, Samples
from anydit.data.molecules.bonds import chem, joined, smiles, unjoined
from anydit.data.molecules.elements import numbers_of
from anydit.data.molecules.molecules import Molecules
from anydit.data.molecules.view import Atoms, as_xyz
from anydit.weights import write_atomically

SCHEMA = 1
"""Of how molecules are made: another number makes all of them anew."""

STEPS = 2000
"""Of MMFF, at most; they suffice for all."""


@config
class SmallMolecules(Molecules):
    """Those of the NCI's first 4,999 molecules with at most `heavy` atoms other than hydrogen, of these `elements`.

    Neutral, of one piece and without unpaired electrons; each in up to `conformers` conformers, by ETKDG (Riniker 2015)
    and MMFF94 (Halgren 1996). With them the molecules of ASE's g2 set (Curtiss 1997) of which the same holds. Each has
    a SMILES, by which it is held out, then with its first conformer alone; a radius of `gyration` in Å, a polar surface
    area `tpsa` in Å². Computed once.
    """

    heavy: int = 7
    conformers: int = 4
    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    key: str | None = "smiles"
    held_out: float = 0.2

    def __post_init__(self) -> None:
        Molecules.__post_init__(self)  # pyright: ignore[reportUnknownMemberType]
        check_at_least("heavy", self.heavy, 1)
        check_at_least("conformers", self.conformers, 1)

    def open(self, part: Part) -> Samples:
        return super(SmallMolecules, replace(self, path=self._made())).open(part)

    def _rows(self, keys: Sequence[str], part: Part) -> Int[Tensor, " n"]:
        rows = super()._rows(keys, part)
        if part == "train":
            return rows
        first = {keys[row]: row for row in reversed(rows.tolist())}
        return torch.tensor(sorted(first.values()))

    def _made(self) -> Path:
        """The file of all molecules, made now if it is not there."""
        import ase
        import rdkit

        how = [SCHEMA, self.heavy, self.conformers, self.elements, rdkit.__version__, ase.__version__]
        file = self._folder / f"small-{sha256(json.dumps(how).encode()).hexdigest()[:16]}.xyz"
        if not file.is_file():
            text = "".join(self._frames())
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda to: to.write_text(text, encoding="utf-8"))
        return file

    def _frames(self) -> Iterator[str]:
        """Each conformer as a frame of extended XYZ."""
        allowed, known = set(numbers_of(self.elements)), set[str]()
        for name in _nci(self.heavy):
            molecule = chem().MolFromSmiles(name)
            if name not in known and _fits(molecule, allowed):
                known.add(name)
                yield from (_frame(atoms, name) for atoms in _conformers(molecule, self.conformers))
        for atoms in _g2():
            molecule = joined(*atoms) if set(atoms.numbers.tolist()) <= allowed else None
            if molecule is None or (name := smiles(molecule)) in known:
                continue
            bare = chem().MolFromSmiles(name)
            if bare.GetNumHeavyAtoms() <= self.heavy and _fits(bare, allowed):
                known.add(name)
                yield _frame(atoms, name)


def _nci(heavy: int) -> Iterator[str]:
    """Canonical SMILES without stereochemistry, of the list's molecules that are not too large."""
    from rdkit.rdBase import BlockLogs
    from rdkit.RDConfig import RDDataDir

    with BlockLogs():
        for line in (Path(RDDataDir) / "NCI" / "first_5K.smi").read_text(encoding="utf-8").splitlines():
            molecule = chem().MolFromSmiles(line.split()[0])
            if molecule is not None and molecule.GetNumHeavyAtoms() <= heavy:
                yield chem().MolToSmiles(molecule, isomericSmiles=False)


def _g2() -> Iterator[Atoms]:
    from ase.collections import g2

    for name in g2.names:
        atoms = g2[name]
        if len(atoms) > 1:
            yield Atoms(np.asarray(atoms.numbers, np.int64), np.asarray(atoms.positions))


def _fits(molecule: Any, allowed: set[int]) -> bool:
    """Whether it is organic, neutral in all of its atoms, without unpaired electrons, and of one piece."""
    atoms = list(molecule.GetAtoms())
    plain = all(a.GetFormalCharge() == 0 == a.GetNumRadicalElectrons() and not a.GetIsotope() for a in atoms)
    numbers = {a.GetAtomicNum() for a in atoms}
    return plain and 6 in numbers and numbers <= allowed and len(chem().GetMolFrags(molecule)) == 1


def _conformers(molecule: Any, count: int) -> Iterator[Atoms]:
    from rdkit.Chem.rdDistGeom import EmbedMultipleConfs
    from rdkit.Chem.rdForceFieldHelpers import MMFFOptimizeMoleculeConfs

    whole = chem().AddHs(molecule)
    numbers = np.array([atom.GetAtomicNum() for atom in whole.GetAtoms()])
    found = list(EmbedMultipleConfs(whole, count, randomSeed=0))
    settled = MMFFOptimizeMoleculeConfs(whole, maxIters=STEPS) if found else []
    for which, (left, _) in zip(found, settled, strict=True):
        if left == 0:
            yield Atoms(numbers, whole.GetConformer(which).GetPositions())


def _frame(atoms: Atoms, name: str) -> str:
    from rdkit.Chem.rdMolDescriptors import CalcRadiusOfGyration, CalcTPSA

    gyration, area = CalcRadiusOfGyration(unjoined(*atoms)), CalcTPSA(chem().MolFromSmiles(name))
    return as_xyz(atoms, f'smiles="{name}" gyration={gyration:.4f} tpsa={area:.2f}')
