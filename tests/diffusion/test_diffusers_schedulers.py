"""Step by step against diffusers' schedulers, on the same times with the same model, to 1e-5.

diffusers works on integer timesteps of 1000 discrete steps (index i is our t = (i + 1)/1000) or, for flow matching, on
sigmas. Where its conventions differ from ours each test says how the two are brought together.
"""

from collections.abc import Iterator

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

from anydit.diffusion import paths  # noqa: E402
from anydit.diffusion.multistep import SDE, DPMSolverPP, UniPC  # noqa: E402
from anydit.diffusion.paths import Linear  # noqa: E402
from anydit.diffusion.predictions import noise_in, velocity_in  # noqa: E402
from anydit.diffusion.samplers import DDIM, DDPM, Euler, Heun, Large, Small  # noqa: E402
from anydit.diffusion.times import FlowMatching, Leading, Linspace, Respaced, Trailing  # noqa: E402
from anydit.tensors import Denoised  # noqa: E402
from tests.diffusion.analytic import Arbitrary  # noqa: E402

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear"}
PATH = paths.DDPM()


def start() -> torch.Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model_noise(xt: torch.Tensor, t: float) -> torch.Tensor:
    """The noise that the arbitrary denoiser implies, as an epsilon model would answer."""
    times = torch.full((len(xt),), t, dtype=torch.float64)
    return noise_in(PATH, xt, Arbitrary().denoise(xt, times, {}).x0, times)


def theirs(scheduler, xt: torch.Tensor, timesteps, answer) -> Iterator[torch.Tensor]:
    """diffusers' samples after each step."""
    for timestep in timesteps:
        xt = scheduler.step(answer(xt, (int(timestep) + 1) / 1000), timestep, xt).prev_sample
        yield xt


def in_doubles(scheduler):
    """The scheduler with its schedule in doubles: as shipped, float32 products of 1000 factors bound the agreement."""
    scheduler.betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    return scheduler


def compare(sampler, scheduler, count: int, *, answer=model_noise, denoiser=None, custom: bool = False):
    """Both take `count` steps of the published respacing; the samples agree after each."""
    times = Respaced().times(PATH, count).double()
    timesteps = [round(t * 1000) - 1 for t in times[:-1].tolist()]
    in_doubles(scheduler)
    scheduler.set_timesteps(timesteps=timesteps) if custom else scheduler.set_timesteps(count)
    if list(map(int, scheduler.timesteps)) != timesteps:
        scheduler.timesteps = torch.tensor(timesteps)
    generator = torch.Generator().manual_seed(1)
    noises = [torch.randn(start().shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    ours = [s.xt for s in sampler.run(denoiser or Arbitrary(), PATH, start(), times, {}, lambda i: noises[i])]
    other = theirs(scheduler, start(), scheduler.timesteps, answer)
    for a, b in zip(ours, other, strict=True):
        torch.testing.assert_close(a, b.double(), rtol=1e-5, atol=1e-5)


class FixedNoise:
    """Hands diffusers the noise that ours gets: its schedulers draw by `randn_tensor`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str, count: int) -> None:
        generator = torch.Generator().manual_seed(1)
        noises = iter([torch.randn(start().shape, generator=generator, dtype=torch.float64) for _ in range(count)])
        monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", lambda *args, **names: next(noises))


@pytest.mark.parametrize(("ours", "kind"), [(Small(), "fixed_small"), (Large(), "fixed_large")])
@pytest.mark.parametrize("count", [10, 250])
def test_ddpm(monkeypatch, ours, kind: str, count: int):
    """diffusers follows the list of timesteps that it is given."""
    scheduler = diffusers.DDPMScheduler(**BETAS, variance_type=kind, clip_sample=False)
    FixedNoise(monkeypatch, "scheduling_ddpm", count)
    compare(DDPM(variance=ours), scheduler, count, custom=True)


class Learned(Arbitrary):
    """An estimate and a variance, both functions of xt."""

    def denoise(self, xt, t, cond):
        return Denoised(super().denoise(xt, t, cond).x0, torch.sigmoid(xt))


def test_ddpm_with_learned_variance(monkeypatch):
    scheduler = diffusers.DDPMScheduler(**BETAS, variance_type="learned_range", clip_sample=False)
    FixedNoise(monkeypatch, "scheduling_ddpm", 50)

    def answer(xt, t):
        return torch.cat([model_noise(xt, t), 2 * torch.sigmoid(xt) - 1], dim=1)

    compare(DDPM(), scheduler, 50, answer=answer, denoiser=Learned(), custom=True)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(monkeypatch, eta: float):
    """diffusers steps by a fixed stride, so the times are spaced so; its last step goes to alpha 1, as ours does."""
    scheduler = in_doubles(diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing"))
    count = 20
    scheduler.set_timesteps(count)
    times = torch.tensor([(int(i) + 1) / 1000 for i in scheduler.timesteps] + [0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    noises = [torch.randn(start().shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    xt = start()
    for i, step in enumerate(DDIM(eta=eta).run(Arbitrary(), PATH, start(), times, {}, lambda i: noises[i])):
        timestep = scheduler.timesteps[i]
        noise = {"variance_noise": noises[i]} if eta else {}
        xt = scheduler.step(model_noise(xt, (int(timestep) + 1) / 1000), timestep, xt, eta=eta, **noise).prev_sample
        torch.testing.assert_close(step.xt, xt.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 49, 50, 64, 250, 999, 1000])
@pytest.mark.parametrize(
    ("grid", "options"),
    [
        (Leading(), {"timestep_spacing": "leading"}),
        (Leading(offset=1), {"timestep_spacing": "leading", "steps_offset": 1}),
        (Trailing(), {"timestep_spacing": "trailing"}),
    ],
    ids=lambda v: str(v).replace("(", "[").replace(")", "]"),
)
def test_where_schedulers_stop(grid, options, count: int):
    scheduler = diffusers.DDIMScheduler(**BETAS, **options)
    scheduler.set_timesteps(count)
    if int(scheduler.timesteps[0]) > 999:  # diffusers reads beyond its table there
        with pytest.raises(ValueError, match=f"offset: got 1, expected less for {count} steps"):
            grid.times(PATH, count)
        return
    times = grid.times(PATH, count)
    assert times[-1] == 0
    assert [round(t * 1000) - 1 for t in times[:-1].tolist()] == scheduler.timesteps.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 20, 28, 64, 500, 999])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_where_multistep_schedulers_stop(spacing: str, count: int):
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS, timestep_spacing=spacing)
    scheduler.set_timesteps(count)
    times = (Linspace() if spacing == "linspace" else Trailing()).times(PATH, count)
    assert times[-1] == 0
    assert [round(t * 1000) - 1 for t in times[:-1].tolist()] == scheduler.timesteps.tolist()


def test_a_grid_without_index_0_has_one_step_less():
    with pytest.raises(ValueError, match="steps: got 1000, expected at most 999, as index 0 is left out"):
        Linspace().times(PATH, 1000)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("count", [1, 2, 28, 50])
def test_where_the_scheduler_for_flows_stops(shift: float, count: int):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(count)
    times = FlowMatching(shift=shift).times(Linear(), count)
    torch.testing.assert_close(times, scheduler.sigmas, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddpm_clips_as_theirs(monkeypatch, spacing: str):
    scheduler = in_doubles(
        diffusers.DDPMScheduler(**BETAS, clip_sample=True, clip_sample_range=0.7, timestep_spacing=spacing)
    )
    scheduler.set_timesteps(20)
    times = (Leading() if spacing == "leading" else Trailing()).times(PATH, 20).double()
    FixedNoise(monkeypatch, "scheduling_ddpm", 20)
    generator = torch.Generator().manual_seed(1)
    noises = [torch.randn(start().shape, generator=generator, dtype=torch.float64) for _ in range(20)]
    steps = DDPM(clip=(-0.7, 0.7)).run(Arbitrary(), PATH, start(), times, {}, lambda i: noises[i])
    for step, theirs_then in zip(steps, theirs(scheduler, start(), scheduler.timesteps, model_noise), strict=True):
        torch.testing.assert_close(step.xt, theirs_then.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver(order: int):
    """The last step goes to sigma 0 in both (`final_sigmas_type="zero"`).

    Below 15 steps diffusers lowers the order of the last but one step too; ours lowers only the last, which is
    infinite. So the comparison takes 20 steps.
    """
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="dpmsolver++", solver_order=order, final_sigmas_type="zero", lower_order_final=True
    )
    compare(DPMSolverPP(order), fixed_times(scheduler, 20), 20)


def test_sde_dpm_solver(monkeypatch):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="sde-dpmsolver++", solver_order=2, final_sigmas_type="zero"
    )
    FixedNoise(monkeypatch, "scheduling_dpmsolver_multistep", 20)
    compare(SDE(), fixed_times(scheduler, 20), 20)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(order: int):
    scheduler = diffusers.UniPCMultistepScheduler(
        **BETAS, solver_order=order, solver_type="bh2", final_sigmas_type="zero", lower_order_final=True
    )
    compare(UniPC(order), fixed_times(scheduler, 20), 20)


def fixed_times(scheduler, count: int):
    """Make a multistep scheduler, which interpolates sigmas, stop at the published respacing."""
    times = Respaced().times(PATH, count).double()
    indices = [round(t * 1000) - 1 for t in times[:-1].tolist()]
    real = scheduler.set_timesteps

    def set_timesteps(n, **names):
        real(n, **names)
        alphas = scheduler.alphas_cumprod[indices]
        scheduler.timesteps = torch.tensor(indices)
        scheduler.sigmas = torch.cat([((1 - alphas) / alphas).sqrt(), torch.zeros(1, dtype=torch.float64)])

    scheduler.set_timesteps = set_timesteps
    return scheduler


def flow(xt: torch.Tensor, sigma: float) -> torch.Tensor:
    times = torch.full((len(xt),), sigma, dtype=torch.float64)
    return velocity_in(Linear(), xt, Arbitrary().denoise(xt, times, {}).x0, times)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(
    ("sampler", "kind", "options"),
    [
        *((DPMSolverPP(n), "DPMSolverMultistepScheduler", {"solver_order": n}) for n in (1, 2, 3)),
        *((UniPC(n), "UniPCMultistepScheduler", {"solver_order": n, "solver_type": "bh2"}) for n in (1, 2, 3)),
        (SDE(), "DPMSolverMultistepScheduler", {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}),
    ],
    ids=lambda v: str(v).replace("(", "[").replace(")", "]"),
)
def test_multistep_on_the_linear_path(monkeypatch, sampler, kind: str, options, shift: float):
    """diffusers begins just below t = 1, where its log SNR is finite; here ours takes that grid, not t = 1."""
    flows = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    scheduler = getattr(diffusers, kind)(**options, **flows, final_sigmas_type="zero", lower_order_final=True)
    FixedNoise(monkeypatch, "scheduling_dpmsolver_multistep", 20)
    scheduler.set_timesteps(20)
    scheduler.sigmas = scheduler.sigmas.double()
    times, xt = scheduler.sigmas, start()
    assert 0.99 < times[0] < 1 and times[-1] == 0
    generator = torch.Generator().manual_seed(1)
    noises = [torch.randn(start().shape, generator=generator, dtype=torch.float64) for _ in range(20)]
    for i, step in enumerate(sampler.run(Arbitrary(), Linear(), start(), times, {}, lambda i: noises[i])):
        xt = scheduler.step(flow(xt, float(times[i])), scheduler.timesteps[i], xt).prev_sample
        torch.testing.assert_close(step.xt, xt.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift: float):
    """Its sigmas are our times on the linear path."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(12)
    times, xt = scheduler.sigmas.double(), start()
    for i, step in enumerate(Euler().run(Arbitrary(), Linear(), start(), times, {}, lambda i: start())):
        xt = scheduler.step(flow(xt, float(times[i])), scheduler.timesteps[i], xt).prev_sample
        torch.testing.assert_close(step.xt, xt.double(), rtol=1e-5, atol=1e-5)


def test_flow_match_heun():
    """diffusers counts each of the two halves of a step as a step.

    Its HeunDiscreteScheduler takes the trapezoid in sigma / alpha; ours takes it in the coordinate that stays finite at
    pure noise (see `Euler`). On a variance preserving path they differ in the error, which is of second order in both.
    """
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(8)
    every, xt = scheduler.sigmas.double(), start()
    times = torch.cat([every[:1], every[1::2]])
    halves = []
    for i, timestep in enumerate(scheduler.timesteps):
        xt = scheduler.step(flow(xt, float(timestep) / 1000), timestep, xt).prev_sample
        halves.append(xt)
        assert i == len(halves) - 1
    whole = [*halves[1::2], halves[-1]] if len(halves) % 2 else halves[1::2]
    ours = [s.xt for s in Heun().run(Arbitrary(), Linear(), start(), times, {}, lambda i: start())]
    assert len(ours) == len(whole)
    for a, b in zip(ours, whole, strict=True):
        torch.testing.assert_close(a, b.double(), rtol=1e-5, atol=1e-5)
