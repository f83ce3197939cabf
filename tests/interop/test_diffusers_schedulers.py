"""Schedulers of diffusers: what they say is done, and what is not done is refused by name."""

import inspect
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import anydit
from anydit.codecs import Normalize
from anydit.diffusion.multistep import DPMSolverPP
from anydit.diffusion.paths import DDPM as DDPMPath
from anydit.diffusion.paths import Linear
from anydit.diffusion.predictions import X0, V, Velocity
from anydit.diffusion.samplers import DDIM, DDPM, Euler
from anydit.diffusion.times import FlowMatching, Leading, Linspace, Respaced, Trailing
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.interop.convert import from_diffusers, to_diffusers
from anydit.interop.diffusers import MAX_PERIOD
from anydit.interop.diffusers_schedulers import (
    FIXED,
    FIXED_BY_FLOW,
    FIXED_BY_MULTISTEP,
    MOOT,
    MOOT_BY_FLOW,
    MOOT_BY_MULTISTEP,
    OF_DDIM,
    OF_DDPM,
    TAKEN,
    TAKEN_BY_FLOW,
    TAKEN_BY_MULTISTEP,
    schedule_of,
)
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.time import TimeEmbedding
from anydit.tensors import Stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers' own imports
    import diffusers
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        DiTTransformer2DModel,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
    )

SEED, STEPS, SCALE = 3, 8, 4.0


def about(kind: Any = DDIMScheduler, **changes: Any) -> dict[str, Any]:
    options = {"clip_sample": False, **changes}
    return {**json.loads(json.dumps({**kind(**options).config})), "_class_name": kind.__name__}


@pytest.mark.parametrize(("kind", "own"), [(DDIMScheduler, OF_DDIM), (DDPMScheduler, OF_DDPM)])
def test_every_option_is_taken_or_fixed_and_defaults_are_theirs(kind: Any, own: dict[str, Any]) -> None:
    parameters = inspect.signature(kind.__init__).parameters
    theirs = {name: p.default for name, p in parameters.items() if name != "self" and name not in MOOT}
    assert theirs == {**TAKEN, **FIXED, **own, "clip_sample": True}


@pytest.mark.parametrize(
    ("kind", "options", "sampler", "grid"),
    [
        (DDIMScheduler, {}, DDIM(), Leading()),
        (DDIMScheduler, {"steps_offset": 1}, DDIM(), Leading(offset=1)),
        (DDIMScheduler, {"timestep_spacing": "trailing", "num_train_timesteps": 500}, DDIM(), Trailing(500)),
        (DDPMScheduler, {}, DDPM(), Leading()),
        (DDPMScheduler, {"clip_sample": True, "clip_sample_range": 2.0}, DDPM(clip=(-2.0, 2.0)), Leading()),
    ],
)
def test_what_is_said_is_taken(kind: Any, options: dict[str, Any], sampler: Any, grid: Any) -> None:
    found = schedule_of(about(kind, beta_start=2e-4, beta_end=1e-2, prediction_type="v_prediction", **options))
    assert (found.sampler, found.grid, found.prediction) == (sampler, grid, V())
    assert found.path == DDPMPath(options.get("num_train_timesteps", 1000), 2e-4, 1e-2)


def test_what_is_left_out_is_what_diffusers_takes() -> None:
    found = schedule_of({"_class_name": "DDPMScheduler"})
    assert found.sampler == DDPM(clip=(-1.0, 1.0)) and found.grid == Leading()
    with pytest.raises(ValueError, match="clip_sample: got True, expected False"):
        schedule_of({"_class_name": "DDIMScheduler"})


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (DDIMScheduler, {"beta_schedule": "scaled_linear"}, "beta_schedule: got 'scaled_linear', expected 'linear'"),
        (DDIMScheduler, {"trained_betas": [0.1]}, r"trained_betas: got \[0\.1\], expected None"),
        (DDIMScheduler, {"prediction_type": "flow"}, "prediction_type: got 'flow', expected one of epsilon"),
        (DDIMScheduler, {"clip_sample": True}, "clip_sample: got True, expected False"),
        (DDIMScheduler, {"thresholding": True}, "thresholding: got True, expected False"),
        (DDIMScheduler, {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr: got True"),
        (DDIMScheduler, {"set_alpha_to_one": False}, "set_alpha_to_one: got False, expected True"),
        (DDIMScheduler, {"timestep_spacing": "linspace"}, "timestep_spacing: got 'linspace', expected one of leading"),
        (DDIMScheduler, {"use_karras_sigmas": True}, "use_karras_sigmas: got True, expected none"),
        (DDIMScheduler, {"num_train_timesteps": 1}, "steps: got 1, expected at least 2"),
        (DDIMScheduler, {"num_train_timesteps": "many"}, "many"),
        (DDPMScheduler, {"variance_type": "fixed_large"}, "variance_type: got 'fixed_large', expected 'fixed_small'"),
        (DDPMScheduler, {"thresholding": True}, "thresholding: got True"),
    ],
)
def test_what_would_be_another_sample_is_refused(kind: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^scheduler: .*{message}"):
        schedule_of({**about(kind), **change})


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"thresholding: .*; .*prediction_type: .*; timestep_spacing: "):
        schedule_of({**about(), "thresholding": True, "prediction_type": "x", "timestep_spacing": "y"})


@pytest.mark.parametrize("kind", [None, "UniPCMultistepScheduler", "PNDMScheduler"])
def test_other_schedulers_are_refused(kind: str | None) -> None:
    with pytest.raises(
        ValueError, match=f"_class_name: got {kind!r}, expected DDIMScheduler, DDPMScheduler, DPMSolverMulti"
    ):
        schedule_of({**about(), "_class_name": kind})


def test_the_multistep_scheduler_is_followed_and_its_defaults_are_theirs() -> None:
    parameters = inspect.signature(DPMSolverMultistepScheduler.__init__).parameters
    theirs = {name: p.default for name, p in parameters.items() if name != "self" and name not in MOOT_BY_MULTISTEP}
    assert theirs == {**TAKEN_BY_MULTISTEP, **FIXED_BY_MULTISTEP}
    assert parameters.keys() >= MOOT_BY_MULTISTEP
    changes = {"num_train_timesteps": 500, "beta_end": 1e-2, "prediction_type": "sample", "solver_order": 3}
    found = schedule_of(about_multistep(**changes))
    assert (found.path, found.prediction) == (DDPMPath(500, beta_end=1e-2), X0())
    assert (found.sampler, found.grid) == (DPMSolverPP(3), Linspace(500))
    assert schedule_of(about_multistep(timestep_spacing="trailing")).grid == Trailing()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm_type": "sde-dpmsolver++"}, r"algorithm_type: got 'sde-dpmsolver\+\+', expected 'dpmsolver\+\+'"),
        ({"final_sigmas_type": "sigma_min"}, "final_sigmas_type: got 'sigma_min', expected 'zero'"),
        ({"lambda_min_clipped": -5.1}, r"lambda_min_clipped: got -5\.1, expected -inf"),
        ({"solver_type": "heun", "euler_at_final": True}, "euler_at_final: got True.*solver_type: got 'heun'"),
        ({"solver_order": 4}, "solver_order: got 4, expected one of 1, 2, 3"),
        ({"timestep_spacing": "leading"}, "timestep_spacing: got 'leading', expected one of linspace, trailing"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas: got True, expected False"),
        (
            {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
            "use_flow_sigmas: .*prediction_type: got",
        ),
        ({"new_option": 1}, "new_option: got 1, expected none"),
        ({"beta_start": 0.0}, r"beta_start, beta_end: got 0\.0"),
    ],
)
def test_what_would_be_another_multistep_sample_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^scheduler: .*{message}"):
        schedule_of(about_multistep(**change))


def about_multistep(**changes: Any) -> dict[str, Any]:
    return {"_class_name": "DPMSolverMultistepScheduler", **changes}


def own(folder: Path, steps: int = 1000, **model: Any) -> Pipeline:
    """A model that diffusers has too, with random weights, in a folder of diffusers."""
    config = DiTConfig(
        32,
        1,
        2,
        (2, 2),
        channels=3,
        size=(8, 8),
        conditions={"label": Label(1000)},  # DiTPipeline takes class 1000 for the null
        time=TimeEmbedding(scale=steps, max_period=MAX_PERIOD),
        **model,
    )
    pipe = Pipeline(PipelineConfig(model=config, path=DDPMPath(steps), prediction=V(), codec=Normalize.to_unit(-1, 1)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in pipe.model.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    pipe.save(folder / "own")
    to_diffusers(folder / "own", folder / "theirs")
    return pipe


@torch.no_grad()
def their_samples(folder: Path, noise: Any, labels: list[int]) -> Tensor:
    """What DiTPipeline does, up to its autoencoder."""
    model: Any = DiTTransformer2DModel.from_pretrained(folder / "transformer")
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(STEPS)
    x, both = noise(0), torch.tensor([*labels, *[1000] * len(labels)])
    for i, t in enumerate(scheduler.timesteps):
        out = model(torch.cat([x, x]), timestep=t.expand(len(both)), class_labels=both).sample
        given, null = out.chunk(2)
        guided = null + SCALE * (given - null)
        if isinstance(scheduler, DDIMScheduler):
            x = scheduler.step(guided, t, x).prev_sample
        else:
            with pytest.MonkeyPatch.context() as patch:
                at = i + 1
                patch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise(at))  # noqa: B023
                x = scheduler.step(guided, t, x).prev_sample
    return x


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DDIMScheduler, {}),
        (DDIMScheduler, {"steps_offset": 3}),
        (DDIMScheduler, {"timestep_spacing": "trailing"}),
        (DDIMScheduler, {"num_train_timesteps": 400, "beta_end": 5e-2}),
        (DDPMScheduler, {}),
        (DDPMScheduler, {"clip_sample": True, "clip_sample_range": 1.5, "timestep_spacing": "trailing"}),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_folder_samples_as_in_diffusers(tmp_path: Path, kind: Any, options: dict[str, Any]) -> None:
    own(tmp_path, options.get("num_train_timesteps", 1000))
    said = about(kind, prediction_type="v_prediction", **options)
    (tmp_path / "theirs" / "scheduler" / "scheduler_config.json").write_text(json.dumps(said))
    from_diffusers(tmp_path / "theirs", tmp_path / "back")
    labels, stream = [1, 4, 999], Stream(SEED, "sample")
    expected = their_samples(tmp_path / "theirs", lambda step: stream.normal(step, torch.arange(3), (3, 8, 8)), labels)
    got = anydit.load(tmp_path / "back", device="cpu").sample(3, {"label": labels}, steps=STEPS, seed=SEED)
    assert expected.std() > 0.1
    # Both start from the same noise, theirs with deviation 1 and ours with sigma(t), of 0.9998 and more.
    assert (got - expected).norm() / expected.norm() <= 1e-3


def test_other_times_would_show(tmp_path: Path) -> None:
    """The times of before, which were respaced whatever the scheduler said, make other samples."""
    own(tmp_path)
    said = about(prediction_type="v_prediction")
    (tmp_path / "theirs" / "scheduler" / "scheduler_config.json").write_text(json.dumps(said))
    from_diffusers(tmp_path / "theirs", tmp_path / "back")
    pipe = anydit.load(tmp_path / "back", device="cpu")
    how = replace(pipe.config.sampling, steps=STEPS)
    a, b = (pipe.sample(3, {"label": 1}, sampling=replace(how, grid=grid)) for grid in (how.grid, Respaced()))
    assert (a - b).norm() / a.norm() > 1e-2


def test_a_variance_that_diffusers_does_not_use_is_refused(tmp_path: Path) -> None:
    own(tmp_path, learned_variance=True)
    said = about(DDPMScheduler, prediction_type="v_prediction")
    (tmp_path / "theirs" / "scheduler" / "scheduler_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="scheduler: got DDPMScheduler beside a learned variance"):
        from_diffusers(tmp_path / "theirs", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_scheduler_for_flows_is_followed_and_its_defaults_are_theirs() -> None:
    parameters = inspect.signature(FlowMatchEulerDiscreteScheduler.__init__).parameters
    theirs = {name: p.default for name, p in parameters.items() if name != "self" and name not in MOOT_BY_FLOW}
    assert theirs == {**TAKEN_BY_FLOW, **FIXED_BY_FLOW}
    said = {**json.loads(json.dumps({**FlowMatchEulerDiscreteScheduler(500, shift=3.0).config}))}
    found = schedule_of({**said, "_class_name": "FlowMatchEulerDiscreteScheduler"})
    assert (found.path, found.prediction, found.sampler) == (Linear(), Velocity(), Euler())
    assert found.grid == FlowMatching(500, 3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting: got True, expected False"),
        ({"use_karras_sigmas": True, "stochastic_sampling": True}, "stochastic_sampling: .*; use_karras_sigmas: got"),
        ({"shift_terminal": 0.1}, r"shift_terminal: got 0\.1, expected None"),
        ({"prediction_type": "epsilon"}, "prediction_type: got 'epsilon', expected none"),
        ({"shift": 0.0}, "shift: got 0"),
        ({"num_train_timesteps": 1}, "of: got 1, expected at least 2"),
    ],
)
def test_what_would_be_another_flow_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^scheduler: .*{message}"):
        schedule_of({"_class_name": "FlowMatchEulerDiscreteScheduler", **change})
