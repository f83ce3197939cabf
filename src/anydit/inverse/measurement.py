"""What was measured: by which physics of deepinv's, with how much noise, and what that says of a sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.tensors import per_sample

FITS, HALVINGS = (1e-4, 1e6), 16
"""How wide samples may be about what they are made to fit from, as squares in those of the noise; how exactly."""


TOO_LARGE = 5.0
"""Times the norm of a white image's measurement, above which one is on another scale; data may leave their bounds."""


@runtime_checkable
class AnyPhysics(Protocol):
    """What is asked of any operator; all of deepinv's have it."""

    def A(self, x: Tensor, /) -> Tensor:  # noqa: N802
        """Measures `x`, without noise."""
        ...


@runtime_checkable
class Physics(AnyPhysics, Protocol):
    """What is asked of a linear operator; deepinv's `LinearPhysics` has all of it."""

    def A_adjoint(self, y: Tensor, /) -> Tensor:  # noqa: N802
        """The transpose of `A`."""
        ...

    def prox_l2(self, z: Tensor, y: Tensor, gamma: Tensor, /) -> Tensor:
        """The x that makes gamma |A x - y|^2 + |x - z|^2 least."""
        ...


def refuse_changes(change_of: str | None) -> None:
    """Measurements are of samples, and not of what is added to one that is known.

    Raises:
        ValueError: a model draws its samples as changes.
    """
    if change_of is not None:
        raise ValueError(f"change_of: got {change_of}, expected a model that draws whole samples")


@dataclass(frozen=True)
class Measurement:
    """`y = A x + sigma noise` of samples `x` on a unit scale, on which the data's `bounds` are 0 and 1.

    `bounds`: None where the data's own scale is that of the physics. Measurements are one to a sample.
    """

    y: Float[Tensor, "b ..."]
    physics: AnyPhysics
    sigma: float
    bounds: tuple[float, float] | None = None

    @property
    def linear(self) -> Physics:
        """The physics, which has to be linear."""
        assert isinstance(self.physics, Physics), "checked before"
        return self.physics

    def unit(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """Samples on the data's own scale, as the physics has them."""
        low, high = self.bounds or (0.0, 1.0)
        return (x - low) / (high - low)

    def own(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """The inverse of `unit`."""
        low, high = self.bounds or (0.0, 1.0)
        return low + (high - low) * x

    def rows(self, rows: Tensor) -> "Measurement":
        """The measurements of some samples."""
        return Measurement(self.y[rows], self.physics, self.sigma, self.bounds)

    def closer(
        self, x: Float[Tensor, "b c *space"], variance: Float[Tensor, " b"], y: Tensor | None = None
    ) -> Float[Tensor, "b c *space"]:
        """The mean, given what was measured, of samples that are normal about `x`, all on the unit scale.

        `variance`: of each of their values. `y`: in place of what was measured.
        """
        gamma = per_sample(variance / self.sigma**2, x)
        return self.linear.prox_l2(x, self.y if y is None else y, gamma)

    def fitted(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """The nearest to samples on the data's own scale whose residual is 1; those that have less stay as they are.

        Noise explains a residual of 1: what fits better than that follows the noise (Morozov's discrepancy principle).
        So do those that cannot fit however far they move: there the physics is not quite that of the measurement.
        """
        least, most = (torch.full((len(x),), log(v * self.sigma**2), device=x.device) for v in FITS)
        unit, off = self.unit(x), self.residual(x) > 1
        if bool(off.any()):
            off &= self.residual(self.own(self.closer(unit, most.exp()))) <= 1
        if not bool(off.any()):
            return x
        for _ in range(HALVINGS):
            middle = (least + most) / 2
            above = self.residual(self.own(self.closer(unit, middle.exp()))) > 1
            least, most = torch.where(above, middle, least), torch.where(above, most, middle)
        return torch.where(per_sample(off, x), self.own(self.closer(unit, most.exp())), x)

    def residual(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
        """How far samples on the data's own scale are from what was measured, in deviations of its noise.

        1 is what the noise alone explains; of complex measurements both parts count, and of masked ones only what is
        measured: where a measurement and what it should be both are 0, nothing is.
        """
        there = self.physics.A(self.unit(x))
        off, somewhere = there - self.y, (there != 0) | (self.y != 0)
        parts = 2 if off.is_complex() else 1
        count = parts * somewhere.flatten(1).sum(1).clamp(min=1)
        return (off.abs().square().flatten(1).sum(1) / count).sqrt() / self.sigma


def checked(
    y: Tensor,
    physics: AnyPhysics,
    sigma: float | None,
    shape: tuple[int, ...],
    bounds: tuple[float, float] | None,
    linear: bool = True,
) -> Measurement:
    """A measurement of samples of `shape` (`[c, *space]`), refused where the physics or the noise contradict it.

    `sigma`: None takes what the physics' own noise model says. `linear`: whether the physics has to be.

    Raises:
        ValueError: noise of no size, another shape or kind of numbers than the physics measures, values that are not
            finite or on another scale, physics that measures nothing or is not linear but has to be.
    """
    expected = "a linear operator of deepinv's; DPS takes others, too" if linear else "an operator of deepinv's"
    if not isinstance(physics, Physics if linear else AnyPhysics):
        raise ValueError(f"physics: got {type(physics).__name__}, expected {expected}")
    if sigma is None:
        told = getattr(getattr(physics, "noise_model", None), "sigma", None)
        if told is None:
            raise ValueError("sigma: got None, and the physics has no Gaussian noise; expected the noise's deviation")
        sigma = _one_sigma(told, type(physics.noise_model).__name__)  # pyright: ignore
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma: got {sigma}, expected a finite deviation above 0")
    generator = torch.Generator().manual_seed(0)
    like = torch.rand(1, *shape, generator=generator).to(y.device)
    try:
        sketch = physics.A(like)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise ValueError(f"physics: got {error}, expected an operator on samples of shape {shape}") from error
    if not bool(sketch.abs().max() > 0):
        raise ValueError("physics: got an operator that measures nothing, as a mask without any place is")
    if linear and not is_linear(physics, like, sketch):
        raise ValueError(f"physics: got {type(physics).__name__}, which is not linear; expected {expected}")
    if y.is_complex() != sketch.is_complex():
        names = {True: "complex", False: "real"}
        raise ValueError(f"y: got {names[y.is_complex()]} numbers, expected {names[sketch.is_complex()]} ones")
    if tuple(y.shape[1:]) != tuple(sketch.shape[1:]):
        expected = f"[n, {', '.join(map(str, sketch.shape[1:]))}], which the physics makes of samples of {shape}"
        raise ValueError(f"y: got shape {tuple(y.shape)}, expected {expected}")
    if not bool(torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()):
        raise ValueError("y: got NaN or infinity, expected finite values")
    if linear and bounds is not None:
        _refuse_too_large(y, sigma, [sketch, physics.A(torch.ones_like(like))], bounds)
    return Measurement(y, physics, sigma, bounds)


def _refuse_too_large(y: Tensor, sigma: float, like: Sequence[Tensor], bounds: tuple[float, float]) -> None:
    """Refuse what images on the unit scale can hardly be measured as; `like`: as which a random and a white one are."""
    usual = max(float(each.abs().square().sum().sqrt()) for each in like)
    noise = 2 * sigma * (y[0].numel() * (2 if y.is_complex() else 1)) ** 0.5
    times = (float(y.abs().square().flatten(1).sum(1).max().sqrt()) - noise) / usual
    if times > TOO_LARGE:
        raise ValueError(
            f"y: got values {times:.3g} times as large as of a white image, expected those of images on the scale on "
            f"which the data's bounds, {bounds[0]:g} and {bounds[1]:g}, are 0 and 1"
        )


def _one_sigma(told: Tensor | float, model: str) -> float:
    """The deviation of a model of noise, refused where it is not Gaussian or not alike everywhere."""
    if model.endswith("Noise") and model != "GaussianNoise":
        raise ValueError(
            f"sigma: got None, and noise of {model}, expected GaussianNoise, or the deviation nearest to it"
        )
    values = torch.as_tensor(told).flatten()
    if not bool((values == values[0]).all()):
        raise ValueError(f"sigma: got {len(values)} that differ, expected one deviation for all; call once for each")
    return float(values[0])


def is_linear(physics: AnyPhysics, x: Float[Tensor, "b c *space"], y: Tensor) -> bool:
    """Whether the physics, which makes `y` of `x`, makes minus three times that of minus three times `x`."""
    return torch.allclose(physics.A(-3 * x), -3 * y, rtol=1e-3, atol=1e-3 * float(y.abs().max()))
