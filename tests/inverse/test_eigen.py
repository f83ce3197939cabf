"""Exact proximal steps: what they solve, that larger images come to the same, and other sizes in turn."""

import pytest
import torch

from anydit.inverse import eigen
from anydit.inverse.operators import CT, MRI, Operator, SuperResolution


@pytest.mark.parametrize("operator", [CT(views=9), MRI(acceleration=2, center=0.25, coils=3)])
def test_a_step_is_exact_whatever_its_length(operator: Operator):
    """The gradient of gamma |A x - y|^2 + |x - z|^2 is 0, with a gamma for each sample, from tiny to huge."""
    physics, (x, z) = operator.build((1, 12, 10), 0.01), torch.rand(2, 4, 1, 12, 10)
    y, gamma = physics.A(x), torch.tensor([1e-3, 1.0, 1e3, 1e6])[:, None, None, None]
    found = physics.prox_l2(z, y, gamma)
    off = found - z + gamma * physics.A_adjoint(physics.A(found) - y)
    size = (gamma * physics.A_adjoint(y)).flatten(1).norm(dim=1) + z.flatten(1).norm(dim=1)
    assert bool((off.flatten(1).norm(dim=1) < 1e-5 * size).all())


@pytest.mark.parametrize("coils", [1, 3])
def test_what_is_not_measured_stays_however_small_the_noise(coils: int):
    physics, z = MRI(acceleration=4, center=0.1, coils=coils).build((1, 16, 16), 1e-4), torch.rand(1, 1, 16, 16)
    moved = physics.prox_l2(z, physics.A(z), torch.tensor(1e7)) - z
    assert moved.abs().max() < 0.02  # of `z + gamma A* y` rounding times gamma would be left, of the size of z


def test_larger_images_take_conjugate_gradients_and_come_to_the_same(monkeypatch: pytest.MonkeyPatch):
    physics, (x, z) = CT(views=9).build((1, 12, 10), 0.01), torch.rand(2, 2, 1, 12, 10)
    y, gamma = physics.A(x), torch.tensor([1.0, 30.0])[:, None, None, None]
    exact = physics.prox_l2(z, y, gamma)
    monkeypatch.setattr(eigen, "MOST_VALUES", 1)
    torch.testing.assert_close(physics.prox_l2(z, y, gamma), exact, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "operator",
    [CT(views=9), MRI(acceleration=2, center=0.25), MRI(acceleration=2, center=0.25, coils=3), SuperResolution(2)],
)
@pytest.mark.parametrize("most", [1, 4096])
def test_steps_take_what_deepinv_s_own_take(operator: Operator, most: int, monkeypatch: pytest.MonkeyPatch):
    """A number, or one for each image in any shape; and of what is near a number, or nothing."""
    monkeypatch.setattr(eigen, "MOST_VALUES", most)
    physics, z = operator.build((1, 12, 10), 0.01), torch.full((3, 1, 12, 10), 0.5)
    y = physics.A(torch.rand(3, 1, 12, 10))
    expected = physics.prox_l2(z, y, torch.full((3, 1, 1, 1), 2.0))
    for gamma in (2.0, torch.tensor(2.0), torch.full((3,), 2.0)):
        torch.testing.assert_close(physics.prox_l2(z, y, gamma), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(physics.prox_l2(0.5, y, 2.0), expected, atol=1e-4, rtol=1e-4)
    zero = physics.prox_l2(torch.zeros_like(z), y, 2.0)
    torch.testing.assert_close(physics.prox_l2(None, y, 2.0), zero, atol=1e-4, rtol=1e-4)


def test_the_eigenvectors_are_found_once():
    physics = MRI(acceleration=2, center=0.25, coils=3).build((1, 12, 10), 0.01)
    z = torch.rand(1, 1, 12, 10)
    first = physics.prox_l2(z, physics.A(z), torch.tensor(2.0))
    torch.testing.assert_close(first, z, atol=1e-5, rtol=1e-5)
    assert physics.modes is not None
    kept = physics.modes[1]
    physics.prox_l2(z, physics.A(z), torch.tensor(5.0))
    assert physics.modes[1] is kept, "found once"
