"""Molecules: valid, unique, novel and stable ones, lengths and angles of bonds, and whether the atoms are as asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import sqrt
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure as Plot
from PIL.Image import Image
from torch import Tensor

from anydit.data import MoleculeView
from anydit.data.molecules.bonds import distances, joined, orders, smiles, stable
from anydit.data.molecules.elements import LARGEST, numbers_of, symbols_of
from anydit.data.molecules.molecules import COMPOSITION, MoleculeSamples
from anydit.data.molecules.view import Atoms
from anydit.evaluate.compare import Figure
from anydit.evaluate.distances import wasserstein
from anydit.evaluate.own import Own, own
from anydit.evaluate.pictures import rendered
from anydit.evaluate.sets import Sets, spread

REFERENCE = 20_000
"""Training molecules that are looked at, at most."""

KINDS = 6
"""Kinds of bonds in the plot, the most frequent of training data."""

LINES = (("samples", "-"), ("held-out data", "--"), ("training data", ":"))

Measured = dict[str, list[float]]


@dataclass(frozen=True)
class Seen:
    """What some molecules are: their SMILES where they are valid; stable atoms of all; lengths in Å, angles in degrees.

    Lengths are of bonds by their elements, as C-N; angles by the element in the middle.
    """

    smiles: list[str | None] = field(default_factory=list[str | None])
    stable: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    lengths: Measured = field(default_factory=Measured)
    angles: Measured = field(default_factory=Measured)

    @classmethod
    def of(cls, molecules: Sequence[Atoms]) -> "Seen":
        """Look at each of them."""
        seen = cls()
        for atoms in molecules:
            apart = distances(atoms.positions)
            good = stable(atoms.numbers, apart)
            seen.stable.append((int(good.sum()), len(good)))
            molecule = joined(*atoms)
            seen.smiles.append(None if molecule is None else smiles(molecule))
            seen._measure(atoms, apart)
        return seen

    def _measure(self, atoms: Atoms, apart: Float[np.ndarray, "n n"]) -> None:
        symbols, bonded = symbols_of(atoms.numbers.tolist()), orders(atoms.numbers, apart) > 0
        for a, b in np.argwhere(np.triu(bonded)).tolist():
            kind = "-".join(sorted((symbols[a], symbols[b])))
            self.lengths.setdefault(kind, []).append(float(apart[a, b]))
        for middle, row in enumerate(bonded):
            to = atoms.positions[row] - atoms.positions[middle]
            to /= np.linalg.norm(to, axis=1, keepdims=True).clip(1e-9)
            for a, b in combinations(to, 2):
                angle = float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))
                self.angles.setdefault(symbols[middle], []).append(angle)


@own.register
def _(view: MoleculeView, x: Float[Tensor, "n c a"], sets: Sets) -> Own:
    _check_elements(view, sets)
    atoms = [view.atoms(some) for some in (x, sets.real.x, sets.read_train(_each(sets)))]
    made, held, train = (Seen.of(some) for some in atoms)
    known = {name for name in train.smiles if name}
    both = (made, held)
    figures = {
        "valid": _share("Valid", [_valid(some) for some in both], len(x),
                        "share that RDKit takes for one neutral molecule, with bonds by distance"),
        "unique": _share("Unique", [_unique(some, sets.sizes) for some in both], None,
                         "share of different ones among the valid of one draw"),
        "novel": _share("Novel", [_novel(some, known) for some in both], None,
                        f"share of the valid that are none of {len(train.smiles)} training samples; "
                        "held-out data are so by choice"),
        "stable_atoms": _share("Stable atoms", [_stable(some, _atoms) for some in both], None,
                               "share with a valence of their element, by the lengths of bonds"),
        "stable_molecules": _share("Stable molecules", [_stable(some, _whole) for some in both], len(x),
                                   "share with stable atoms only"),
        "bonds": Figure("Bond lengths, Å", _apart(made.lengths, train.lengths), _apart(held.lengths, train.lengths),
                        None, "distance between distributions (Wasserstein's), mean of kinds; small is good"),
        "angles": Figure("Bond angles, degrees", _apart(made.angles, train.angles), _apart(held.angles, train.angles),
                         None, "the same, by the element in the middle"),
        "elements": Figure("Elements", _elements(atoms[0], atoms[2]), _elements(atoms[1], atoms[2]), None,
                           "half the sum of differences of their shares; 0 is the same"),
    }  # fmt: skip
    if COMPOSITION in sets.real.cond:
        asked = _as_asked(view, atoms[0], sets.real.tensor(COMPOSITION)[sets.rows])
        figures["composition"] = _share("Composition", [asked, 1.0], len(x),
                                        "share with the very atoms of the held-out molecule, of which a model may "
                                        "be told")  # fmt: skip
    plot = _plot([some.lengths for some in (made, held, train)])
    return Own(figures, {"Bond lengths, in Å": plot})


def _check_elements(view: MoleculeView, sets: Sets) -> None:
    """Refuse data whose channels are those of other elements."""
    theirs = sets.train.facts.view
    if isinstance(theirs, MoleculeView) and theirs.elements != view.elements:
        raise ValueError(f"data.elements: got {theirs.elements}, expected {view.elements}, as the model makes them")


def _each(sets: Sets) -> Tensor:
    """The ids of training molecules, each in one orientation."""
    count = sets.train.distinct if isinstance(sets.train, MoleculeSamples) else len(sets.train)
    return spread(count, REFERENCE)


def _share(title: str, values: Sequence[float], count: int | None, meaning: str) -> Figure:
    error = None if count is None else sqrt(values[0] * (1 - values[0]) / count)
    return Figure(title, values[0], values[1], error, meaning)


def _valid(seen: Seen) -> float:
    return fmean(name is not None for name in seen.smiles)


def _unique(seen: Seen, sizes: Sequence[int]) -> float:
    """The mean over draws; held-out data are one."""
    sizes = sizes if sum(sizes) == len(seen.smiles) else [len(seen.smiles)]
    draws, start = list[float](), 0
    for size in sizes:
        names = [name for name in seen.smiles[start : start + size] if name]
        draws.append(len(set(names)) / max(1, len(names)))
        start += size
    return fmean(draws)


def _novel(seen: Seen, known: set[str]) -> float:
    names = [name for name in seen.smiles if name]
    return sum(name not in known for name in names) / max(1, len(names))


def _atoms(good: int, count: int) -> tuple[int, int]:
    return good, count


def _whole(good: int, count: int) -> tuple[int, int]:
    return int(good == count), 1


def _stable(seen: Seen, counted: Callable[[int, int], tuple[int, int]]) -> float:
    good, count = zip(*(counted(*each) for each in seen.stable), strict=True)
    return sum(good) / max(1, sum(count))


def _apart(some: Measured, train: Measured) -> float:
    """The mean over kinds that both have, as often as training data have them."""
    kinds = [kind for kind in train if kind in some]
    total = sum(len(train[kind]) for kind in kinds)
    if not total:
        return float("nan")
    return sum(len(train[k]) / total * wasserstein(torch.tensor(some[k]), torch.tensor(train[k])) for k in kinds)


def _elements(some: Sequence[Atoms], train: Sequence[Atoms]) -> float:
    numbers = [np.concatenate([atoms.numbers for atoms in part]) for part in (some, train)]
    shares = [np.bincount(part, minlength=LARGEST + 1) / len(part) for part in numbers]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _as_asked(view: MoleculeView, made: Sequence[Atoms], asked: Float[Tensor, "n e"]) -> float:
    """How often each element is there as often as it was asked for."""
    numbers = numbers_of(view.elements or ())
    counts = [[int((atoms.numbers == number).sum()) for number in numbers] for atoms in made]
    return float((torch.tensor(counts) == asked).all(1).double().mean())


def _plot(parts: Sequence[Measured]) -> Image:
    """How often bonds of the most frequent kinds have each length: samples, held-out and training data."""
    kinds = sorted(parts[2], key=lambda kind: -len(parts[2][kind]))[:KINDS]
    plot = Plot(figsize=(9, 5), layout="constrained")
    panels = plot.subplots(2, -(-max(2, len(kinds)) // 2), squeeze=False).flatten()
    for axes, kind in zip(panels, kinds, strict=False):
        low, high = min(parts[2][kind]) - 0.15, max(parts[2][kind]) + 0.15
        for some, (name, style) in zip(parts, LINES, strict=True):
            counts, edges = np.histogram(some.get(kind, []), 40, (low, high))
            axes.plot((edges[1:] + edges[:-1]) / 2, counts / max(1, counts.sum()), style, label=name)
        axes.set(title=kind, xlabel="Å", yticks=[])
    panels[0].legend(fontsize=8)
    return rendered(plot)
