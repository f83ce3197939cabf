"""Molecules: small organic ones with the atoms asked for, beside clouds of the same atoms, and copies of training data.

python benchmarks/modalities_molecules.py [--only property] [--gpu] [--runs FOLDER]
"""

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from modality import Trained, page, trained
from results import picture, table
from torch import Tensor

from anydit.data import SmallMolecules
from anydit.data.molecules.bonds import unjoined
from anydit.data.molecules.molecules import COMPOSITION, PROPERTIES, MoleculeSamples
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.own import own
from anydit.evaluate.sets import Sets, opened, spread
from anydit.recipes.molecules import small_molecules, small_molecules_gpu

SAMPLES, SHOWN = 300, 40
"""Molecules that are drawn; those on the picture, beside real ones of the same composition."""

ROWS = ("valid", "stable_atoms", "bonds", "novel")
"""Figures in the table over all modalities; the others are below it."""


TOLD, STEPS = 120, 5000
"""Molecules whose radius of gyration is asked for, and steps of the network that is told of it."""

ABOUT_PROPERTY = f"""\
A network that is told of the radius of gyration, too, for {STEPS} steps: drawn are {TOLD} molecules with the
composition and the radius of held-out ones in turn, then 5 % wider and narrower ones. Molecules of the same atoms have
few shapes, so a change of the radius can be followed in part only."""


def cloud(sets: Sets) -> Float[Tensor, "n c a"]:
    """The atoms that are asked for, at places drawn from a Gaussian as wide as training data: what knows no bond."""
    x = sets.real.x[sets.rows].clone()
    train = sets.read_train(spread(len(sets.train), SAMPLES))[:, :3]
    noise = torch.randn(x[:, :3].shape, generator=torch.Generator().manual_seed(0))
    x[:, :3] = torch.where(x[:, :3].isnan(), x[:, :3], noise * train[~train.isnan()].std())
    return x


def copies(sets: Sets) -> Float[Tensor, "n c a"]:
    """For each molecule asked for the training molecule whose composition is nearest."""
    assert isinstance(sets.train, MoleculeSamples)
    counts = sets.train.read(torch.arange(sets.train.distinct)).tensor("composition")
    asked = sets.real.tensor("composition")[sets.rows]
    return sets.read_train(torch.cdist(asked, counts, p=1).argmin(1))


def rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The rows of the table over all modalities, all figures of molecules, and a picture."""
    recipe, name = (small_molecules_gpu(), "molecules-gpu") if gpu else (small_molecules(), "molecules")
    done = trained(recipe, runs / name)
    report = evaluate(done.pipeline, recipe.data, samples=SAMPLES).figures
    sets = opened(done.pipeline, recipe.data, SAMPLES)
    trivial = {which: own(sets.view, x, sets).figures for which, x in (("cloud", cloud(sets)), ("copy", copies(sets)))}
    data, of_all = f"{len(set(sets.train.atoms.keys))} small molecules", list[list[object]]()
    for key in ROWS:
        which = "copy" if key == "novel" else "cloud"
        words = "nearest copy" if which == "copy" else "cloud of the same atoms"
        of_all.append(done.row("molecules", data, report[key].title, report[key].samples, report[key].floor,
                               trivial[which][key].samples, words))  # fmt: skip
    every = [[f.title, f.samples, f.floor, *(trivial[which][key].samples for which in trivial)]
             for key, f in report.items()]  # fmt: skip
    below = table(["figure", "samples", "held-out", "cloud of the same atoms", "nearest copy"], every)
    shown = sets.real.tensor("composition")[:SHOWN]
    x = done.pipeline.sample(len(shown), {"composition": shown})
    sheet = sets.view.picture(torch.cat([x, sets.real.x[:SHOWN]]), columns=10)
    beside = picture(f"molecules{'-gpu' if gpu else ''}", sheet, "molecules")
    return of_all, f"{below}\n\nSamples, then held-out molecules of the same atoms:\n\n{beside}"


def gyrations(done: Trained, cond: dict[str, Tensor]) -> Float[Tensor, " n"]:
    """The radius of each of the molecules that are drawn, in Å, as RDKit finds it."""
    from rdkit.Chem.rdMolDescriptors import CalcRadiusOfGyration

    x = done.pipeline.sample(TOLD, cond)
    return torch.tensor([CalcRadiusOfGyration(unjoined(*atoms)) for atoms in done.pipeline.config.view.atoms(x)])


def of_property(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The radius of gyration of molecules that are told theirs, beside those told their composition alone."""
    recipe = small_molecules()
    assert isinstance(recipe.data, SmallMolecules)
    data, train = replace(recipe.data, properties=("gyration",)), replace(recipe.train, steps=STEPS)
    done = trained(replace(recipe, data=data, train=train), runs / "molecules-gyration")
    held = data.open("held_out")
    ids = spread(len(held), TOLD)
    batch = held.read(ids[torch.arange(TOLD) % len(ids)])
    atoms, radius = batch.tensor(COMPOSITION), batch.tensor(PROPERTIES)
    found = {times: gyrations(done, {COMPOSITION: atoms, PROPERTIES: times * radius}) for times in (1, 0.95, 1.05)}
    alone = gyrations(done, {COMPOSITION: atoms})
    followed = (found[1.05] - found[0.95]).mean() / (0.1 * radius.mean())
    off, off_alone = ((each - radius[:, 0]).abs().mean() for each in (found[1], alone))
    told = "composition alone"
    rows = [
        done.row("molecules", "those told their radius", title, float(ours), "-", float(trivial), told)
        for title, ours, trivial in (
            ("radius of gyration, error in Å", off, off_alone),
            ("share of a change of it that is followed", followed, 0),
        )
    ]
    return rows, ABOUT_PROPERTY


if __name__ == "__main__":
    page("molecules", "Molecules: small organic ones", __doc__, rows, {"property": of_property})
