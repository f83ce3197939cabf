"""What a scheduler of diffusers says of a `DiTPipeline`: its path and prediction, and how samples were made with it.

Whatever changes a sample is either taken over or refused by name, also where a file leaves it to diffusers' defaults.
"""

from dataclasses import dataclass
from pathlib import Path

from anydit.config import Json
from anydit.diffusion.paths import DDPM as DDPMPath
from anydit.diffusion.predictions import X0, AnyPrediction, Noise, V
from anydit.diffusion.samplers import DDIM, DDPM
from anydit.diffusion.times import Leading, Trailing

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


@dataclass(frozen=True)
class Schedule:
    """What a scheduler was made for, and how it samples."""

    path: DDPMPath
    prediction: AnyPrediction
    sampler: DDIM | DDPM
    grid: Leading | Trailing


def schedule_of(about: Json, source: object = "scheduler") -> Schedule:
    """What a scheduler's config says.

    Raises:
        ValueError: it is of another class, or has an option that would make other samples than are made here.
    """
    kind, path = about.get("_class_name"), _path(about, source)
    if kind not in ("DDIMScheduler", "DDPMScheduler"):
        raise ValueError(f"{source}: _class_name: got {kind!r}, expected 'DDIMScheduler' or 'DDPMScheduler'")
    own = OF_DDIM if kind == "DDIMScheduler" else OF_DDPM
    got, fixed = {**TAKEN, **FIXED, **own, "clip_sample": True, **about}, {**FIXED, **own}
    faults = [f"{key}: got {got[key]!r}, expected {value!r}" for key, value in fixed.items() if got[key] != value]
    known = {*TAKEN, *fixed, *MOOT}
    faults += [f"{k}: got {v!r}, expected none" for k, v in got.items() if k not in known and k[0] != "_" and v]
    spacings = {"leading": Leading(path.steps, got["steps_offset"]), "trailing": Trailing(path.steps)}
    for key, choices in (("prediction_type", PREDICTIONS), ("timestep_spacing", spacings)):
        if got[key] not in choices:
            faults.append(f"{key}: got {got[key]!r}, expected one of {', '.join(choices)}")
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    limit = got["clip_sample_range"]
    sampler = DDIM() if kind == "DDIMScheduler" else DDPM(clip=(-limit, limit) if got["clip_sample"] else None)
    return Schedule(path, PREDICTIONS[got["prediction_type"]], sampler, spacings[got["timestep_spacing"]])


def _path(about: Json, source: object) -> DDPMPath:
    steps, start, end = ({**TAKEN, **about}[name] for name in ("num_train_timesteps", "beta_start", "beta_end"))
    try:
        return DDPMPath(steps, start, end)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
