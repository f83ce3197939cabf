"""Training times are distributed as they say; sampling grids end at the data."""

import math

import pytest
import torch

from anydit.diffusion.paths import DDPM, Cosine, Linear, LinearBeta
from anydit.diffusion.times import Discrete, Even, Karras, LogitNormal, LogSNR, Respaced, Uniform, shifted, stratified
from anydit.tensors import Stream

U = Stream(0, "u").uniform(0, torch.arange(20_000))


def test_uniform_and_discrete():
    assert torch.equal(Uniform().at(U), U)
    index = (Discrete(10).at(U) * 10).round()
    counts = torch.bincount(index.long(), minlength=11)
    assert counts[0] == 0 and (counts[1:] - 2000).abs().max() < 200
    assert Discrete(4).at(torch.tensor([1e-9, 0.25, 0.2501, 1.0])).tolist() == [0.25, 0.25, 0.5, 1.0]


def test_stratified_times_are_as_even_as_can_be():
    """The largest gap between the empirical and the uniform distribution is below 1/n, for every split of the batch."""
    u = torch.sort(stratified(U[:500], torch.arange(500).flip(0), 500)).values
    edges = torch.arange(500) / 500
    assert ((u - edges).abs() <= 1 / 500 + 1e-6).all()
    t = Discrete(500).at(stratified(U[:500], torch.arange(500), 500))
    assert torch.bincount((t * 500).round().long(), minlength=501)[1:].tolist() == [1] * 500, "each step once"


def test_logit_normal():
    t = LogitNormal(mean=0.3, std=0.8).at(U)
    logit = torch.logit(t.double())
    assert logit.mean().item() == pytest.approx(0.3, abs=0.02) and logit.std().item() == pytest.approx(0.8, abs=0.02)
    assert ((t > 0) & (t < 1)).all()
    moved = LogitNormal(mean=0.3, std=0.8, shift=3.0).at(U)
    torch.testing.assert_close(moved, shifted(t, 3.0), rtol=1e-4, atol=1e-5)


def test_shift_multiplies_the_noise_level():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    s = shifted(t, 4.0)
    assert s[0] == 0 and s[-1] == 1
    torch.testing.assert_close(s[1:-1] / (1 - s[1:-1]), 4 * t[1:-1] / (1 - t[1:-1]))


def test_stratified_puts_one_in_each_stratum():
    u = stratified(U[:64], torch.arange(64), 64)
    assert (torch.ceil(u * 64) - 1).tolist() == list(range(64))
    torch.testing.assert_close(u * 64 - torch.arange(64), U[:64], rtol=0, atol=1e-5)  # within it, still uniform
    halves = [stratified(U[a:b], torch.arange(a, b), 64) for a, b in ((0, 40), (40, 64))]
    assert torch.equal(torch.cat(halves), u), "the same whoever draws which part"


@pytest.mark.parametrize("path", [Linear(), Cosine(), LinearBeta(), DDPM()], ids=str)
@pytest.mark.parametrize("grid", [Even(), Even(shift=3.0), Karras(), LogSNR(), Respaced()], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_grids_fall_to_the_data(path, grid, steps: int):
    times = grid.times(path, steps)
    assert len(times) == steps + 1 and times[-1] == 0
    assert (times.diff() < 0).all() and times[0] <= 1


def test_karras_is_the_published_grid():
    times = Karras().times(Linear(), 18).double()
    sigma = times[:-1] / (1 - times[:-1])
    i = torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("of", [1000, 50, 4000])
def test_respaced_is_the_published_choice(of: int):
    """Walk up in float strides and round, as Nichol & Dhariwal 2021 do for one section; each of the first 1000 counts.

    Sums and products of a stride differ in the last bit, which decides where a place falls on a half: so for 21 steps.
    """
    for count in range(1, min(of, 1000) + 1):
        place, index, stride = 0.0, [], 1.0 if count == 1 else (of - 1) / (count - 1)
        for _ in range(count):
            index.append(round(place))
            place += stride
        ours = Respaced(of).times(DDPM(of), count)
        assert [round(t * of) - 1 for t in ours[:-1].tolist()] == index[::-1] and (ours.diff() < 0).all()


@pytest.mark.parametrize(
    "make",
    [
        *(lambda k=k, v=v: LogitNormal(**{k: v}) for k in ("std", "shift") for v in (0.0, -1.0, math.nan, math.inf)),
        *(lambda v=v: LogitNormal(mean=v) for v in (math.nan, math.inf)),
        *(lambda v=v: Even(shift=v) for v in (0.0, math.nan, math.inf)),
        *(lambda v=v: Karras(rho=v) for v in (0.0, math.nan, math.inf)),
        *(lambda v=v: Karras(sigma_min=1.0, sigma_max=v) for v in (0.5, math.nan, math.inf)),
        *(lambda v=v: LogSNR(low=v, high=-1.0) for v in (1.0, math.nan, -math.inf)),
        lambda: Discrete(0),
        lambda: Respaced(0),
        lambda: Respaced().times(DDPM(), 1001),
        lambda: Respaced(1000).times(DDPM(100), 10),
        lambda: Respaced(100).times(DDPM(1000), 10),
        *(lambda g=g, n=n: g.times(DDPM(), n) for g in (Even(), Karras(), LogSNR(), Respaced()) for n in (0, -1)),
    ],
)
def test_bad_options_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()


@pytest.mark.parametrize("grid", [Karras(sigma_max=1e4), Karras(sigma_max=160.0), LogSNR(low=-20.0)], ids=str)
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_a_grid_beyond_the_path_is_refused(grid, steps: int):
    """Also where only its first stop is: that would be moved unsaid."""
    with pytest.raises(ValueError, match="beyond the path DDPM, which begins at"):
        grid.times(DDPM(), steps)


def test_log_snr_is_even():
    path = Cosine()
    times = LogSNR(low=-3.0, high=3.0).times(path, 13)[:-1].double()
    steps = path.log_snr(times).diff()
    assert steps.std() / steps.mean() < 1e-3 and math.isclose(float(steps.mean()), 0.5, rel_tol=1e-3)
