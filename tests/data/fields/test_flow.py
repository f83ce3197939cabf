"""The flow solver, against solutions in closed form and its own order; and the data made by it."""

from math import pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.data import Turbulence
from anydit.data.fields.flow import Flow


def grid(n: int) -> tuple[Tensor, Tensor]:
    x = 2 * pi / n * torch.arange(n, dtype=torch.float64)
    return x[:, None], x[None]


def after(flow: Flow, w: Tensor, time: float) -> Tensor:
    (w,) = flow.run(torch.fft.rfft2(w), time, 1)
    return torch.fft.irfft2(w)


def test_eddies_of_taylor_and_green_decay_as_they_must():
    x, y = grid(32)
    reynolds = torch.tensor([10.0, 50.0], dtype=torch.float64)
    w = (2 * torch.cos(x) * torch.cos(y)).expand(2, 32, 32)
    flow = Flow(reynolds, 32, force=0.0, drag=0.3)
    expected = w * torch.exp(-2.0 * (2 / reynolds + 0.3))[:, None, None]
    assert torch.allclose(after(flow, w, 2.0), expected, atol=1e-12)
    u, v = flow.velocity(torch.fft.rfft2(w))[0]  # of the stream function cos x cos y
    assert torch.allclose(u, -torch.cos(x) * torch.sin(y), atol=1e-12)
    assert torch.allclose(v, torch.sin(x) * torch.cos(y), atol=1e-12)


def test_a_wave_is_carried_along_by_a_shear():
    """A weak disturbance of waves along x only, in u = sin y for a short time: dw/dt = -u dw/dx + v laplace u."""
    x, y = grid(64)
    flow = Flow(torch.tensor([1e12], dtype=torch.float64), 64, force=0.0, drag=0.0, step=1e-3)
    small = 1e-6 * torch.cos(3 * x).expand(64, 64)
    shear = -torch.cos(y).expand(64, 64)
    change = (after(flow, (shear + small)[None], 1e-3) - after(flow, shear[None], 1e-3) - small)[0] / 1e-3
    v = 1e-6 * torch.sin(3 * x) / 3  # w = dv/dx
    expected = 1e-6 * 3 * torch.sin(3 * x) * torch.sin(y) + v * -torch.sin(y)
    assert torch.allclose(change, expected.expand(64, 64), atol=2e-8)


def test_the_forced_flow_settles_where_force_and_friction_balance():
    reynolds = torch.tensor([2.0], dtype=torch.float64)
    flow = Flow(reynolds, 32, waves=3, force=0.5, drag=0.2)
    w = after(flow, torch.zeros(1, 32, 32, dtype=torch.float64), 40.0)
    _, y = grid(32)
    u = 0.5 / (9 / 2 + 0.2)
    assert torch.allclose(w[0], (-3 * u * torch.cos(3 * y)).expand(32, 32), atol=1e-4 * u)


def test_without_friction_energy_and_enstrophy_stay():
    flow = Flow(torch.tensor([1e12], dtype=torch.float64), 32, force=0.0, drag=0.0, step=0.01)
    w = flow.start(0)
    (later,) = flow.run(w, 1.0, 1)
    for of in (lambda w: flow.velocity(w).square().mean(), lambda w: torch.fft.irfft2(w).square().mean()):
        assert float(of(later) / of(w)) == pytest.approx(1, abs=1e-6)
    assert float((later - w).abs().max() / w.abs().max()) > 0.05, "it moved"


def test_half_the_step_has_a_sixteenth_of_the_error():
    def run(step: float) -> Tensor:
        flow = Flow(torch.tensor([40.0], dtype=torch.float64), 32, step=step)
        (w,) = flow.run(flow.start(1), 1.0, 1)
        return torch.fft.irfft2(w)

    exact = run(1 / 256)
    coarse, fine = (float((run(step) - exact).abs().max()) for step in (1 / 16, 1 / 32))
    assert 12 < coarse / fine < 20


def test_fewer_points_keep_the_modes_that_they_tell_apart():
    flow = Flow(torch.tensor([40.0], dtype=torch.float64), 32)
    w = flow.start(2)
    whole, same, few = flow.velocity(w), flow.velocity(w, 32), flow.velocity(w, 16)
    assert torch.allclose(whole, same, atol=1e-12)
    a, b = torch.fft.fft2(whole) / 32**2, torch.fft.fft2(few) / 16**2
    k = torch.arange(-7, 8)
    assert torch.allclose(a[..., k % 32, :][..., k % 32], b[..., k % 16, :][..., k % 16], atol=1e-12)
    assert float(b[..., 8, :].abs().max()) < 1e-12


def test_a_velocity_is_that_of_its_vorticity():
    flow = Flow(torch.tensor([40.0, 60.0], dtype=torch.float64), 32)
    w = flow.start(2)
    assert torch.allclose(flow.vorticity(flow.velocity(w)), w, atol=1e-9)
    low = flow.vorticity(flow.velocity(w, 15))
    k = torch.arange(-7, 8)
    assert torch.allclose(low[:, k, :8], w[:, k, :8], atol=1e-9)
    assert float(low.abs().sum()) == pytest.approx(float(w[:, k, :8].abs().sum()))


def test_stirring_alone_makes_vorticity_as_strong_as_it_says():
    """Before anything else matters, its mean square grows by the square of `stir` in a unit of time, everywhere."""
    flow = Flow(torch.full((400,), 1e9, dtype=torch.float64), 16, force=0.0, drag=0.0, stir=0.5)
    still = torch.zeros(400, 16, 9, dtype=torch.complex128)
    first, second = (torch.fft.irfft2(w) for w in flow.run(still, 0.1, 2))
    assert float(first.square().mean()) == pytest.approx(0.25 * 0.1, rel=0.03)
    assert float(second.square().mean()) == pytest.approx(0.25 * 0.2, rel=0.03)
    assert float(first.square().mean(0).std() / first.square().mean()) < 0.1
    assert abs(float((first * (second - first)).mean())) < 0.002, "each interval is stirred anew"
    power = torch.fft.fft2(first).abs().mean(0)
    k = torch.fft.fftfreq(16, 1 / 16)
    length = (k[:, None] ** 2 + k**2).sqrt()
    assert float(power[(length < 1.9) | (length > 6.3)].max()) < 1e-2 * float(power.max())
    (again,), (other,) = flow.run(still, 0.1, 1), flow.run(still, 0.1, 1, seed=1)
    assert torch.equal(torch.fft.irfft2(again), first) and not torch.allclose(other, again)


def test_coefficients_stay_those_of_a_real_field():
    flow = Flow(torch.tensor([60.0], dtype=torch.float64), 32, stir=1.0)
    (w,) = flow.run(flow.start(0), 1.0, 1)
    assert torch.allclose(torch.fft.rfft2(torch.fft.irfft2(w)), w, atol=1e-9)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Turbulence:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path))
    return Turbulence(trajectories=6, states=3, settled=0.5, interval=0.25, points=16, size=(8, 8), held_out=0.4)


def test_data_are_computed_once(small: Turbulence, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train, held = small.open("train"), small.open("held_out")
    assert capsys.readouterr().err.count("Computing 6 turbulent flows") == 1
    assert len(train) + len(held) == 6 * 3 and len(held) % 3 == 0 < len(held)
    assert (train.facts.channels, train.facts.size, train.facts.numbers) == (2, (8, 8), {"numbers": ("reynolds",)})
    batch = train.read(torch.arange(len(train)))
    assert 50 <= float(batch.tensor("numbers").min()) < float(batch.tensor("numbers").max()) <= 200
    assert [file.suffix for file in (tmp_path / "flows").iterdir()] == [".nc"]
    again = Turbulence(**{**vars(small), "past": 1}).open("train")
    assert "Computing" not in capsys.readouterr().err
    assert torch.equal(again.read(torch.tensor([0])).tensor("past"), batch.x[:1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"path": Path("a.nc")}, "data.path: got a.nc"),
        ({"reynolds": (9.0, 3.0)}, "data.reynolds"),
        ({"size": (8, 16)}, "data.size"),
        ({"size": (128, 128)}, "expected a square of 4 to data.points 64"),
        ({"interval": 0.0}, "data.interval"),
        ({"states": 0}, "data.states"),
        ({"past": -1}, "data.past"),
    ],
)
def test_what_cannot_be_computed_is_refused(fields: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Turbulence(**fields)
