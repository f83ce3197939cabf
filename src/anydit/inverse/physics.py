"""Physics beside deepinv's own: MRI of real images, coils of a ring, projections of any image, means over blocks.

This module needs deepinv; `pip install 'anydit[inverse]'` brings it.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import deepinv
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Shaped
from torch import Tensor

from anydit.inverse.eigen import Eigen, proximal

ITERATIONS, TOLERANCE = 300, 1e-5
"""Of conjugate gradients, where an operator has no closed form: they end at either."""

RING = 1.5
"""How far from the middle simulated coils lie, in halves of the image."""


class OfReal(Eigen):
    """MRI of images with one, real channel; measurements are as those of the `mri` that it wraps.

    `prox_l2` is exact for one coil: of a real image the spectrum at -k is the conjugate of that at k, so that what is
    measured of it is the mask averaged over both, and diagonal.
    """

    share: Tensor

    def __init__(self, mri: deepinv.physics.MRI | deepinv.physics.MultiCoilMRI) -> None:
        super().__init__(noise_model=cast("Any", mri.noise_model), implicit_backward_solver=False, max_iter=ITERATIONS,
                         tol=TOLERANCE)  # fmt: skip
        self.mri, mask = mri, cast("Tensor", mri.mask)[:, :1].square()
        self.axes = tuple(range(2 - mask.ndim, 0))
        mask = torch.fft.ifftshift(mask, dim=self.axes)
        back = torch.roll(mask.flip(self.axes), (1,) * len(self.axes), self.axes)
        self.register_buffer("share", (mask + back) / 2)

    def A(self, x: Tensor, **_: object) -> Tensor:  # noqa: N802
        return self.mri.A(torch.cat([x, torch.zeros_like(x)], dim=1))

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:  # noqa: N802
        return self.mri.A_adjoint(y)[:, :1]

    def noise(self, x: Tensor, **_: object) -> Tensor:
        return self.mri.noise(x)

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: Tensor | float, *_: object, **__: object) -> Tensor:
        if not isinstance(self.mri, deepinv.physics.MRI):
            return super().prox_l2(z, y, gamma)
        z, gamma = proximal(self, z, y, gamma)
        share = torch.where(self.share > 0, gamma / (1 + gamma * self.share), 0)  # of what is not measured: rounding
        move = torch.fft.fftn(self.A_adjoint(y - self.A(z)), dim=self.axes) * share
        return z + torch.fft.ifftn(move, dim=self.axes).real


class Projections(Eigen, deepinv.physics.Tomography):
    """Parallel projections of images that need not be square, `[n c detector view]`, in means over the longer side.

    A line through that many pixels of value 1 measures 1.
    """

    def __init__(self, size: tuple[int, int], views: int, noise_model: Any, device: torch.device | str) -> None:
        self.size = size
        super().__init__(views, max(size), normalize=False, noise_model=noise_model, device=device, max_iter=ITERATIONS,
                         tol=TOLERANCE, implicit_backward_solver=False)  # fmt: skip

    def A(self, x: Tensor, **_: object) -> Tensor:  # noqa: N802
        top, left = ((self.img_width - n) // 2 for n in x.shape[2:])
        around = (left, self.img_width - x.shape[3] - left, top, self.img_width - x.shape[2] - top)
        return super().A(F.pad(x, around)) / self.img_width

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:  # noqa: N802
        return self._inside(super().A_adjoint(y))

    def fbp(self, y: Tensor, **_: object) -> Tensor:
        return super().fbp(y) * self.img_width**2

    def _inside(self, x: Tensor) -> Tensor:
        top, left = ((self.img_width - n) // 2 for n in self.size)
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]


class Framed(Eigen):
    """Physics of larger images, of which samples are the middle: there is nothing around them."""

    def __init__(self, inner: deepinv.physics.LinearPhysics, size: tuple[int, ...], larger: tuple[int, ...]) -> None:
        super().__init__(noise_model=cast("Any", inner.noise_model), implicit_backward_solver=False,
                         max_iter=ITERATIONS, tol=TOLERANCE)  # fmt: skip
        self.inner, self.size, self.larger = inner, size, larger

    def A(self, x: Tensor, **_: object) -> Tensor:  # noqa: N802
        return self.inner.A(middle(x, self.larger))

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:  # noqa: N802
        return middle(self.inner.A_adjoint(y), self.size)

    def noise(self, x: Tensor, **_: object) -> Tensor:
        return self.inner.noise(x)


class Turned(deepinv.physics.LinearPhysics):
    """Physics of samples whose axes are others than those of `inner`'s: `back` turns samples to these, `forth` back."""

    def __init__(
        self, inner: deepinv.physics.LinearPhysics, back: Callable[[Tensor], Tensor], forth: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(noise_model=cast("Any", inner.noise_model), implicit_backward_solver=False)
        self.inner, self.back, self.forth = inner, back, forth

    def A(self, x: Tensor, **_: object) -> Tensor:  # noqa: N802
        return self.inner.A(self.back(x))

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:  # noqa: N802
        return self.forth(self.inner.A_adjoint(y))

    def noise(self, x: Tensor, **_: object) -> Tensor:
        return self.inner.noise(x)

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: Tensor | float, *_: object, **__: object) -> Tensor:
        z, gamma = proximal(self, z, y, gamma)
        return self.forth(self.inner.prox_l2(self.back(z), y, gamma))


def middle(x: Shaped[Tensor, "b c *space"], size: tuple[int, ...]) -> Shaped[Tensor, "b c *size"]:
    """As much of `x` about its middle, that of a Fourier transform, as `size` holds; 0 where it holds more."""
    edges = list[int]()
    for n, m in zip(x.shape[2:], size, strict=True):
        before = m // 2 - n // 2
        edges = [before, m - n - before, *edges]
    return F.pad(x, edges)


class BlockMeans(deepinv.physics.LinearPhysics):
    """Fewer, larger places: means over blocks of `factor` places along each axis."""

    def __init__(self, factor: int, noise_model: Any, device: torch.device | str) -> None:
        super().__init__(noise_model=noise_model, device=device)
        self.factor = factor

    def A(self, x: Tensor, **_: object) -> Tensor:  # noqa: N802
        for axis in range(2, x.ndim):
            x = x.unflatten(axis, (-1, self.factor)).mean(axis + 1)
        return x

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:  # noqa: N802
        for axis in range(2, y.ndim):
            y = y.repeat_interleave(self.factor, axis) / self.factor
        return y

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: Tensor | float, *_: object, **__: object) -> Tensor:
        z, gamma = proximal(self, z, y, gamma)
        one = self.factor ** (2 - z.ndim)  # A times its transpose
        return z + gamma / (1 + gamma * one) * self.A_adjoint(y - self.A(z))


def mri(
    mask: Bool[Tensor, "*space"],
    maps: Complex[Tensor, "coils *space"] | None,
    channels: int,
    noise_model: Any,
    device: torch.device | str,
) -> deepinv.physics.LinearPhysics:
    """MRI of images with one, real channel, or with two, real and imaginary; `maps` of coils, None of one alike."""
    options = {"three_d": mask.ndim == 3, "noise_model": noise_model, "device": device}
    mask = mask[None, None].float()
    if maps is None:
        one = deepinv.physics.MRI(mask, **options)
    else:
        one = deepinv.physics.MultiCoilMRI(
            mask, maps[None], max_iter=ITERATIONS, tol=TOLERANCE, implicit_backward_solver=False, **options
        )
    return OfReal(one).to(device) if channels == 1 else one


def ring(coils: int, size: tuple[int, ...]) -> Complex[Tensor, "coils *size"]:
    """Sensitivities of coils on a ring about the image, as straight wires through its last two axes have them.

    A wire's field falls with the distance and turns with the direction; squares of all coils add up to 1.
    """
    rows, columns = (torch.linspace(-1, 1, n) for n in size[-2:])
    at = torch.complex(*torch.meshgrid(rows, columns, indexing="ij"))
    turns = torch.polar(torch.ones(coils), 2 * math.pi * torch.arange(coils) / coils)[:, None, None]
    field = turns / (at - RING * turns)
    maps = field / field.abs().square().sum(0).sqrt()
    return maps.reshape(coils, *(1,) * (len(size) - 2), *size[-2:]).expand(coils, *size).contiguous()


def random_columns(columns: int, acceleration: float, center: float, seed: int) -> Bool[Tensor, " columns"]:
    """Which columns of k-space are measured: a share `center` in its middle and others at random, 1/`acceleration`."""
    count = max(1, round(columns / acceleration))
    inner = min(count, max(1, round(center * columns)))
    first = columns // 2 - inner // 2
    mask = torch.zeros(columns, dtype=torch.bool)
    mask[first : first + inner] = True
    free = (~mask).nonzero()[:, 0]
    order = torch.randperm(len(free), generator=torch.Generator().manual_seed(seed))
    mask[free[order[: count - inner]]] = True
    return mask


def random_places(size: tuple[int, ...], share: float, seed: int) -> Float[Tensor, "1 *size"]:
    """1 at a share of the places, the same in all channels, 0 elsewhere."""
    places = torch.zeros(math.prod(size))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    places[order[: max(1, round(share * len(places)))]] = 1
    return places.reshape(1, *size)
