"""Bonds by the distances of atoms: which there are, of what order, and the molecule that RDKit makes of them.

Lengths and margins are those by which EDM judges (Hoogeboom 2022, arXiv 2203.17003, appendix E, there from
wiredchemist.com and chemistry-reference.com); a pair without one has the sum of its covalent radii in RDKit's table.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from anydit.data.molecules.elements import LARGEST, NUMBERS

SINGLE = (
    "H H 74 C 109 N 101 O 96 F 92 B 119 Si 148 P 144 As 152 S 134 Cl 127 Br 141 I 161",
    "C C 154 N 147 O 143 F 135 Si 185 P 184 S 182 Cl 177 Br 194 I 214",
    "N N 145 O 140 F 136 P 177 S 168 Cl 175 Br 214 I 222",
    "O O 148 F 142 Si 163 P 163 S 151 Cl 164 Br 172 I 194",
    "F F 142 Si 160 P 156 S 158 Cl 166 Br 178 I 187",
    "Si Si 233 S 200 Cl 202 Br 215 I 243",
    "P P 221 S 210 Cl 203 Br 222",
    "S S 204 Cl 207 Br 225 I 234",
    "Cl Cl 199 Br 214 B 175",
    "Br Br 228",
    "I I 266",
)
DOUBLE = ("C C 134 N 129 O 120 S 160", "N N 125 O 121", "O O 121 P 150", "P S 186")
TRIPLE = ("C C 120 N 116 O 113", "N N 110")
"""Usual lengths in pm, of the first element of each row with others."""

MARGINS_PM = (10, 5, 3)
"""How much longer a single, double and triple bond may be."""

SHARED_PM = 9
"""A bond up to so much longer than a double one counts as either: in aromatic rings, amides and acids two bonds share.

EDM takes it for a single or a double one by MARGINS_PM alone, and so a ring of benzene for broken.
"""

CLASH = 0.75
"""Atoms nearer than this part of the length of their shortest bond make none: they overlap."""

TRIES = 1000
"""Ways to distribute double bonds that RDKit may try."""


class Lengths(NamedTuple):
    """Usual lengths in Å by atomic numbers, 0 where there is no such bond: `[order, a, b]` for orders 1, 2, 3."""

    usual: Float[np.ndarray, "3 z z"]
    longest: Float[np.ndarray, "3 z z"]
    shortest: Float[np.ndarray, "z z"]
    valences: tuple[tuple[int, ...], ...]


def chem() -> Any:
    """RDKit's Chem.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from rdkit import Chem
    except ImportError:
        raise ValueError("data: molecules need RDKit, which is missing; pip install 'anydit[molecules]'") from None
    return Chem


@lru_cache(maxsize=1)
def lengths() -> Lengths:
    """The tables above as arrays."""
    table = chem().GetPeriodicTable()
    radii = np.array([0.0] + [table.GetRcovalent(z) for z in range(1, LARGEST + 1)])
    usual = np.zeros((3, LARGEST + 1, LARGEST + 1))
    usual[0] = radii[:, None] + radii
    for order, rows in enumerate((SINGLE, DOUBLE, TRIPLE)):
        for row in rows:
            first, *others = row.split()
            a = NUMBERS[first]
            for symbol, pm in zip(others[::2], others[1::2], strict=True):
                b = NUMBERS[symbol]
                usual[order, a, b] = usual[order, b, a] = int(pm) / 100
    longest = np.where(usual > 0, usual + np.array(MARGINS_PM)[:, None, None] / 100, 0)
    shortest = np.where(usual > 0, usual, np.inf).min(0)
    valences = tuple(tuple(table.GetValenceList(z)) if z else () for z in range(LARGEST + 1))
    return Lengths(usual, longest, CLASH * shortest, valences)


def distances(positions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n n"]:
    """Between all atoms; infinite from each to itself."""
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(apart, np.inf)
    return apart


def orders(numbers: Int[np.ndarray, " n"], apart: Float[np.ndarray, "n n"]) -> Int[np.ndarray, "n n"]:
    """The order of each bond, 0 where there is none, as EDM has it."""
    longest = lengths().longest[:, numbers[:, None], numbers]
    return (apart < longest).cumprod(0).sum(0)


def stable(numbers: Int[np.ndarray, " n"], apart: Float[np.ndarray, "n n"]) -> Bool[np.ndarray, " n"]:
    """Which atoms have a valence that their element has, if each shared bond counts as it suits them."""
    known, order = lengths(), orders(numbers, apart)
    double = known.usual[1][numbers[:, None], numbers]
    shared = (double > 0) & (apart >= double) & (apart <= double + SHARED_PM / 100)
    low, high = (np.where(shared, either, order).sum(1).tolist() for either in (1, 2))
    each = zip(numbers.tolist(), low, high, strict=True)
    return np.array([any(a <= v <= b or v < 0 for v in known.valences[z]) for z, a, b in each], bool)  # -1 is any


def joined(numbers: Int[np.ndarray, " n"], positions: Float[np.ndarray, "n 3"]) -> Any | None:
    """The RDKit molecule of all atoms, neutral as a whole: bonded where `orders` has bonds, whose orders RDKit finds.

    None where atoms overlap, where they make several molecules, or where no bond orders give every atom a valence of
    its element without unpaired electrons: RDKit does not accept such a molecule.
    """
    apart = distances(positions)
    if (apart < lengths().shortest[numbers[:, None], numbers]).any():
        return None
    return _with_orders(unjoined(numbers, positions), np.argwhere(np.triu(orders(numbers, apart))).tolist())


def unjoined(numbers: Int[np.ndarray, " n"], positions: Float[np.ndarray, "n 3"]) -> Any:
    """Atoms at their places, without bonds."""
    molecule = chem().RWMol()
    places = chem().Conformer(len(numbers))
    places.Set3D(True)
    for number, position in zip(numbers.tolist(), positions.tolist(), strict=True):
        atom = chem().Atom(number)
        atom.SetNoImplicit(True)
        places.SetAtomPosition(molecule.AddAtom(atom), position)
    molecule.AddConformer(places)
    return molecule


def _with_orders(molecule: Any, bonds: Sequence[Sequence[int]]) -> Any | None:
    from rdkit.Chem.rdDetermineBonds import DetermineBondOrders
    from rdkit.rdBase import BlockLogs

    for a, b in bonds:
        molecule.AddBond(a, b, chem().BondType.SINGLE)
    if len(chem().GetMolFrags(molecule)) > 1:
        return None
    try:
        with BlockLogs():
            DetermineBondOrders(molecule, charge=0, embedChiral=False, maxIterations=TRIES)
            chem().SanitizeMol(molecule)
    except (ValueError, RuntimeError):
        return None
    unpaired: Callable[[Any], int] = lambda atom: atom.GetNumRadicalElectrons()  # noqa: E731
    return None if any(map(unpaired, molecule.GetAtoms())) else molecule


def smiles(molecule: Any) -> str:
    """Canonical SMILES of a molecule with all of its atoms, without stereochemistry."""
    Chem = chem()
    return Chem.MolToSmiles(Chem.RemoveHs(molecule), isomericSmiles=False)
