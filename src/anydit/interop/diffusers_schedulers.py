"""What a scheduler of diffusers says of a model: its path and prediction, and how samples were made with it.

Whatever changes a sample is either taken over or refused by name, also where a file leaves it to diffusers' defaults.
"""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from anydit.config import Json
from anydit.diffusion.multistep import DPMSolverPP
from anydit.diffusion.paths import DDPM as DDPMPath
from anydit.diffusion.paths import AnyPath, Linear
from anydit.diffusion.predictions import X0, AnyPrediction, Noise, V, Velocity
from anydit.diffusion.samplers import DDIM, DDPM, Euler
from anydit.diffusion.times import FlowMatching, Leading, Linspace, Trailing
from anydit.model.time import TimeEmbedding

FILE = Path("scheduler") / "scheduler_config.json"

PREDICTIONS: dict[str, AnyPrediction] = {"epsilon": Noise(), "v_prediction": V(), "sample": X0()}

TAKEN: Json = {
    "beta_end": 2e-2,
    "beta_start": 1e-4,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 0,
    "timestep_spacing": "leading",
}
"""Options that are taken over, with diffusers' defaults."""

FIXED: Json = {
    "beta_schedule": "linear",
    "rescale_betas_zero_snr": False,
    "thresholding": False,
    "trained_betas": None,
}
"""Options of which there is one value only here; also diffusers' defaults."""

OF_DDIM: Json = {"clip_sample": False, "set_alpha_to_one": True}
"""The same, of DDIMScheduler. It clips x0 but not the noise that goes with it, which here follows from x0."""

OF_DDPM: Json = {"variance_type": "fixed_small"}
"""The same, of DDPMScheduler."""

MOOT = frozenset({"dynamic_thresholding_ratio", "sample_max_value"})
"""Options that act together with thresholding only."""

MULTISTEP = "DPMSolverMultistepScheduler"
TAKEN_BY_MULTISTEP: Json = {
    "beta_end": 2e-2,
    "beta_start": 1e-4,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "solver_order": 2,
    "timestep_spacing": "linspace",
}
FIXED_BY_MULTISTEP: Json = {
    **FIXED,
    "algorithm_type": "dpmsolver++",
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -inf,
    "lower_order_final": True,
    "solver_type": "midpoint",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": False,
    "use_karras_sigmas": False,
    "use_lu_lambdas": False,
    "variance_type": None,
}
"""The same as above, of DPM-Solver++. Below 15 steps it also lowers the order of the last but one."""

MOOT_BY_MULTISTEP = MOOT | {"flow_shift", "steps_offset", "time_shift_type"}
"""Options that act together with thresholding, flows, leading spacing and dynamic shifting only."""

FLOW = "FlowMatchEulerDiscreteScheduler"
TAKEN_BY_FLOW: Json = {"num_train_timesteps": 1000, "shift": 1.0}
FIXED_BY_FLOW: Json = {
    "invert_sigmas": False,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}
"""The same as above, of the scheduler for linear paths and velocities."""

MOOT_BY_FLOW = frozenset({"base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift", "time_shift_type"})
"""Options that act together with dynamic shifting only."""


@dataclass(frozen=True)
class Schedule:
    """What a scheduler was made for, and how it samples."""

    path: DDPMPath | Linear
    prediction: AnyPrediction
    sampler: DDIM | DDPM | DPMSolverPP | Euler
    grid: Leading | Trailing | Linspace | FlowMatching


def told(time: TimeEmbedding, path: AnyPath, steps: int) -> TimeEmbedding:
    """How diffusers tells a network the time: as the index of one of `steps`, or on a linear path as `steps` t."""
    return replace(time, scale=steps, shift=0.0 if isinstance(path, Linear) else -1.0)


def schedule_of(about: Json, source: object = "scheduler") -> Schedule:
    """What a scheduler's config says.

    Raises:
        ValueError: it is of another class, or has an option that would make other samples than are made here.
    """
    kind = about.get("_class_name")
    if kind == FLOW:
        return _flow(about, source)
    if kind == MULTISTEP:
        return _multistep(about, source)
    if kind not in ("DDIMScheduler", "DDPMScheduler"):
        known = f"DDIMScheduler, DDPMScheduler, {MULTISTEP} or {FLOW}"
        raise ValueError(f"{source}: _class_name: got {kind!r}, expected {known}")
    path = _path(about, source)
    own = OF_DDIM if kind == "DDIMScheduler" else OF_DDPM
    got, fixed = {**TAKEN, **FIXED, **own, "clip_sample": True, **about}, {**FIXED, **own}
    spacings = {"leading": Leading(path.steps, got["steps_offset"]), "trailing": Trailing(path.steps)}
    faults = _faults(
        got, fixed, {*TAKEN, *fixed, *MOOT}, {"prediction_type": PREDICTIONS, "timestep_spacing": spacings}
    )
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    limit = got["clip_sample_range"]
    sampler = DDIM() if kind == "DDIMScheduler" else DDPM(clip=(-limit, limit) if got["clip_sample"] else None)
    return Schedule(path, PREDICTIONS[got["prediction_type"]], sampler, spacings[got["timestep_spacing"]])


def schedule_for(path: AnyPath, prediction: AnyPrediction) -> Json:
    """The scheduler for a path and a prediction, stepping from the last time down as anydit does.

    Raises:
        ValueError: diffusers has none.
    """
    if isinstance(path, Linear):
        if not isinstance(prediction, Velocity):
            got = type(prediction).__name__
            raise ValueError(f"prediction: got {got} on a linear path, expected Velocity for diffusers")
        return {"_class_name": FLOW, **TAKEN_BY_FLOW, **FIXED_BY_FLOW}
    kinds = {type(p): name for name, p in PREDICTIONS.items()}
    if not isinstance(path, DDPMPath):
        raise ValueError(f"path: got {type(path).__name__}, expected DDPM or Linear for diffusers")
    if type(prediction) not in kinds:
        raise ValueError(f"prediction: got {type(prediction).__name__}, expected Noise, V or X0 for diffusers")
    return {
        "_class_name": "DDIMScheduler",
        "beta_end": path.beta_end,
        "beta_schedule": "linear",
        "beta_start": path.beta_start,
        "clip_sample": False,
        "num_train_timesteps": path.steps,
        "prediction_type": kinds[type(prediction)],
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "trailing",
    }


def _flow(about: Json, source: object) -> Schedule:
    """What the scheduler for linear paths says."""
    got = {**TAKEN_BY_FLOW, **FIXED_BY_FLOW, **about}
    faults = _faults(got, FIXED_BY_FLOW, {*TAKEN_BY_FLOW, *FIXED_BY_FLOW, *MOOT_BY_FLOW}, {})
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    try:
        grid = FlowMatching(got["num_train_timesteps"], got["shift"])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return Schedule(Linear(), Velocity(), Euler(), grid)


def _multistep(about: Json, source: object) -> Schedule:
    """What the scheduler of DPM-Solver++ says."""
    path = _path(about, source)
    got = {**TAKEN_BY_MULTISTEP, **FIXED_BY_MULTISTEP, **about}
    spacings = {"linspace": Linspace(path.steps), "trailing": Trailing(path.steps)}
    known = {*TAKEN_BY_MULTISTEP, *FIXED_BY_MULTISTEP, *MOOT_BY_MULTISTEP}
    choices = {"prediction_type": PREDICTIONS, "solver_order": (1, 2, 3), "timestep_spacing": spacings}
    faults = _faults(got, FIXED_BY_MULTISTEP, known, choices)
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    sampler = DPMSolverPP(got["solver_order"])
    return Schedule(path, PREDICTIONS[got["prediction_type"]], sampler, spacings[got["timestep_spacing"]])


def _faults(got: Json, fixed: Json, known: Set[str], choices: Mapping[str, Collection[object]]) -> list[str]:
    """Every option that is another than its one value, is not known, or is none of its choices."""
    faults = [f"{key}: got {got[key]!r}, expected {value!r}" for key, value in fixed.items() if got[key] != value]
    faults += [f"{k}: got {v!r}, expected none" for k, v in got.items() if k not in known and k[0] != "_" and v]
    for key, several in choices.items():
        if got[key] not in several:
            faults.append(f"{key}: got {got[key]!r}, expected one of {', '.join(map(str, several))}")
    return faults


def _path(about: Json, source: object) -> DDPMPath:
    steps, start, end = ({**TAKEN, **about}[name] for name in ("num_train_timesteps", "beta_start", "beta_end"))
    try:
        return DDPMPath(steps, start, end)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
