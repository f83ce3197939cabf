"""Files of molecules: what is read of each format, and what is refused by name."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import ase
import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.collections import g2
from rdkit import Chem
from rdkit.Chem import AllChem

from anydit.data import Molecules
from anydit.data.molecules.files import Molecule, entries, paths_in
from anydit.data.molecules.view import Atoms, as_sdf, as_xyz

WATER = "3\nwater\nO 0 0 0.12\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n"


def read(path: Path) -> list[Any]:
    """Molecules, or why they are none."""
    out = list[Any]()
    for name, thunk in entries(path.name, path):
        try:
            out.append(thunk())
        except Exception as error:
            out.append((name, str(error)))
    return out


def one(path: Path, text: str) -> Any:
    path.write_text(text, encoding="utf-8")
    (found,) = read(path)
    return found


def refused(data: Molecules) -> str:
    with pytest.raises(ValueError) as error:
        data.open("train")
    return str(error.value)


@pytest.fixture
def ethanol() -> ase.Atoms:
    atoms = g2["CH3CH2OH"]
    atoms.info = {"name": "ethanol", "gap": 7.25}
    return atoms


@pytest.mark.parametrize("suffix", [".xyz", ".extxyz", ".db", ".json", ".traj", ".pdb", ".gen"])
def test_what_ase_writes_is_read(tmp_path: Path, suffix: str, ethanol: ase.Atoms):
    path = tmp_path / f"x{suffix}"
    if suffix in (".db", ".json"):
        ase.db.connect(path).write(ethanol, key_value_pairs={"name": "ethanol", "gap": 7.25})
    else:
        ase.io.write(path, ethanol)
    (found,) = read(path)
    assert np.array_equal(found.numbers, ethanol.numbers)
    assert np.abs(found.positions - ethanol.positions).max() < 2e-3, "Å, to the digits of a PDB file"
    if suffix in (".xyz", ".extxyz", ".db", ".json"):
        assert found.said["gap"] == 7.25


def test_energies_that_were_computed_are_read(tmp_path: Path, ethanol: ase.Atoms):
    ethanol.calc = SinglePointCalculator(ethanol, energy=-154.25)
    for suffix in (".db", ".json"):
        ase.db.connect(tmp_path / f"x{suffix}").write(ethanol)
    ase.io.write(tmp_path / "x.traj", ethanol)
    assert [read(tmp_path / f"x{suffix}")[0].said["energy"] for suffix in (".db", ".json", ".traj")] == [-154.25] * 3


def test_many_frames_of_plain_and_extended_xyz(tmp_path: Path):
    path = tmp_path / "x.xyz"
    extended = (
        '2\nProperties=id:I:1:pos:R:3:Z:I:1 pbc="F F F" Lattice="9 0 0 0 9 0 0 0 9" gap=1.5\n1 0 0 0 6\n2 0 0 1.1 8\n'
    )
    path.write_text(f"{WATER}\n{extended}1\n\n he 1 2 3 9.5\n", encoding="utf-8")
    water, carbon_monoxide, helium = read(path)
    assert water.numbers.tolist() == [8, 1, 1] and water.said == {}
    assert carbon_monoxide.numbers.tolist() == [6, 8] and carbon_monoxide.said["gap"] == 1.5
    assert helium.numbers.tolist() == [2] and helium.positions.tolist() == [[1, 2, 3]]


def test_records_of_an_sdf_with_their_tags(tmp_path: Path):
    path = tmp_path / "x.sdf"
    writer = Chem.SDWriter(str(path))
    for smiles in ("CCO", "c1ccccc1"):
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(molecule, randomSeed=0)
        molecule.SetProp("_Name", smiles)
        molecule.SetProp("logp", "0.5")
        writer.write(molecule)
    writer.close()
    ethanol, benzene = read(path)
    assert ethanol.numbers.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert ethanol.said["name"] == "CCO" and ethanol.said["logp"] == 0.5
    assert len(benzene.numbers) == 12
    (tmp_path / "one.mol").write_text(path.read_text(encoding="utf-8").partition("$$$$")[0], encoding="utf-8")
    assert read(tmp_path / "one.mol")[0].numbers.tolist() == ethanol.numbers.tolist()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("3\nwater\nO 0 0 0\nH 0 0 1\n", "it ends after 2 of the 3 atoms that line 1 tells of"),
        ("2\n\nO 0 0 0\nXx 0 0 1\n", "the unknown element 'Xx' in line 4"),
        ("2\n\nO 0 0 0\n119 0 0 1\n", "the unknown element '119' in line 4"),
        ("2\n\nO 0 0 0\nH 0 0\n", "line 4 is 'H 0 0', expected an element and three numbers"),
        ("2\n\nO 0 0 0\nH 0 zero 1\n", "line 4 is 'H 0 zero 1'"),
        ("two\n\nO 0 0 0\n", "line 1 is 'two', expected a number of atoms from 1 to 1024; all up to the next"),
        ("99999999\n\nO 0 0 0\n", "line 1 is '99999999', expected a number of atoms"),
        ('1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3\nO 0 0 0\n', "a periodic cell"),
        ("1\nProperties=species:S:1:velo:R:3\nO 0 0 0\n", "expected species and pos"),
    ],
)
def test_broken_xyz_says_what_is_wrong(tmp_path: Path, text: str, why: str):
    name, said = one(tmp_path / "x.xyz", text)
    assert name == "x.xyz" and why in said


def test_what_comes_before_and_after_a_broken_frame_is_read(tmp_path: Path):
    path = tmp_path / "x.xyz"
    path.write_text(f"{WATER}1\n\nQq 0 0 0\n{WATER}", encoding="utf-8")
    first, (name, why), last = read(path)
    assert (name, why) == ("x.xyz#1", "the unknown element 'Qq' in line 8")
    assert np.array_equal(first.positions, last.positions)


@pytest.mark.parametrize("broken", ["H 0 0 1\nH 0 0 2\n", "2000\n\n" + "C 0 0 0\n" * 2000, "3\n\nO 0 0 0\nH 0 0 1\n"])
def test_a_broken_frame_takes_few_others_with_it(tmp_path: Path, broken: str):
    path = tmp_path / "x.xyz"
    path.write_text(f"{WATER}{broken}{5 * WATER}", encoding="utf-8")
    found = read(path)
    assert len(found) in (6, 7, 8)
    assert sum(isinstance(each, Molecule) for each in found) >= 5


def test_broken_records_of_an_sdf_say_what_is_wrong(tmp_path: Path):
    good = as_sdf(Atoms(np.array([8, 1, 1]), np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])))
    drawing = Chem.MolFromSmiles("CCO")
    AllChem.Compute2DCoords(drawing)
    path = tmp_path / "x.sdf"
    path.write_text(f"{good}{good[:200]}\n$$$$\n{Chem.MolToMolBlock(drawing)}$$$$\n{good}{good[:-40]}", "utf-8")
    first, cut, flat, last, end = read(path)
    assert first.numbers.tolist() == last.numbers.tolist() == [8, 1, 1]
    assert cut == ("x.sdf#1", "not a whole record of a MOL file") and end == ("x.sdf#4", cut[1])
    assert flat == ("x.sdf#2", "a drawing in two dimensions, expected coordinates in three")


@pytest.mark.parametrize("suffix", [".db", ".json", ".traj"])
def test_what_is_no_database_says_so(tmp_path: Path, suffix: str, ethanol: ase.Atoms):
    name, why = one(tmp_path / f"x{suffix}", "this is no such file, but words\n" * 100)
    assert name == f"x{suffix}" and why.startswith("ASE reads no further")
    ethanol.pbc = True
    periodic = tmp_path / f"y{suffix}"
    ase.db.connect(periodic).write(ethanol) if suffix != ".traj" else ase.io.write(periodic, ethanol)
    assert read(periodic) == [(periodic.name, "a periodic cell, expected a molecule")]


@pytest.mark.parametrize("kind", ["empty", "a byte", "of others"])
def test_reading_writes_nothing_into_a_database_of_others(tmp_path: Path, kind: str):
    path = tmp_path / "Thumbs.db"
    path.write_bytes(b"" if kind == "empty" else b"x")
    if kind == "of others":
        path.unlink()
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE thumbs (x)")
    before = path.read_bytes()
    ((name, why),) = read(path)
    assert name == "Thumbs.db" and ("no database of ASE's" in why or "not a database" in why)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".db", ".json"])
def test_a_database_that_was_cut_off_says_so(tmp_path: Path, ethanol: ase.Atoms, suffix: str):
    path = tmp_path / f"x{suffix}"
    with ase.db.connect(path) as database:
        for _ in range(200 if suffix == ".db" else 3):
            database.write(ethanol)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert isinstance(read(path)[-1], tuple) and "ASE reads no further" in read(path)[-1][1]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ("2\n\nO 0 0 0\nH 0 0 0.1\n", "atoms 1 and 2 overlap, 0.1 Å apart"),
        ("2\n\nO 0 0 0\nH 0 0 nan\n", "NaN or infinity in the place of atom 2"),
        ("2\n\nO 0 0 0\nF 0 0 1\n", "elements that data.elements leaves out: F"),
        ("5\n\n" + "".join(f"H 0 0 {i}\n" for i in range(5)), "5 atoms, expected 1 to 4"),
    ],
)
def test_what_is_no_molecule_is_skipped_counted_and_named(
    tmp_path: Path, frame: str, why: str, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "x.xyz"
    path.write_text(WATER * 10 + frame + WATER * 10, encoding="utf-8")
    data = Molecules(path=path, elements=("O", "H"), atoms=4, held_out=0.0, turns=0, cache=tmp_path)
    samples = data.open("train")
    assert len(samples) == 20
    assert f"Skipped 1 unreadable of 21 molecules (x.xyz#10: {why})." in capsys.readouterr().err
    said = refused(Molecules(path=path, elements=("O", "H"), atoms=4, held_out=0.0, bad_limit=0.0, cache=tmp_path))
    assert said == f"data.bad_limit: got 1 unreadable among 21 molecules (x.xyz#10: {why}), expected at most 0"


def test_json_in_a_folder_is_read_where_it_is_a_database(tmp_path: Path, ethanol: ase.Atoms):
    ase.db.connect(tmp_path / "a.json").write(ethanol)
    cut = (tmp_path / "a.json").read_text(encoding="utf-8")[:200]
    (tmp_path / "about.json").write_text('{"license": {"name": "none"}}', encoding="utf-8")
    assert list(paths_in(tmp_path)) == ["a.json"]
    (tmp_path / "about.json").write_text(cut, encoding="utf-8")
    assert list(paths_in(tmp_path)) == ["a.json", "about.json"], "a database that was cut off is not passed over"


def test_paths_without_molecules_are_named(tmp_path: Path):
    assert "which is not there" in refused(Molecules(path=tmp_path / "none.xyz"))
    (tmp_path / "x.txt").write_text("words", encoding="utf-8")
    assert "without molecules, expected files named .xyz" in refused(Molecules(path=tmp_path))
    (tmp_path / "x.xyz").write_text("", encoding="utf-8")
    assert "got no readable one among 0 molecules" in refused(Molecules(path=tmp_path, cache=tmp_path))


@pytest.mark.parametrize(("write", "suffix"), [(as_xyz, ".xyz"), (as_sdf, ".sdf")])
def test_what_is_written_is_read_again(tmp_path: Path, write: Any, suffix: str):
    for name in ("CH3CH2OH", "C6H6", "CH3NO2", "C2H6", "CF4", "CH3SH"):
        atoms = Atoms(np.array(g2[name].numbers), g2[name].positions)
        found = one(tmp_path / f"{name}{suffix}", write(atoms))
        assert np.array_equal(found.numbers, atoms.numbers), name
        assert np.abs(found.positions - atoms.positions).max() < 1e-4, "Å"
        assert isinstance(torch.from_numpy(found.positions), torch.Tensor)
