"""What measures samples, as configs: each builds deepinv's physics for samples of a shape, and noise."""

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any

import torch

from anydit.config import check_at_least, config

if TYPE_CHECKING:
    import deepinv

Shape = tuple[int, ...]


@config
class Operator(ABC):
    """Builds the physics of samples `[c, *space]` on the scale on which the data's bounds are 0 and 1."""

    def build(self, shape: Shape, sigma: float, device: torch.device | str = "cpu") -> "deepinv.physics.LinearPhysics":
        """The physics, with Gaussian noise of deviation `sigma` on what it measures.

        Raises:
            ValueError: samples that it cannot measure, noise of no size, or deepinv is missing.
        """
        if not 0 < sigma < inf:
            raise ValueError(f"sigma: got {sigma}, expected a finite deviation above 0")
        noise = _deepinv().physics.GaussianNoise(sigma, rng=torch.Generator(device).manual_seed(0))
        return self._build(shape, noise, device)

    @abstractmethod
    def _build(self, shape: Shape, noise: Any, device: torch.device | str) -> "deepinv.physics.LinearPhysics":
        """The physics with that model of noise."""


@config
class MRI(Operator):
    """Magnetic resonance: columns of k-space, `[n, 2, (coils,) *space]` with real and imaginary parts.

    Samples have one channel, which is real, or two, real and imaginary. `acceleration`: how many times fewer columns
    are measured than there are. `center`: the share of columns in the middle that all are measured; at least one is.
    `coils`: 1 is alike everywhere; more lie on a ring about the sample. `seed`: of the columns.
    """

    acceleration: float = 4.0
    center: float = 0.08
    coils: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("acceleration", self.acceleration, 1)
        check_at_least("coils", self.coils, 1)
        if not 0 < self.center <= 1 / self.acceleration:
            raise ValueError(
                f"center: got {self.center}, expected above 0 and at most {1 / self.acceleration:g}, the share of "
                f"columns that an acceleration of {self.acceleration:g} measures"
            )

    def _build(self, shape: Shape, noise: Any, device: torch.device | str) -> "deepinv.physics.LinearPhysics":
        from anydit.inverse import physics

        check_axes(self, shape, (2, 3))
        check_complex(shape)
        columns = physics.random_columns(shape[-1], self.acceleration, self.center, self.seed)
        maps = physics.ring(self.coils, shape[1:]) if self.coils > 1 else None
        return physics.mri(columns.expand(shape[1:]), maps, shape[0], noise, device)


@config
class CT(Operator):
    """Tomography: parallel projections from `views` directions over half a turn, `[n, c, detector, view]`.

    Each is a mean along lines, over as many pixels as the longer side of an image has.
    """

    views: int = 30

    def __post_init__(self) -> None:
        check_at_least("views", self.views, 1)

    def _build(self, shape: Shape, noise: Any, device: torch.device | str) -> "deepinv.physics.LinearPhysics":
        from anydit.inverse import physics

        check_axes(self, shape, (2,))
        return physics.Projections((shape[1], shape[2]), self.views, noise, device)


@config
class Inpainting(Operator):
    """A part of the places, the same in all channels, `[n, c, *space]` with 0 elsewhere.

    `known`: the share of places that are measured. `seed`: of the places.
    """

    known: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("known", self.known)

    def _build(self, shape: Shape, noise: Any, device: torch.device | str) -> "deepinv.physics.LinearPhysics":
        return _places(shape, self.known, self.seed, noise, device)


@config
class Sensors(Operator):
    """Few points of a field, at which all of its channels are measured, `[n, c, *space]` with 0 elsewhere.

    `share`: of the points, that have a sensor. `seed`: of where they are.
    """

    share: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def _build(self, shape: Shape, noise: Any, device: torch.device | str) -> "deepinv.physics.LinearPhysics":
        return _places(shape, self.share, self.seed, noise, device)


@config
class SuperResolution(Operator):
    """Fewer, larger places: means over blocks, `[n, c, *space / factor]`.

    `factor`: how many places along each axis make a block.
    """

    factor: int = 4

    def __post_init__(self) -> None:
        check_at_least("factor", self.factor, 2)

    def _build(self, shape: Shape, noise: Any, device: torch.device | str) -> "deepinv.physics.LinearPhysics":
        from anydit.inverse import physics

        if any(n % self.factor for n in shape[1:]):
            raise ValueError(f"factor: got {self.factor}, expected one that divides the samples' size {shape[1:]}")
        return physics.BlockMeans(self.factor, noise, device)


@config
class Deblurring(Operator):
    """Images seen out of focus, `[n, c, h, w]`: a Gaussian, around whose edges an image goes on at its other side.

    `width`: the Gaussian's deviation, in pixels.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        check_at_least("width", self.width, 0.3)

    def _build(self, shape: Shape, noise: Any, device: torch.device | str) -> "deepinv.physics.LinearPhysics":
        check_axes(self, shape, (2,))
        reach = min(min(shape[1:]) - 1, 6 * int(self.width + 1)) // 2
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / self.width) ** 2)
        filter = (line[:, None] * line)[None, None] / line.sum() ** 2
        return _deepinv().physics.BlurFFT(shape, filter.to(device), noise_model=noise, device=device)


AnyOperator = MRI | CT | Inpainting | SuperResolution | Deblurring | Sensors


def check_axes(operator: Operator, shape: Shape, axes: tuple[int, ...]) -> None:
    """Refuse samples with another number of axes of space than the operator measures."""
    if len(shape) - 1 not in axes:
        expected = " or ".join(map(str, axes))
        raise ValueError(
            f"physics: got {type(operator).__name__} of samples of size {shape[1:]}, expected ones with {expected} axes"
        )


def check_complex(shape: Shape) -> None:
    """Refuse samples that are neither real nor complex."""
    if shape[0] not in (1, 2):
        raise ValueError(
            f"channels: got {shape[0]}, expected 1, which MRI takes as real, or 2, as real and imaginary part"
        )


def check_share(name: str, value: float) -> None:
    """Refuse a share that leaves nothing to be measured."""
    if not 0 < value <= 1:
        raise ValueError(f"{name}: got {value}, expected above 0 and at most 1")


def _places(
    shape: Shape, share: float, seed: int, noise: Any, device: torch.device | str
) -> "deepinv.physics.LinearPhysics":
    from anydit.inverse import physics

    mask = physics.random_places(shape[1:], share, seed)
    return _deepinv().physics.Inpainting(shape, mask.to(device), noise_model=noise, device=device)


def _deepinv() -> Any:
    try:
        import deepinv
    except ImportError:
        raise ValueError("physics: needs deepinv, which is missing; pip install 'anydit[inverse]'") from None
    return deepinv
