"""Bonds by distance: as chemistry has them, whatever the order and the orientation of atoms."""

import numpy as np
import pytest
from ase.collections import g2
from rdkit import Chem
from rdkit.Chem import AllChem

from anydit.data.molecules.bonds import distances, joined, lengths, orders, smiles, stable

KNOWN = {
    "CH3CH2OH": "CCO", "C6H6": "c1ccccc1", "HCOOH": "O=CO", "CH3CN": "CC#N", "C5H5N": "c1ccncc1", "CO2": "O=C=O",
    "CH3CONH2": "CC(N)=O", "C4H4S": "c1ccsc1", "CH3CH2Cl": "CCCl", "SiH4": "[SiH4]", "C4H4O": "c1ccoc1",
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_molecules_that_are_measured_are_valid_and_stable(name: str):
    atoms = g2[name]
    molecule = joined(atoms.numbers, atoms.positions)
    assert molecule is not None and smiles(molecule) == KNOWN[name]
    assert stable(atoms.numbers, distances(atoms.positions)).all()


@pytest.mark.parametrize("name", ["CH3", "OH", "CH3CO", "NO2"])
def test_radicals_are_not_valid(name: str):
    assert joined(g2[name].numbers, g2[name].positions) is None


def test_radicals_have_unstable_atoms():
    assert stable(g2["CH3"].numbers, distances(g2["CH3"].positions)).tolist() == [False, True, True, True]
    assert not stable(g2["OH"].numbers, distances(g2["OH"].positions))[0]


@pytest.mark.parametrize("name", ["C=CC#CC(=O)NCc1ccccc1", "CC(C)(O)CF", "NC1CC1C=O", "Cc1nonc1C", "CC(=O)Oc1ccccc1"])
def test_what_rdkit_built_is_found_again(name: str):
    """The bonds of a built molecule are known: an independent check of all tables."""
    built = Chem.AddHs(Chem.MolFromSmiles(name))
    AllChem.EmbedMolecule(built, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(built)
    numbers = np.array([atom.GetAtomicNum() for atom in built.GetAtoms()])
    positions = built.GetConformer().GetPositions()
    there = Chem.GetAdjacencyMatrix(built) > 0
    assert np.array_equal(orders(numbers, distances(positions)) > 0, there)
    found = joined(numbers, positions)
    assert found is not None and smiles(found) == Chem.MolToSmiles(Chem.MolFromSmiles(name))
    assert stable(numbers, distances(positions)).all()


def test_orders_go_by_length():
    carbon = np.array([6, 6])
    pairs = [[[0, 0, 0], [0, 0, d]] for d in (1.20, 1.34, 1.54, 1.70)]
    assert [int(orders(carbon, distances(np.array(p)))[0, 1]) for p in pairs] == [3, 2, 1, 0]
    assert lengths().usual[0, 11, 17] == pytest.approx(2.68), "a pair without an entry: the sum of covalent radii"


def test_neither_order_nor_orientation_matters():
    atoms = g2["CH3CONH2"]
    shuffled = np.random.default_rng(0).permutation(len(atoms))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    numbers, positions = atoms.numbers[shuffled], (atoms.positions @ turn)[shuffled] + 5
    found = joined(numbers, positions)
    assert found is not None and smiles(found) == "CC(N)=O"
    assert stable(numbers, distances(positions)).all()


def test_what_is_in_pieces_or_overlaps_is_not_valid():
    atoms = g2["CH4"]
    far = np.concatenate([atoms.positions, atoms.positions + 10])
    assert joined(np.tile(atoms.numbers, 2), far) is None
    squeezed = atoms.positions.copy()
    squeezed[1] *= 0.5
    assert joined(atoms.numbers, squeezed) is None
    lost = atoms.positions.copy()
    lost[1] *= 2
    assert stable(atoms.numbers, distances(lost)).tolist() == [False, False, True, True, True]
