"""Operators: transposes, proximal steps that solve what they should, what they measure, and what they refuse."""

import deepinv
import pytest
import torch

from anydit.inverse.operators import CT, MRI, Deblurring, Inpainting, Sensors, SuperResolution
from anydit.inverse.physics import random_columns, ring

SIGMA = 0.02

CASES = [
    (MRI(), (1, 12, 16)),
    (MRI(), (1, 9, 11)),
    (MRI(acceleration=2), (2, 8, 16)),
    (MRI(coils=4), (1, 12, 16)),
    (MRI(coils=3), (2, 9, 12)),
    (MRI(), (1, 6, 8, 10)),
    (MRI(coils=4), (1, 6, 8, 10)),
    (CT(views=12), (1, 16, 16)),
    (CT(views=9), (2, 12, 17)),
    (Inpainting(), (3, 8, 8)),
    (Inpainting(), (1, 6, 8, 10)),
    (Sensors(share=0.2), (2, 8, 8)),
    (SuperResolution(factor=2), (3, 8, 12)),
    (SuperResolution(factor=2), (1, 4, 6, 8)),
    (SuperResolution(), (1, 16)),
    (Deblurring(), (3, 16, 12)),
]


def ids(case):
    return f"{type(case).__name__}" if not isinstance(case, tuple) else "x".join(map(str, case))


@pytest.mark.parametrize(("operator", "shape"), CASES, ids=ids)
@pytest.mark.parametrize("mode", [False, True], ids=["plain", "inference"])
def test_transpose_and_proximal_step(operator, shape, mode):
    with torch.inference_mode(mode):
        physics = operator.build(shape, SIGMA)
        assert isinstance(physics, deepinv.physics.LinearPhysics)
        x = torch.randn(3, *shape)
        assert physics.adjointness_test(x).item() < 1e-5
        y, z = physics(torch.rand(3, *shape)), torch.randn(3, *shape)
        gamma = torch.tensor([1e-2, 1.0, 1e3]).view(3, *(1,) * len(shape))
        near = physics.prox_l2(z, y, gamma)
        wanted = gamma * physics.A_adjoint(y) + z
        off = gamma * physics.A_adjoint(physics.A(near)) + near - wanted
    assert bool((off.flatten(1).norm(dim=1) < 1e-4 * wanted.flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize(("operator", "shape"), CASES, ids=ids)
def test_a_gradient_passes_through_it(operator, shape):
    x = torch.rand(1, *shape, requires_grad=True)
    physics = operator.build(shape, SIGMA)
    physics.A(x).square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * physics.A_adjoint(physics.A(x.detach())), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("operator", "shape"), CASES, ids=ids)
def test_noise_is_where_something_is_measured(operator, shape):
    physics = operator.build(shape, SIGMA)
    clean = physics.A(torch.ones(64, *shape))
    noise = (physics(torch.ones(64, *shape)) - clean).flatten(1)
    somewhere = (noise != 0).any(0)
    assert noise[:, somewhere].std().item() == pytest.approx(SIGMA, rel=0.15)
    seen = (physics.A(torch.randn(8, *shape)).flatten(1) != 0).any(0)
    assert not bool((seen & ~somewhere).any())


@pytest.mark.parametrize("acceleration", [1, 2, 4, 8])
def test_columns_are_as_many_as_asked_for_and_the_middle_is_whole(acceleration):
    mask = random_columns(64, acceleration, 0.08, seed=3)
    assert int(mask.sum()) == 64 // acceleration
    assert bool(mask[30:35].all()), "five columns, with that of frequency 0 in the middle"
    assert torch.equal(mask, random_columns(64, acceleration, 0.08, seed=3))
    if acceleration > 1:
        assert not torch.equal(mask, random_columns(64, acceleration, 0.08, seed=4))


def test_fully_sampled_k_space_is_the_centred_orthonormal_transform():
    x = torch.rand(1, 1, 6, 8)
    y = MRI(acceleration=1, center=1).build((1, 6, 8), SIGMA).A(x)
    shifted = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x[:, 0], dim=(1, 2)), norm="ortho"), dim=(1, 2))
    torch.testing.assert_close(torch.view_as_complex(y.movedim(1, -1).contiguous()), shifted)


def test_squares_of_coils_add_up_to_one_and_each_sees_its_side_best():
    maps = ring(4, (9, 9))
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(9, 9))
    brightest = [divmod(int(one.abs().argmax()), 9) for one in maps]
    assert [brightest[0][0], brightest[1][1], brightest[2][0], brightest[3][1]] == [8, 8, 0, 0]


def test_a_projection_is_a_mean_over_the_longer_side():
    y = CT(views=2).build((1, 8, 12), SIGMA).A(torch.ones(1, 1, 8, 12))
    down, across = y[0, 0, :, 0], y[0, 0, :, 1]
    assert down.max().item() == pytest.approx(8 / 12, rel=1e-3)
    assert across.max().item() == pytest.approx(1, rel=1e-3)


def test_filtered_projections_are_the_image():
    x = torch.zeros(1, 1, 32, 24)
    x[:, :, 8:20, 6:16] = 1
    physics = CT(views=180).build((1, 32, 24), SIGMA)
    back = physics.A_dagger(physics.A(x), fbp=True)
    assert back.shape == x.shape
    assert back[0, 0, 10:18, 8:14].mean().item() == pytest.approx(1, abs=0.05)


def test_places_are_the_same_in_all_channels():
    y = Sensors(share=0.25).build((3, 8, 8), SIGMA).A(torch.ones(1, 3, 8, 8))
    assert torch.equal(y[:, 0], y[:, 2]) and int(y[0, 0].sum()) == 16


def test_blocks_are_means():
    y = SuperResolution(factor=2).build((1, 4, 4), SIGMA).A(torch.arange(16.0).view(1, 1, 4, 4))
    torch.testing.assert_close(y, torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))


def test_blur_keeps_the_mean_and_spreads_a_point_by_its_width():
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16, 16] = 1
    y = Deblurring(width=2).build((1, 32, 32), SIGMA).A(x)[0, 0]
    assert y.sum().item() == pytest.approx(1, abs=1e-4)
    at = torch.arange(32.0) - 16
    assert (y.sum(0) * at).sum().item() == pytest.approx(0, abs=1e-3), "and it stays where it is"
    assert (y.sum(0) * at**2).sum().sqrt().item() == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MRI(acceleration=0.5), "acceleration: got 0.5, expected at least 1"),
        (lambda: MRI(acceleration=8, center=0.3), "center: got 0.3, expected above 0 and at most 0.125"),
        (lambda: MRI(coils=0), "coils: got 0"),
        (lambda: CT(views=0), "views: got 0"),
        (lambda: Inpainting(known=0.0), "known: got 0.0, expected above 0 and at most 1"),
        (lambda: Sensors(share=1.5), "share: got 1.5"),
        (lambda: SuperResolution(factor=1), "factor: got 1"),
        (lambda: Deblurring(width=0.0), "width: got 0.0"),
        (lambda: MRI().build((1, 8, 8), 0.0), "sigma: got 0.0, expected a finite deviation above 0"),
        (lambda: MRI().build((1, 8, 8), -1.0), "sigma: got -1.0"),
        (lambda: MRI().build((3, 8, 8), 0.1), "channels: got 3, expected 1, which MRI takes as real, or 2"),
        (lambda: MRI().build((1, 8), 0.1), r"physics: got MRI of samples of size \(8,\), expected ones with 2 or 3"),
        (lambda: CT().build((1, 4, 4, 4), 0.1), "physics: got CT"),
        (lambda: SuperResolution(factor=3).build((1, 8, 8), 0.1), "factor: got 3, expected one that divides"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
