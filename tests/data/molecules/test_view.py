"""Molecules shown and written: which atoms, where, and of what element."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.collections import g2
from rdkit import Chem
from torch import Tensor

from anydit.data import MoleculeView
from anydit.data.molecules.elements import numbers_of
from anydit.data.molecules.view import SDF

ELEMENTS = ("H", "C", "O")
VIEW = MoleculeView(elements=ELEMENTS)


def samples(*names: str, places: int = 12) -> Tensor:
    """Molecules as a pipeline hands them out, types a little off."""
    generator = torch.Generator().manual_seed(0)
    x = torch.full((len(names), 6, places), torch.nan)
    for row, name in zip(x, names, strict=True):
        atoms = g2[name]
        row[:3, : len(atoms)] = torch.from_numpy(atoms.positions.T)
        one_hot = torch.from_numpy(np.array(numbers_of(ELEMENTS))[:, None] == atoms.numbers).float()
        row[3:, : len(atoms)] = one_hot + 0.2 * torch.randn(one_hot.shape, generator=generator)
    return x


def test_xyz_has_the_elements_and_places(tmp_path: Path):
    paths = VIEW.write(samples("CH3CH2OH", "C6H6"), tmp_path)
    assert [path.name for path in paths] == ["sample-00000.xyz", "sample-00001.xyz"]
    for path, name in zip(paths, ("CH3CH2OH", "C6H6"), strict=True):
        read = ase.io.read(path)
        assert read.get_chemical_symbols() == g2[name].get_chemical_symbols()
        assert np.abs(read.positions - g2[name].positions).max() < 1e-6
        assert not read.pbc.any()


def test_sdf_has_bonds_where_atoms_make_a_molecule(tmp_path: Path):
    x = samples("CH3CH2OH", "C6H6")
    x[1, 0, 0] += 5
    good, torn = MoleculeView(elements=ELEMENTS, file=SDF()).write(x, tmp_path, "x")
    assert good.suffix == ".sdf"
    molecule = next(iter(Chem.SDMolSupplier(str(good), removeHs=False)))
    assert Chem.MolToSmiles(Chem.RemoveHs(molecule)) == "CCO"
    assert np.abs(molecule.GetConformer().GetPositions() - g2["CH3CH2OH"].positions).max() < 1e-4
    left = next(iter(Chem.SDMolSupplier(str(torn), removeHs=False, sanitize=False)))
    assert (left.GetNumAtoms(), left.GetNumBonds()) == (12, 0)


def test_pictures_show_the_elements_by_colour_from_any_side():
    x = samples("CH3CH2OH", "CH4")
    turned = x.clone()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    turned[:, :3] = (turn * torch.linalg.det(turn)) @ x[:, :3].nan_to_num()
    turned[:, :3][x[:, :3].isnan()] = torch.nan
    pictures = [np.asarray(VIEW.picture(some, ["a", "b"], 2)).astype(int) for some in (x, turned)]
    for picture in pictures:
        red = (picture[..., 0] > 150) & (picture[..., 1] < 90) & (picture[..., 2] < 90)
        assert red[:, :98].sum() > 30, "the oxygen of ethanol"
        assert not red[:, 98:].any(), "none in methane"
    assert np.abs(pictures[0].mean((0, 1)) - pictures[1].mean((0, 1))).max() < 6, "much the same from any side"


def test_flat_molecules_are_seen_from_above():
    x = samples("C6H6").repeat(2, 1, 1)
    x[1, :3] = x[1, [2, 0, 1]]  # the ring stands on its edge
    pictures = [np.asarray(VIEW.picture(one[None])).astype(int) for one in x]
    covered = [int((np.abs(picture - 0xF4).max(-1) > 30).sum()) for picture in pictures]
    assert covered[0] > 1500 and covered[1] == pytest.approx(covered[0], rel=0.05)


def test_a_sample_without_atoms_is_an_empty_tile():
    assert VIEW.picture(samples("CH4")[:, :, 5:]).size[0] > 90


def test_channels_must_be_those_of_the_elements():
    with pytest.raises(ValueError, match=r"view.elements: got None for 6 channels, expected 3 elements"):
        MoleculeView().picture(samples("CH4"))
    with pytest.raises(ValueError, match=r"elements: got 'X'"):
        MoleculeView(elements=("X",))


def test_a_file_of_several_molecules_or_of_none_is_refused(tmp_path: Path):
    (path,) = VIEW.write(samples("CH4"), tmp_path)
    frame = path.read_text()
    for text, said in ((frame * 3, "several molecules"), ("", "no molecule")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"sample-00000\.xyz: {said}, expected one"):
            VIEW.read(path, (6, 12))
    (tmp_path / "a.xyz").mkdir()
    with pytest.raises(ValueError, match=r"got .*a\.xyz: .*Is a directory"):
        VIEW.read(tmp_path / "a.xyz", (6, 12))
