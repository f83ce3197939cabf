"""Figures of molecules: at the floor for real ones, whatever their order and orientation, and far for each damage."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import MoleculeView, SmallMolecules
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.own import own
from anydit.evaluate.sets import Sets, opened
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Numbers
from anydit.model.dit import DiTConfig
from anydit.train.resolve import resolved

FIGURES = [
    "valid", "unique", "novel", "stable_atoms", "stable_molecules", "bonds", "angles", "elements", "composition"
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallMolecules:
    return SmallMolecules(heavy=6, conformers=1, turns=2, held_out=0.3, cache=tmp_path_factory.mktemp("molecules"))


@pytest.fixture(scope="module")
def pipeline(data: SmallMolecules) -> Pipeline:
    model = DiTConfig(16, 1, 2, (1,), position=None, conditions={"composition": Numbers()})
    config = PipelineConfig(
        model=model, codec=Normalize((0.0,), (1.5,)), sampling=Sampling(steps=2), view=MoleculeView()
    )
    return Pipeline(resolved(config, data.open("train"), lambda _: None))


@pytest.fixture(scope="module")
def sets(data: SmallMolecules, pipeline: Pipeline) -> Sets:
    return opened(pipeline, data, len(data.open("held_out")) * 2)


def figures(sets: Sets, x: Tensor) -> dict[str, float]:
    return {name: figure.samples for name, figure in own(sets.view, x, sets).figures.items()}


def test_real_molecules_are_valid_stable_and_as_asked(sets: Sets):
    found = own(sets.view, sets.real.x[sets.rows], sets).figures
    assert list(found) == FIGURES
    for name in ("valid", "novel", "stable_atoms", "stable_molecules", "composition"):
        assert found[name].samples == found[name].floor == 1, name
    for name in ("unique", "bonds", "angles", "elements"):
        assert found[name].samples == pytest.approx(found[name].floor, abs=1e-9), name
    assert found["bonds"].floor < 0.02, "Å"
    assert found["angles"].floor < 5, "degrees"
    assert found["unique"].floor == 1, "each held-out molecule once"


def test_neither_the_order_of_atoms_nor_their_orientation_matters(sets: Sets):
    x = sets.real.x[sets.rows]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    y = x[:, :, torch.randperm(x.shape[2], generator=torch.Generator().manual_seed(0))]
    y = torch.cat([torch.einsum("ij,bjn->bin", turn, y[:, :3]) + 3, y[:, 3:]], 1)
    assert figures(sets, y) == pytest.approx(figures(sets, x), abs=1e-4)


def test_what_is_broken_shows(sets: Sets):
    x = sets.real.x[sets.rows]
    good = figures(sets, x)
    shaken = x + 0.15 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    shaken[:, 3:] = x[:, 3:]
    bad = figures(sets, shaken)
    assert bad["valid"] < 0.5 and bad["stable_molecules"] < 0.5 and bad["stable_atoms"] < 0.9
    assert bad["bonds"] > 5 * good["bonds"] and bad["angles"] > 1.5 * good["angles"]
    assert bad["composition"] == 1, "it has the atoms all the same"
    other = x.clone()
    view = sets.view
    assert isinstance(view, MoleculeView) and view.elements is not None
    hydrogen, carbon = (3 + view.elements.index(symbol) for symbol in ("H", "C"))
    other[:, [hydrogen, carbon]] = other[:, [carbon, hydrogen]]
    swapped = figures(sets, other)
    assert swapped["valid"] == 0 and swapped["elements"] > 0.2
    assert swapped["composition"] < 0.2
    far = x.clone()
    far[:, 0, 0] += 4
    assert figures(sets, far)["valid"] == 0, "in two pieces"


def test_copies_of_training_data_are_not_novel_and_of_one_molecule_not_unique(sets: Sets):
    train = sets.read_train(torch.arange(len(sets.rows)))
    assert figures(sets, train)["novel"] == 0
    first = sets.real.x[:1].expand(len(sets.rows), -1, -1)
    same = figures(sets, first)
    assert same["unique"] == pytest.approx(1 / sets.count, rel=0.1)
    assert same["composition"] < 0.2


def test_data_of_other_elements_are_refused(data: SmallMolecules, pipeline: Pipeline):
    other = replace(data, elements=("H", "C", "N", "O", "S"))
    with pytest.raises(ValueError, match=r"data.elements: got .* 'S'\), expected .* 'F'\), as the model"):
        evaluate(pipeline, other, samples=20)


def test_a_report_has_them_and_none_of_places(data: SmallMolecules, pipeline: Pipeline):
    report = evaluate(pipeline, data, samples=24)
    assert list(report.figures) == FIGURES, "no Fréchet distance of sets"
    assert report.pictures["Bond lengths, in Å"].width > 500
    assert {"samples", "held_out"} <= set(report.pictures)


def test_the_order_of_atoms_that_goes_in_comes_out(data: SmallMolecules, pipeline: Pipeline):
    """Invariance of the whole pipeline: the network sees a set."""
    torch.manual_seed(0)
    for parameter in pipeline.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    batch = data.open("train").read(torch.arange(4))
    order = torch.randperm(batch.x.shape[2])
    cond = {name: value for name, value in batch.cond.items() if name in ("mask", "composition")}
    moved = cond | {"mask": cond["mask"][:, order]}
    t = torch.full((4,), 0.5)
    out = pipeline.model(batch.x, t, cond)[:, :, order]
    again = pipeline.model(batch.x[:, :, order], t, moved)
    there = moved["mask"][:, None].expand_as(out)
    assert out.std() > 0.01 and torch.allclose(out[there], again[there], atol=1e-4)


def test_lengths_follow_from_the_composition_or_are_drawn(pipeline: Pipeline, tmp_path: Path):
    x = pipeline.sample(2, {"composition": [[6, 2, 0, 1, 0], [4, 1, 0, 0, 0]]})
    assert (~x.isnan().any(1)).sum(1).tolist() == [9, 5]
    drawn = (~pipeline.sample(40).isnan().any(1)).sum(1)
    assert 2 < int(drawn.min()) < int(drawn.max())
    paths = replace(pipeline.config.view).write(x, tmp_path)
    assert [path.read_text(encoding="utf-8").split()[0] for path in paths] == ["9", "5"]
