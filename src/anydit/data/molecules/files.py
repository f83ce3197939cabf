"""Molecules in files: XYZ (plain or extended, of any number of frames), SDF, ASE's databases, and what ASE reads."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from anydit.data.absent import check_here, elsewhere
from anydit.data.folders import files_in
from anydit.data.molecules.bonds import chem, distances
from anydit.data.molecules.elements import LARGEST, NUMBERS, symbols_of
from anydit.data.outside import Unreadable

XYZ, SDF, DATABASE = (".xyz", ".extxyz"), (".sdf", ".sd", ".mol"), {".db": "db", ".json": "json"}
OTHERS = {".traj": "traj", ".pdb": "proteindatabank", ".gen": "gen"}
"""ASE's name of each other format: none of them runs code or reads other files."""

SUFFIXES = (*XYZ, *SDF, *DATABASE, *OTHERS)

ROW = re.compile(rb'\s*{\s*"\d+"\s*:\s*{')
"""How ASE's database in JSON begins, with its first row; a folder may hold JSON of other kinds."""

MOST_ATOMS = 1024
"""Of one molecule; as many lines are read of one frame, and some more of a record of an SDF."""

RECORD_LINES = 20 * MOST_ATOMS
END = "$$$$"


class Molecule(NamedTuple):
    """Atoms by number in the periodic table, their places in Å, and what a file says of them, by name."""

    numbers: Int[np.ndarray, " n"]
    positions: Float[np.ndarray, "n 3"]
    said: Mapping[str, Any]


Entry = tuple[str, Callable[[], Molecule]]
"""A molecule's name, and what reads it or raises Unreadable."""


def paths_in(root: Path) -> dict[str, Path]:
    """The files of molecules in a folder, or a file alone, by name.

    Raises:
        ValueError: there are none.
    """
    check_here([root])
    if not root.exists():
        raise ValueError(f"data.path: got {root}, which is not there; expected a file of molecules, or a folder")
    if root.is_file():
        found = {root.name: root}
    else:
        below = [path for path in files_in(root) if (path.is_file() or path.is_symlink()) and not _other_json(path)]
        found = {path.relative_to(root).as_posix(): path for path in below}
    found = {name: path for name, path in found.items() if path.suffix.lower() in SUFFIXES}
    if not found:
        raise ValueError(f"data.path: got {root} without molecules, expected files named {', '.join(SUFFIXES)}")
    return found


def _other_json(path: Path) -> bool:
    """Whether a file is JSON and not a database of ASE's; one that cannot be looked at may be."""
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as file:
            return not ROW.match(file.read(64))
    except OSError:
        return False


def entries(name: str, path: Path) -> Iterator[Entry]:
    """The molecules in a file, one after the other."""
    if why := elsewhere(path):
        return iter([(name, partial(_fails, why))])
    suffix = path.suffix.lower()
    reader = _xyz if suffix in XYZ else _sdf if suffix in SDF else _database if suffix in DATABASE else _others
    return ((f"{name}#{i}" if i else name, read) for i, read in enumerate(reader(path)))


def checked(molecule: Molecule, elements: Sequence[int], closest: float, atoms: int | None) -> Molecule:
    """The molecule, if it is one.

    Raises:
        Unreadable: it is not.
    """
    numbers, positions, _ = molecule
    most = min(atoms or MOST_ATOMS, MOST_ATOMS)
    if not 0 < len(numbers) <= most:
        raise Unreadable(f"{len(numbers)} atoms, expected 1 to {most}")
    unknown = (numbers < 1) | (numbers > LARGEST)
    if unknown.any():
        raise Unreadable(f"an unknown element in place {int(unknown.argmax()) + 1}")
    if elements and not np.isin(numbers, elements).all():
        others = symbols_of([*set(numbers.tolist()) - set(elements)])
        raise Unreadable(f"elements that data.elements leaves out: {', '.join(sorted(others))}")
    if not np.isfinite(positions).all():
        raise Unreadable(f"NaN or infinity in the place of atom {int((~np.isfinite(positions)).any(1).argmax()) + 1}")
    apart = distances(positions)
    if len(numbers) > 1 and apart.min() < closest:
        a, b = sorted(divmod(int(apart.argmin()), len(numbers)))
        raise Unreadable(f"atoms {a + 1} and {b + 1} overlap, {apart.min():.2g} Å apart")
    return molecule


def number(said: Mapping[str, Any], name: str) -> float:
    """A number that a file says of a molecule.

    Raises:
        Unreadable: it says none.
    """
    if name not in said:
        raise Unreadable(f"no {name}")
    try:
        value = float(said[name])
    except (TypeError, ValueError):
        value = float("nan")
    if not isfinite(value):
        raise Unreadable(f"{name} is {said[name]!r}, expected a number")
    return value


def _fails(why: str) -> Molecule:
    raise Unreadable(why)


def _xyz(path: Path) -> Iterator[Callable[[], Molecule]]:
    """Frames of a number of atoms, a comment, and a line for each atom; after what is none, from the next number on."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines, lost = enumerate(file, 1), False
        for at, line in lines:
            if not line.strip():
                continue
            if not line.strip().isdecimal() or not 0 < int(line) <= MOST_ATOMS:
                said = f"line {at} is {line.strip()[:40]!r}, expected a number of atoms from 1 to {MOST_ATOMS}"
                if not lost:
                    yield partial(_fails, f"{said}; all up to the next such line is passed over")
                lost = True
                continue
            lost = False
            frame = [text for _, text in islice(lines, int(line) + 1)]
            yield partial(_frame, frame, int(line), at)


def _frame(lines: Sequence[str], count: int, at: int) -> Molecule:
    from ase.io.extxyz import key_val_str_to_dict

    if len(lines) < count + 1:
        raise Unreadable(f"it ends after {max(0, len(lines) - 1)} of the {count} atoms that line {at} tells of")
    try:
        said: dict[str, Any] = key_val_str_to_dict(lines[0]) if "=" in lines[0] else {}
    except Exception as error:
        raise Unreadable(f"line {at + 1} is no comment of extended XYZ ({error})") from None
    if "Lattice" in said and np.any(said.get("pbc", True)):
        raise Unreadable("a periodic cell, expected a molecule")
    first, places, kind = _columns(str(said.pop("Properties", "species:S:1:pos:R:3")))
    numbers, positions = np.zeros(count, np.int64), np.zeros((count, 3))
    for i, line in enumerate(lines[1:]):
        words = line.split()
        try:
            numbers[i] = _element(words[first], kind)
            positions[i] = [float(word) for word in words[places : places + 3]]
        except (IndexError, ValueError):
            expected = "an element and three numbers"
            raise Unreadable(f"line {at + 2 + i} is {line.strip()[:60]!r}, expected {expected}") from None
        if not numbers[i]:
            raise Unreadable(f"the unknown element {words[first][:20]!r} in line {at + 2 + i}")
    return Molecule(numbers, positions, said)


def _columns(properties: str) -> tuple[int, int, str]:
    """Where the elements and the places are in each line, and whether elements are symbols (S) or numbers (I)."""
    words, start, found = properties.split(":"), 0, dict[str, tuple[int, str]]()
    try:
        for name, kind, width in zip(words[::3], words[1::3], words[2::3], strict=True):
            found[name], start = (start, kind), start + int(width)
        first, kind = found["species"] if "species" in found else found["Z"]
        return first, found["pos"][0], kind
    except (KeyError, ValueError):
        raise Unreadable(f"Properties={properties[:60]}, expected species and pos among them") from None


def _element(word: str, kind: str) -> int:
    """A number in the periodic table, 0 where it has no such element."""
    if kind == "I" or word.isdecimal():
        return int(word) if 0 < int(word) <= LARGEST else 0
    return NUMBERS.get(word.capitalize(), 0)


def _sdf(path: Path) -> Iterator[Callable[[], Molecule]]:
    """Records that end with `$$$$`; a MOL file is one without."""
    with path.open(encoding="utf-8", errors="replace") as file:
        while lines := list(islice(_record(file), RECORD_LINES)):
            if len(lines) == RECORD_LINES:
                yield partial(_fails, f"a record of more than {RECORD_LINES} lines; the rest of the file is not read")
                return
            if any(line.strip() for line in lines):
                yield partial(_mol, "".join(lines))


def _record(file: Iterator[str]) -> Iterator[str]:
    for line in file:
        yield line
        if line.startswith(END):
            return


def _mol(block: str) -> Molecule:
    from rdkit.rdBase import BlockLogs

    supplier = chem().SDMolSupplier()
    with BlockLogs():
        supplier.SetData(block, sanitize=False, removeHs=False)
        molecule = supplier[0] if len(supplier) else None
    if molecule is None or "M  END" not in block:
        raise Unreadable("not a whole record of a MOL file")
    places = molecule.GetConformer()
    positions = places.GetPositions()
    if molecule.GetNumAtoms() > 1 and not positions.any():
        raise Unreadable("all atoms at 0, expected coordinates in three dimensions")
    if not places.Is3D() and not positions[:, 2].any():
        raise Unreadable("a drawing in two dimensions, expected coordinates in three")
    said = molecule.GetPropsAsDict()
    name = molecule.GetProp("_Name").strip() if molecule.HasProp("_Name") else ""
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    return Molecule(numbers, positions, said | ({"name": name} if name else {}))


def _database(path: Path) -> Iterator[Callable[[], Molecule]]:
    from ase.db import connect

    try:
        if path.suffix.lower() == ".db" and not _has_systems(path):  # ASE would write its tables into it
            yield partial(_fails, "no database of ASE's")
            return
        for row in connect(path, type=DATABASE[path.suffix.lower()]).select():
            said = {k: row.get(k) for k in ("energy", "free_energy", "magmom", "charge") if row.get(k) is not None}
            yield partial(_atoms, row.toatoms(), said | row.key_value_pairs)
    except Exception as error:  # what it raises of a damaged file is anything
        yield partial(_fails, f"ASE reads no further: {str(error) or type(error).__name__}")


def _has_systems(path: Path) -> bool:
    """Whether a file is a database of SQLite with a table of ASE's; it is opened for reading alone."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
        return bool(opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchall())


def _others(path: Path) -> Iterator[Callable[[], Molecule]]:
    from ase.io import iread

    try:
        for atoms in iread(path, index=":", format=OTHERS[path.suffix.lower()]):
            results = {} if atoms.calc is None else dict(atoms.calc.results)
            yield partial(_atoms, atoms, results | atoms.info)
    except Exception as error:  # what its readers raise of a damaged file is anything
        yield partial(_fails, f"ASE reads no further: {type(error).__name__}: {error}")


def _atoms(atoms: Any, said: Mapping[str, Any]) -> Molecule:
    if atoms.pbc.any():
        raise Unreadable("a periodic cell, expected a molecule")
    return Molecule(np.asarray(atoms.numbers, np.int64), np.asarray(atoms.positions, np.float64), said)
