"""Molecules: your own XYZ, SDF or ASE files, and small organic molecules with the atoms that are asked for."""

from dataclasses import replace
from pathlib import Path

from anydit.codecs import Isotropic
from anydit.data import Molecules, MoleculeView, SmallMolecules
from anydit.diffusion.multistep import SDE
from anydit.diffusion.predictions import V
from anydit.diffusion.times import Even, LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Numbers
from anydit.model.dit import DiTConfig
from anydit.model.points import Points
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def molecules() -> Recipe:
    """XYZ, SDF or ASE's files of your own: --data.path FILE or FOLDER, with --data.properties for numbers in them.

    anydit train molecules --data.path qm9.db --data.properties gap
    """
    return _recipe(Molecules(path=Path("molecules.xyz")), width=384, depth=8, steps=100_000, batch=128)


def small_molecules() -> Recipe:
    """Organic molecules of up to 6 heavy atoms, with the atoms asked for; 12 minutes of two CPU cores.

    anydit train small-molecules
    anydit sample runs/small-molecules --composition 6 2 0 1 0 --out ethanol/
    """
    return _recipe(SmallMolecules(heavy=6, types=2.0, turns=1000), width=128, depth=6, steps=9500, batch=16)


def small_molecules_gpu() -> Recipe:
    """Those of up to 9 heavy atoms, in a size for one GPU; not run yet.

    anydit train small-molecules-gpu
    """
    small = _recipe(SmallMolecules(heavy=9), width=384, depth=10, steps=40_000, batch=256)
    return replace(small, train=replace(small.train, compile=True, log_every=100))


def _recipe(data: Molecules, width: int, depth: int, steps: int, batch: int) -> Recipe:
    conditions = {name: Numbers(dropout=0.1) for name in ("composition", "properties")}
    return Recipe(
        model=DiTConfig(width, depth, width // 16, (1,), conditions=dict(conditions), position=Points()),
        prediction=V(),
        codec=Isotropic(),
        # Most steps where noise is low, each with fresh noise in place of most of the old: distances that are off are
        # drawn anew again and again.
        sampling=Sampling(sampler=SDE(eta=8.0), steps=200, grid=Even(shift=0.3)),
        view=MoleculeView(),
        data=data,
        train=TrainConfig(
            steps=steps,
            batch=batch,
            times=LogitNormal(-1.3, 1.3),
            optimizer=AdamW(lr=2e-3 if width < 256 else 5e-4, betas=(0.9, 0.99)),
            schedule=LinearDecay(warmup=100, decay=0.5),
            ema_decay=0.998 if steps < 10_000 else 0.9995,
            bf16=True,
            sample_every=steps // 2,
            save_every=steps // 4,
        ),
    )
