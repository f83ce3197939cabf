"""Fields on a grid: files of one's own, and a turbulent flow that is computed when it is first asked for."""

from dataclasses import replace
from pathlib import Path

from anydit.codecs import Whiten
from anydit.data import Fields, FieldView, Turbulence
from anydit.diffusion.multistep import SDE, DPMSolverPP
from anydit.diffusion.predictions import V
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Condition, Field, Numbers
from anydit.model.dit import DiTConfig
from anydit.model.tokens import SinCosRope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig

PAST: dict[str, Condition] = {"past": Field(coded=True), "numbers": Numbers()}
"""What a forecast is told: the state before, and the Reynolds number, which says how fast small eddies fade."""


def fields() -> Recipe:
    """Files in HDF5 (as The Well's too), NetCDF or Zarr: --data.path, and --model.patch with a number for each axis.

    anydit train fields --data.path the_well/shear_flow --data.past 2 --model.patch 8 8
    """
    conditions: dict[str, Condition] = {name: Field(coded=name != "given") for name in ("past", "coarse", "given")}
    conditions["numbers"] = Numbers()
    return _recipe(Fields(path=Path("fields.nc")), conditions, width=256, depth=8, steps=10_000)


def flow() -> Recipe:
    """Velocities of a turbulent flow on 32x32 points at a Reynolds number; 11 minutes of two CPU cores.

    anydit train flow; anydit sample runs/flow --numbers 150
    """
    return _recipe(Turbulence(), {"numbers": Numbers(dropout=0.1)})


def flow_fine() -> Recipe:
    """Super-resolution: the flow on 32x32 points, given its means over blocks of 4x4; 11 minutes of two CPU cores.

    anydit train flow-fine
    """
    return _recipe(Turbulence(coarse=4, numbers=()), {"coarse": Field(coded=True)})


def flow_forecast() -> Recipe:
    """The flow's next state given the one before, for ensembles that go on from there; 11 minutes of two CPU cores.

    anydit train flow-forecast
    """
    return _recipe(Turbulence(past=1, trajectories=200), PAST, width=128, steps=5600, of="past")


def flow_gpu() -> Recipe:
    """The flow's next state given the one before, on 64x64 points, in a size for one GPU; not run yet.

    anydit train flow-gpu
    """
    recipe = _recipe(Turbulence(past=1, size=(64, 64), trajectories=400), PAST, 512, 12, of="past")
    return replace(recipe, train=replace(recipe.train, steps=20_000, batch=128, compile=True))


def _recipe(
    data: Fields, told: dict[str, Condition], width: int = 192, depth: int = 6, steps: int = 4000, of: str | None = None
) -> Recipe:
    return Recipe(
        model=DiTConfig(width, depth, width // 32, (4, 4), conditions=told, position=SinCosRope()),
        prediction=V(),  # right where noise is low, so that small eddies stay
        codec=Whiten(),
        change_of=of,
        sampling=Sampling(sampler=DPMSolverPP() if of else SDE(), steps=10),  # fresh noise keeps eddies of whole states
        view=FieldView(),
        data=data,
        # Wide enough that pure noise is trained on: from there the past tells nearly all of the next state, and what
        # the first step loses of it a forecast loses anew with each state.
        train=TrainConfig(steps=steps, batch=8, times=LogitNormal(0.8, 2.0), optimizer=AdamW(lr=2e-3),
                          schedule=LinearDecay(warmup=100, decay=0.5), ema_decay=0.995, bf16=True),
    )  # fmt: skip
