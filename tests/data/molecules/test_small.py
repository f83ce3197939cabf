"""Small organic molecules: real ones, valid and stable, made once, held out by what they are."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcRadiusOfGyration

from anydit.data import SmallMolecules
from anydit.data.molecules.bonds import distances, joined, smiles, stable, unjoined
from anydit.data.molecules.molecules import MoleculeSamples
from anydit.tensors import MASK, existing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallMolecules:
    return SmallMolecules(heavy=5, conformers=2, turns=2, properties=("gyration",), cache=tmp_path_factory.mktemp("x"))


def parts(data: SmallMolecules) -> tuple[MoleculeSamples, MoleculeSamples]:
    both = data.open("train"), data.open("held_out")
    assert isinstance(both[0], MoleculeSamples) and isinstance(both[1], MoleculeSamples)
    return both


def test_all_are_valid_and_stable_and_what_their_name_says(data: SmallMolecules):
    for samples in parts(data):
        ids = torch.arange(samples.distinct)
        batch = samples.read(ids)
        view = samples.facts.view
        assert view is not None
        for atoms, row in zip(view.atoms(existing(batch.x, batch.cond)), samples.rows.tolist(), strict=True):
            molecule = joined(*atoms)
            assert molecule is not None and smiles(molecule) == samples.atoms.keys[row]
            assert stable(atoms.numbers, distances(atoms.positions)).all()


def test_lists_are_those_of_rdkit_and_ase(data: SmallMolecules):
    train, held = parts(data)
    names = set(train.atoms.keys)
    assert {"CC(N)=O", "C1CC1", "CO", "NC=O", "C1CCC1"} <= names
    assert len(names) > 70 and max(Chem.MolFromSmiles(name).GetNumHeavyAtoms() for name in names) == 5
    assert not any(c in name for name in names for c in "+-.S"), "neutral, of one piece, of these elements"
    of_each = Counter(train.atoms.keys)
    assert max(of_each.values()) == 2
    assert train.distinct > held.distinct > 5
    held_names = [held.atoms.keys[row] for row in held.rows.tolist()]
    assert len(set(held_names)) == len(held_names), "each held-out molecule once"
    assert not set(held_names) & {train.atoms.keys[row] for row in train.rows.tolist()}


def test_properties_are_those_of_the_conformer(data: SmallMolecules):
    train, _ = parts(data)
    batch = train.read(torch.arange(20))
    view = train.facts.view
    assert view is not None
    expected = [CalcRadiusOfGyration(unjoined(*atoms)) for atoms in view.atoms(existing(batch.x, batch.cond))]
    assert np.allclose(batch.tensor("properties")[:, 0], expected, atol=1e-3)


def test_they_are_made_once_and_alike(data: SmallMolecules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    again = replace(data, heavy=4, cache=tmp_path / "a"), replace(data, heavy=4, cache=tmp_path / "b")
    first, second = (parts(each)[0].read(torch.arange(30)) for each in again)
    assert torch.equal(first.x, second.x) and torch.equal(first.tensor(MASK), second.tensor(MASK))

    def made(_: object) -> list[str]:
        raise AssertionError("made anew")

    monkeypatch.setattr(SmallMolecules, "_frames", made)
    assert torch.equal(parts(again[0])[0].read(torch.arange(30)).x, first.x)


def test_configs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="heavy: got 0"):
        SmallMolecules(heavy=0)
    with pytest.raises(ValueError, match="turns: got -1"):
        SmallMolecules(turns=-1)
