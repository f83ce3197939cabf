"""k-space as scanners give it: which of it is measured, what its coils see, how noisy and how bright it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import deepinv
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from anydit.inverse.operators import MRI
from anydit.inverse.physics import Framed, Turned, middle, mri, random_columns
from anydit.inverse.scan.place import Place, Turn

CENTER = 12
"""From coils' maps frequencies are left out that are farther than this from 0: coils are smooth."""

BRIGHT = 0.995
"""The part of an image that is at most white."""

PADDED = 0.3
"""The part of an axis, at its two ends together, that is zero-padding at most; more is not measured."""

SKEWED = 0.05
"""The part of an axis by which padding at one end may be more than at the other; more was left out by the scanner."""

SCATTERED = 0.1
"""The part of the lines that were measured at which values may be 0 by chance; where there are more, nothing was."""

CORNERED = 10.0
"""How many times as strong as its middle the corners of k-space are that was not shifted."""

OUTER = 0.1
"""The part of k-space at its edges, along each axis, in which there is nothing but noise."""


@dataclass(frozen=True)
class KSpace:
    """Centred k-space of `n` slices or volumes, 0 where `mask` says that nothing was measured, and what is known of it.

    `truth`: the image in the file, if any. `place`: where images lie, if the file says it. `noise`: its deviation in
    real and imaginary parts, if it was measured.
    """

    y: Complex[Tensor, "n coils *space"]
    mask: Bool[Tensor, "*space"]
    truth: Float[Tensor, "n 1 *smaller"] | None = None
    place: Place | None = None
    noise: float | None = None

    @property
    def whole(self) -> bool:
        """Whether everything was measured, but for the zeros that scanners pad k-space with at both its edges."""
        inner = self.mask
        for axis, n in enumerate(self.mask.shape):
            others = tuple(other for other in range(self.mask.ndim) if other != axis)
            there = self.mask.any(others).nonzero()[:, 0] if others else self.mask.nonzero()[:, 0]
            first, length = int(there[0]), int(there[-1] - there[0]) + 1
            if length < (1 - PADDED) * n or abs(n - length - 2 * first) > max(2, SKEWED * n):
                return False
            inner = inner.narrow(axis, first, length)
        return bool(inner.all())


def kspace(
    y: Tensor, axes: int, mask: Tensor | None = None, truth: Tensor | None = None, place: Place | None = None
) -> KSpace:
    """Complex numbers `[n (coils) *space]` or `[*space]` as k-space; the mask is given, or its zeros tell it.

    Raises:
        ValueError: another number of axes, none of some axis, values that are not finite, frequency 0 at its corners,
            or a mask that measures nothing, is of another size, or leaves out what was measured.
    """
    if not axes <= y.ndim <= axes + 2 or not y.numel():
        size = ", ".join("dhw"[-axes:])
        raise ValueError(f"k-space: got shape {tuple(y.shape)}, expected [n, coils, {size}], [n, {size}] or [{size}]")
    if not bool(torch.view_as_real(y.resolve_conj()).isfinite().all()):
        raise ValueError("k-space: got NaN or infinity, expected finite values")
    y = y.reshape(-1, y.shape[-axes - 1] if y.ndim == axes + 2 else 1, *y.shape[-axes:]).to(torch.complex64)
    if mask is not None:
        mask = checked_mask(mask, tuple(y.shape[2:]))
        y = y * mask
    there = measured_of(y, mask)
    _refuse_cornered(y, there)
    return KSpace(y, there, truth, place)


def _refuse_cornered(y: Complex[Tensor, "n coils *space"], there: Bool[Tensor, "*space"]) -> None:
    """Refuse k-space whose low frequencies are at its corners, as those of a transform that was not shifted are."""
    energy = y.abs().square().sum((0, 1))
    middle = tuple(slice(n // 2 - n // 8, n // 2 + n // 8 + 1) for n in energy.shape)
    inner, corners = float(energy[middle].sum()), float(torch.fft.fftshift(energy)[middle].sum())
    if bool(there[tuple(n // 2 for n in energy.shape)]) and corners > CORNERED * inner:
        raise ValueError(
            "k-space: got one whose corners are stronger than its middle, expected frequency 0 in the middle: "
            "np.fft.fftshift of a transform of np.fft.ifftshift of the image"
        )


def checked_mask(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """A mask of places, or of columns, for k-space of a size.

    Raises:
        ValueError: it is of another size, or measures nothing.
    """
    mask = mask != 0
    if tuple(mask.shape) not in (size, size[-1:]):
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected {size}, or {size[-1:]} for columns")
    if not bool(mask.any()):
        raise ValueError("mask: got one that measures nothing, expected that it is not 0 somewhere")
    return mask.expand(size)


def measured_of(
    y: Complex[Tensor, "n coils *space"], mask: Bool[Tensor, "*space"] | None = None
) -> Bool[Tensor, "*space"]:
    """Where anything was measured: where k-space is 0 in all coils of all slices, nothing was.

    Whole lines of zeros are padding or lost, whatever `mask` says; zeros elsewhere are values where it says so, and
    without one where they are few and scattered.

    Raises:
        ValueError: it is 0 everywhere.
    """
    there = (y != 0).flatten(0, 1).any(0)
    if not bool(there.any()):
        raise ValueError("k-space: got zeros alone, expected that something is measured")
    lines = torch.stack([there.any(axis, keepdim=True).expand(there.shape) for axis in range(there.ndim)]).all(0)
    if mask is not None:
        return mask & lines
    return lines if bool(there[lines].float().mean() > 1 - SCATTERED) else there


def images(y: Complex[Tensor, "n coils *space"]) -> Complex[Tensor, "n coils *space"]:
    """The centred, orthonormal inverse transform."""
    axes = tuple(range(2, y.ndim))
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(y, dim=axes), dim=axes, norm="ortho"), dim=axes)


def spectra(x: Complex[Tensor, "n coils *space"]) -> Complex[Tensor, "n coils *space"]:
    """The inverse of `images`."""
    axes = tuple(range(2, x.ndim))
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, dim=axes), dim=axes, norm="ortho"), dim=axes)


def together(y: Complex[Tensor, "n coils *space"]) -> Float[Tensor, "n 1 *space"]:
    """The magnitude of the images of all coils together, by the root of their squares."""
    return images(y).abs().square().sum(1, keepdim=True).sqrt()


def narrowed(k: KSpace, size: Sequence[int]) -> KSpace:
    """k-space of the middle of its images, along axes that are measured whole and are longer than `size`: exactly so.

    Scanners read out more than the image along one axis; fastMRI's twice as much.

    Raises:
        ValueError: `size` is larger.
    """
    there = tuple(k.mask.shape)
    if any(n < m for n, m in zip(there, size, strict=True)):
        raise ValueError(f"k-space: got a size of {there}, expected at least the model's {tuple(size)}")
    same = [bool((k.mask == k.mask.narrow(axis, 0, 1)).all()) for axis in range(len(there))]
    inner = tuple(m if alike else n for n, m, alike in zip(there, size, same, strict=True))
    if inner == there:
        return k
    mask = k.mask
    for axis, n in enumerate(inner):
        mask = mask.narrow(axis, 0, n) if n < mask.shape[axis] else mask
    y = spectra(middle(images(k.y), inner)) * mask
    return replace(k, y=y, mask=mask, place=k.place and k.place.narrowed(there, inner))


def respaced(k: KSpace, size: Sequence[int]) -> KSpace:
    """k-space of the same images in `size` voxels: of fewer its middle, of more with zeros about it, exactly so.

    Values of images stay in their numbers. What a file showed of them has other voxels, and is left out.
    """
    there, after = tuple(k.mask.shape), tuple(size)
    if there == after:
        return k
    share = (prod(after) / prod(there)) ** 0.5
    place = k.place and k.place.respaced(there, after)
    mask = middle(k.mask[None, None], after)[0, 0]
    return KSpace(share * middle(k.y, after), mask, None, place, None if k.noise is None else share * k.noise)


def maps_respaced(maps: Complex[Tensor, "m coils *space"], size: Sequence[int]) -> Complex[Tensor, "m coils *size"]:
    """Maps of coils at the voxels that `respaced` makes; linear between those that there were, as coils are smooth."""
    there, after = tuple(maps.shape[2:]), tuple(size)
    if there == after:
        return maps
    lines = [((torch.arange(n) - n // 2) * (m / n) + m // 2) * 2 / max(m - 1, 1) - 1
             for n, m in zip(after, there, strict=True)]  # fmt: skip
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1).expand(len(maps), *after, len(after))
    real, imag = (F.grid_sample(part.contiguous(), grid, padding_mode="border", align_corners=True)
                  for part in (maps.real, maps.imag))  # fmt: skip
    return torch.complex(real, imag)


def undersampled(k: KSpace, operator: MRI) -> KSpace:
    """Whole k-space as the operator would have measured it."""
    columns = random_columns(k.mask.shape[-1], operator.acceleration, operator.center, operator.seed)
    mask = k.mask & columns
    return replace(k, y=k.y * mask, mask=mask)


def maps_of(k: KSpace) -> Complex[Tensor, "n coils *space"]:
    """What each coil sees, with the phase of the image, from the middle of k-space, where all of it is measured.

    Images of low resolution over their magnitude together (McKenzie 2002, self-calibrating SENSE): with them the image
    is real, and is that of `together`. Nothing here is ESPIRiT, whose maps may be given instead.

    Raises:
        ValueError: k-space is not measured at frequency 0.
    """
    low = _coarse(k)
    return normalised(low, beyond=low.shape[1] ** -0.5)


def normalised(maps: Complex[Tensor, "m coils *space"], beyond: float = 0.0) -> Complex[Tensor, "m coils *space"]:
    """Maps over their magnitude together, so that images are those of `together`; `beyond` where coils see nothing."""
    total = maps.abs().square().sum(1, keepdim=True).sqrt()
    return torch.where(total > 1e-6 * total.max(), maps / total.clamp(min=1e-30), beyond)


def phased(maps: Complex[Tensor, "m coils *space"], k: KSpace) -> Complex[Tensor, "n coils *space"]:
    """Maps of coils with the phase of the image: with them the image is real. One for all, or one for each.

    Raises:
        ValueError: k-space is not measured at frequency 0.
    """
    low = (maps.conj() * _coarse(k)).sum(1, keepdim=True)
    return maps * torch.polar(torch.ones_like(low.abs()), low.angle())


def _coarse(k: KSpace) -> Complex[Tensor, "n coils *space"]:
    """Images of low resolution, of the middle of k-space alone, where all of it is measured."""
    window = torch.ones(())
    for axis, n in enumerate(k.mask.shape):
        reach = _reach(k.mask, axis)
        at = (torch.arange(n) - n // 2).abs() / (reach + 1)
        line = torch.where(at < 1, 0.5 * (1 + torch.cos(torch.pi * at)), 0)
        window = window * line.reshape(-1, *(1,) * (k.mask.ndim - 1 - axis))
    return images(k.y * window.to(k.y.device))


def _reach(mask: Bool[Tensor, "*space"], axis: int) -> int:
    """How far from frequency 0, to both sides along an axis, everything is measured; at most `CENTER`."""
    at = [n // 2 for n in mask.shape]
    line = mask[tuple(slice(None) if i == axis else n for i, n in enumerate(at))]
    zero = at[axis]
    if not bool(line[zero]):
        raise ValueError("mask: got one without the middle of k-space, expected the frequencies near 0 to be measured")
    most = min(CENTER, zero, len(line) - 1 - zero)
    return next((r for r in range(most) if not bool(line[zero - r - 1] and line[zero + r + 1])), most)


def noise_of(k: KSpace) -> float:
    """The deviation of the noise in real and imaginary parts, from the outermost frequencies if it was not measured.

    The median of magnitudes there, as a normal distribution has it: what is left of the image makes it no smaller.
    """
    if k.noise is not None:
        return k.noise
    outer = torch.zeros_like(k.mask)
    for axis, n in enumerate(k.mask.shape):
        edge = max(1, round(OUTER * n / 2))
        outer = outer | _at_edges(n, edge).reshape(-1, *(1,) * (k.mask.ndim - 1 - axis))
    there = k.y[:, :, outer & k.mask if bool((outer & k.mask).any()) else k.mask]
    return float(torch.view_as_real(there).abs().median()) / 0.6745


def _at_edges(n: int, edge: int) -> Bool[Tensor, " n"]:
    at = torch.arange(n)
    return (at < edge) | (at >= n - edge)


def brightness(k: KSpace) -> float:
    """What counts as white in the images that k-space shows by itself."""
    values = together(k.y).flatten()
    return float(values.kthvalue(max(1, round(BRIGHT * len(values)))).values)


def physics_of(
    k: KSpace, maps: Complex[Tensor, "coils *space"] | None, shape: tuple[int, ...], noise: object, turn: Turn
) -> deepinv.physics.LinearPhysics:
    """The physics of samples that are the middle of what k-space shows, turned; `shape`: of these along its axes."""
    there = tuple(k.mask.shape)
    inner = mri(k.mask, maps, shape[0], noise, k.y.device)
    inner = inner if there == shape[1:] else Framed(inner, shape[1:], there)
    return inner if turn.nothing else Turned(inner, turn.back, turn.forth)


def parts(y: Complex[Tensor, "n coils *space"], one: bool) -> Float[Tensor, "n 2 ..."]:
    """k-space as deepinv has it, with real and imaginary parts; `one`: without an axis of coils."""
    return torch.view_as_real(y[:, 0] if one else y).movedim(-1, 1).contiguous()
