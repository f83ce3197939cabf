"""Molecules as samples: atoms about their middle, masks, conditions, orientations, and which part each is in."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.collections import g2
from jaxtyping import Float
from torch import Tensor

from anydit.data import Molecules, MoleculeView
from anydit.data.loader import Order, read_ahead
from anydit.data.molecules.molecules import MoleculeSamples, turned
from anydit.data.molecules.view import Atoms, as_xyz
from anydit.tensors import MASK

NAMES = ("CH3CH2OH", "C6H6", "CH4", "CH3CONH2", "H2O", "CH3NO2", "C2H6", "CF4")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Eight molecules, each in two frames of one name, the second one moved."""
    frames = list[str]()
    for name in NAMES:
        atoms = Atoms(np.array(g2[name].numbers), g2[name].positions)
        for shift in (0, 7):
            frames.append(as_xyz(atoms._replace(positions=atoms.positions + shift), f"name={name} gap={len(name)}.5"))
    path = tmp_path / "x.xyz"
    path.write_text("".join(frames), encoding="utf-8")
    return path


@pytest.fixture
def data(file: Path, tmp_path: Path) -> Molecules:
    return Molecules(path=file, held_out=0.0, turns=0, cache=tmp_path / "cache")


def opened(data: Molecules, part: Any = "train") -> MoleculeSamples:
    samples = data.open(part)
    assert isinstance(samples, MoleculeSamples)
    return samples


def apart(x: Float[Tensor, "b c n"]) -> Float[Tensor, "b n n"]:
    return torch.cdist(x[:, :3].transpose(1, 2), x[:, :3].transpose(1, 2))


def test_samples_are_atoms_about_their_middle_with_their_types(data: Molecules):
    samples = opened(data)
    assert (samples.facts.channels, samples.facts.size) == (8, (12,))
    assert samples.facts.view == MoleculeView(elements=("H", "C", "N", "O", "F"))
    batch = samples.read(torch.arange(len(samples)))
    mask = batch.tensor(MASK)
    assert mask.sum(1).tolist() == [len(g2[name]) for name in NAMES for _ in (0, 1)]
    assert (batch.x * ~mask[:, None] == 0).all(), "a filler of 0"
    assert batch.x[:, :3].sum(2).abs().max() < 1e-5, "about the middle"
    assert torch.equal(batch.x[:, 3:].sum(1), mask.float()), "one element each"
    assert torch.equal(batch.x[:, 3:].sum(2), batch.tensor("composition"))
    assert batch.tensor("composition")[0].tolist() == [6, 2, 0, 1, 0], "ethanol"
    assert torch.allclose(batch.x[0], batch.x[1], atol=1e-5), "where it was does not matter"
    there = torch.from_numpy(g2["CH3CH2OH"].positions).float()
    assert torch.allclose(apart(batch.x)[0, :9, :9], torch.cdist(there, there), atol=1e-4), "Å, in the file's order"


def test_types_and_elements_are_as_configured(data: Molecules, file: Path):
    wide = opened(replace(data, elements=("C", "H", "O", "N", "F", "S"), types=0.25, atoms=20))
    batch = wide.read(torch.tensor([0]))
    assert batch.x.shape == (1, 9, 20)
    assert batch.x[0, 3:].amax(1).tolist() == [0.25, 0.25, 0.25, 0, 0, 0]
    assert batch.tensor("composition").tolist() == [[2, 6, 1, 0, 0, 0]], "numbers, whatever the types' value"
    assert wide.facts.lengths == ((3, 2), (5, 4), (7, 2), (8, 2), (9, 4), (12, 2))
    assert wide.facts.total_of == "composition"


def test_properties_are_conditions_and_molecules_without_are_named(data: Molecules, tmp_path: Path):
    samples = opened(replace(data, properties=("gap",)))
    assert samples.facts.numbers["properties"] == ("gap",)
    assert samples.read(torch.tensor([0, 2])).tensor("properties").tolist() == [[8.5], [4.5]]
    with pytest.raises(ValueError, match=r"got no readable one among 16 molecules \(x.xyz, .* and 11 more: no mass\)"):
        replace(data, properties=("mass",), bad_limit=1.0).open("train")
    (tmp_path / "y.xyz").write_text('1\nProperties=species:S:1:pos:R:3 gap="wide"\nO 0 0 0\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"\(y.xyz: gap is 'wide', expected a number\)"):
        replace(data, path=tmp_path / "y.xyz", properties=("gap",)).open("train")


def test_each_molecule_comes_in_several_orientations_that_depend_on_ids_alone(data: Molecules):
    plain, samples = opened(data), opened(replace(data, turns=3))
    assert (len(samples), samples.distinct) == (48, 16)
    ids = torch.tensor([0, 16, 32])
    batch, same = samples.read(ids), plain.read(torch.tensor([0]))
    assert torch.allclose(apart(batch.x), apart(same.x).expand(3, -1, -1), atol=1e-5), "turned, not bent"
    corners = [x[:3, [2, 4, 6]] - x[:3, :1] for x in (*batch.x, same.x[0])]
    volumes = torch.stack([torch.linalg.det(corner) for corner in corners])
    assert torch.allclose(volumes, volumes[3].expand(4), atol=1e-4) and volumes.abs().min() > 0.1, "and not mirrored"
    assert min((batch.x[i] - batch.x[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.1
    assert torch.equal(samples.read(torch.tensor([32, 0])).x, batch.x[[2, 0]])
    assert opened(replace(data, turns=3, held_out=0.5), "held_out").distinct == len(
        opened(replace(data, turns=3, held_out=0.5), "held_out")
    ), "held-out molecules come once"


def test_orientations_are_rotations_and_all_are_equally_likely():
    turns = turned(torch.arange(20_000), "train").double()
    assert (turns @ turns.transpose(1, 2) - torch.eye(3)).abs().max() < 1e-5
    assert (torch.linalg.det(turns) - 1).abs().max() < 1e-5, "never mirrored"
    assert turns.mean(0).abs().max() < 0.02
    # Of a random direction each component is uniform in [-1, 1] (Archimedes), and an angle a has density 1 - cos a.
    assert (turns[:, 0].square().mean(0) - 1 / 3).abs().max() < 0.01
    assert abs(float(turns.diagonal(dim1=1, dim2=2).sum(1).square().mean()) - 1) < 0.05, "the mean square of the trace"


def test_all_frames_of_one_name_are_in_one_part(data: Molecules):
    data = replace(data, held_out=0.4)
    train, held = opened(data), opened(data, "held_out")
    names = [{some.atoms.keys[row] for row in some.rows.tolist()} for some in (train, held)]
    assert names[0] | names[1] == set(NAMES) and not names[0] & names[1]
    assert train.distinct == 2 * len(names[0]) and train.distinct + held.distinct == 16
    assert held.facts == train.facts, "lengths are those of training"
    assert set(opened(replace(data, key="gap")).atoms.keys) == {"8.5", "4.5", "3.5", "6.5"}
    with pytest.raises(ValueError, match=r"got no readable one among 16 molecules .*: no smiles"):
        replace(data, key="smiles", bad_limit=1.0).open("train")
    with pytest.raises(ValueError, match=r"data.held_out: got 0.0, which leaves none of 16"):
        replace(data, held_out=0.0).open("held_out")


def test_files_are_read_once_and_anew_when_they_change(data: Molecules, file: Path, monkeypatch: pytest.MonkeyPatch):
    from anydit.data.molecules import cache

    opened(data)
    calls = list[str]()
    monkeypatch.setattr(cache, "entries", lambda *args: calls.append(args[0]) or iter(()))
    assert len(opened(data)) == 16 and not calls
    assert len(opened(replace(data, types=0.5, turns=2))) == 32 and not calls, "the same reading"
    file.write_text(file.read_text(encoding="utf-8") + "1\n\nHe 0 0 0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no readable one"):
        data.open("train")
    assert calls == ["x.xyz"]


def test_a_damaged_cache_is_made_anew_and_an_unused_one_goes(data: Molecules, tmp_path: Path):
    from anydit.data.kept import UNUSED_SECONDS
    from anydit.data.molecules import cache

    expected = opened(data).read(torch.arange(16)).x
    (kept,) = (tmp_path / "cache" / "molecules").iterdir()
    (kept / "positions.npy").unlink()
    cache._load.cache_clear()
    assert torch.equal(opened(data).read(torch.arange(16)).x, expected)
    for file in (*kept.iterdir(), kept):
        os.utime(file, (0, time.time() - 2 * UNUSED_SECONDS))
    opened(replace(data, closest=0.1))
    assert not kept.exists()


def test_batches_of_an_epoch_have_every_molecule_in_every_orientation(data: Molecules):
    samples = opened(replace(data, turns=2))
    batches = read_ahead(samples, Order(len(samples), 8, 0), 0)
    ids = torch.cat([next(batches).ids for _ in range(4)])
    assert sorted(ids.tolist()) == list(range(32))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"turns": -1}, "turns: got -1"),
        ({"types": 0.0}, "types, closest: got 0.0"),
        ({"atoms": 0}, "atoms: got 0"),
        ({"held_out": 1.0}, "held_out: got 1.0"),
        ({"bad_limit": 2.0}, "bad_limit: got 2.0"),
        ({"elements": ("Q",)}, "elements: got 'Q', expected symbols of elements, such as C"),
        ({"elements": ("C", "C")}, "expected each once"),
    ],
)
def test_configs_that_cannot_be_are_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Molecules(**changes)
