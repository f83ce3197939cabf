"""Raw lines of Cartesian k-space, as ISMRMRD's files have them (Inati 2017, doi 10.1002/mrm.26089), put together.

This module needs ismrmrd; `pip install 'anydit[inverse]'` brings it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import torch
from jaxtyping import Complex, Int

from anydit.data.volumes.medical import LPS_TO_RAS
from anydit.inverse.scan.kspace import KSpace, kspace, narrowed
from anydit.inverse.scan.place import Place

ASIDE = (
    ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
    ismrmrd.ACQ_IS_NAVIGATION_DATA,
    ismrmrd.ACQ_IS_PHASECORR_DATA,
    ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION,
)
"""What lines that are of no image are marked with."""

MOST = 2**30
"""Values of k-space that a header can ask for."""

EVEN = 1e-2
"""In mm, and of directions' products: within it distances of slices are alike, and directions at right angles."""


@dataclass(frozen=True)
class Encoding:
    """Where lines belong: in k-space of `size`, along readout, phase and partition, with frequency 0 in its middle.

    `shown`: how long the readout is without what lies beyond the image. `zero`: the phase and the partition of
    frequency 0. `spacing`: in mm. `embedded`: whether lines for calibration are of the image, too. `bandwidth`: that of
    the receiver's noise, as a share of what the time between samples says.
    """

    size: tuple[int, int, int]
    shown: int
    zero: tuple[int, int]
    spacing: tuple[float, ...]
    embedded: bool
    bandwidth: float

    @classmethod
    def of(cls, header: Any) -> "Encoding":
        """That of a file's header.

        Raises:
            ValueError: there are several, it is not Cartesian, or it is of no size or of more than can be.
        """
        if len(header.encoding) != 1:
            raise ValueError(f"encoding: got {len(header.encoding)} of them in one file, expected one")
        (one,) = header.encoding
        if one.trajectory.value != "cartesian":
            raise ValueError(f"trajectory: got {one.trajectory.value}, expected cartesian")
        size, field = (_xyz(part) for part in (one.encodedSpace.matrixSize, one.encodedSpace.fieldOfView_mm))
        shown = one.reconSpace.fieldOfView_mm.x / field[0] if field[0] > 0 else 0.0
        if min(*size, *field, shown) <= 0 or prod(size) > MOST:
            raise ValueError(f"encodedSpace: got {size} values over {field} mm, expected more than 0, at most {MOST}")
        limits = one.encodingLimits.kspace_encoding_step_1, one.encodingLimits.kspace_encoding_step_2
        zero = tuple(n // 2 if limit is None else limit.center for n, limit in zip(size[1:], limits, strict=True))
        mode, system = getattr(one.parallelImaging, "calibrationMode", None), header.acquisitionSystemInformation
        return cls(
            size, min(size[0], round(shown * size[0])), zero,
            spacing=tuple(mm / n for mm, n in zip(field, size, strict=True)),
            embedded=getattr(mode, "value", None) == "embedded",
            bandwidth=getattr(system, "relativeReceiverNoiseBandwidth", None) or 1.0,
        )  # fmt: skip

    def shows(self, line: Any) -> bool:
        """Whether a line is of the image."""
        if any(line.is_flag_set(flag) for flag in ASIDE):
            return False
        return self.embedded or not line.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)

    def place(self, line: Any) -> tuple[slice, int, int]:
        """Where in k-space a line belongs.

        Raises:
            ValueError: beyond it.
        """
        (read, phase, partition), at = self.size, line.idx
        first = read // 2 - line.center_sample + line.discard_pre
        last = first + line.number_of_samples - line.discard_pre - line.discard_post
        j = at.kspace_encode_step_1 - self.zero[0] + phase // 2
        k = at.kspace_encode_step_2 - self.zero[1] + partition // 2
        if not (0 <= first < last <= read and 0 <= j < phase and 0 <= k < partition):
            raise ValueError(
                f"data: got a line over {first} to {last} at {j}, {k} of k-space, expected one within {self.size}"
            )
        return slice(first, last), j, k


def read_raw(path: Path, group: str, axes: int) -> KSpace:
    """The lines of a file as k-space, `[n coils readout phase (partition)]`, frequency 0 in the middle.

    `n` counts slices, and echoes, phases, sets and repetitions, where there are several. Lines that were measured more
    than once are averaged. Noise, where it was measured, is made independent between coils and of deviation 1; then
    values are in its units. Of the readout what lies beyond the image is cut off. Where images lie is as lines say it.
    `axes`: of space, that samples have.

    Raises:
        ValueError: there is no header or no image, lines are not Cartesian, run backwards, or are of different coils or
            at different places in each image, or the encoding is of another number of axes.
    """
    header, lines = _content(path, group)
    encoding = Encoding.of(header)
    if (encoding.size[2] > 1) != (axes == 3):
        raise ValueError(f"encodedSpace: got {encoding.size}, expected {'several partitions' if axes == 3 else 'one'}")
    image = _checked([line for line in lines if encoding.shows(line)])
    whiten = _whitening([one for one in lines if one.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)], image[0], encoding)
    y, count = _together(image, encoding)
    if whiten is not None:
        y = np.einsum("ij,nj...->ni...", whiten, y)
    if axes == 2:
        y, count = y[..., 0], count[..., 0]
    k = kspace(torch.from_numpy(y), axes, torch.from_numpy(count > 0), None, _place(image, encoding, axes))
    k = replace(k, noise=None if whiten is None else float(count[count > 0].min()) ** -0.5)
    return narrowed(k, (encoding.shown, *k.mask.shape[1:]))


def _content(path: Path, group: str) -> tuple[Any, list[Any]]:
    """Header and lines of a file."""
    with ismrmrd.Dataset(path, group, mode="r") as file:
        try:
            header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        except LookupError:
            raise ValueError(f"xml: got {path} without a header, which ISMRMRD's files have") from None
        except (ValueError, TypeError, SyntaxError) as error:
            raise ValueError(f"xml: got a header in {path} that cannot be read: {error}") from None
        return header, [file.read_acquisition(i) for i in range(int(file.number_of_acquisitions() or 0))]


def _checked(lines: list[Any]) -> list[Any]:
    """Refuse lines that are not of one Cartesian image."""
    if not lines:
        raise ValueError("data: got no line of an image, expected some beside noise and calibration")
    if any(line.trajectory_dimensions for line in lines):
        raise ValueError("traj: got lines with a trajectory of their own, expected Cartesian ones")
    if any(line.is_flag_set(ismrmrd.ACQ_IS_REVERSE) for line in lines):
        raise ValueError("flags: got lines that run backwards, as those of EPI, expected ones along the readout")
    if len(coils := {line.active_channels for line in lines}) > 1:
        raise ValueError(f"active_channels: got {sorted(coils)} in one file, expected the same coils in all lines")
    return lines


def _together(
    lines: Sequence[Any], encoding: Encoding
) -> tuple[Complex[np.ndarray, "n coils *size"], Int[np.ndarray, "*size"]]:
    """Means of what was measured at each place, and how often that was."""
    images = {which: i for i, which in enumerate(_images(lines))}
    if len(images) * lines[0].active_channels * prod(encoding.size) > MOST:
        raise ValueError(f"encodedSpace: got {len(images)} images of {encoding.size}, expected at most {MOST} values")
    y = np.zeros((len(images), lines[0].active_channels, *encoding.size), np.complex64)
    count = np.zeros((len(images), *encoding.size), np.int64)
    for line in lines:
        i, (along, j, k) = images[_which(line)], encoding.place(line)
        y[i, :, along, j, k] += line.data[:, line.discard_pre : line.number_of_samples - line.discard_post]
        count[i, along, j, k] += 1
    if not ((count > 0) == (count[0] > 0)).all():
        raise ValueError("data: got images of which other lines were measured, expected the same lines of all")
    return y / np.maximum(count, 1)[:, None], count.min(0)


def _images(lines: Sequence[Any]) -> dict[tuple[int, ...], Any]:
    """What tells images apart, in their order, and a line of each."""
    return dict(sorted({_which(line): line for line in lines}.items(), key=lambda each: each[0]))


def _which(line: Any) -> tuple[int, ...]:
    at = line.idx
    return at.repetition, at.phase, at.set, at.contrast, at.slice


def _place(lines: Sequence[Any], encoding: Encoding, axes: int) -> Place:
    """Where images lie, as the lines' directions and the places of images' middles say, to the left, back and top.

    Of slices that do not lie above each other at even distances, as of several echoes, or of volumes in several places,
    the spacing alone is told.
    """
    each = [*_images(lines).values()]
    turned = {tuple(np.round([*one.read_dir, *one.phase_dir, *one.slice_dir], 4)) for one in each}
    directions = np.array(turned.pop()).reshape(3, 3).T
    middles = np.array([one.position for one in each], np.float64)
    steps, slices = np.diff(middles, axis=0), axes == 2  # several volumes are one only where they are in one place
    across = directions[:, 2] * (steps[0] @ directions[:, 2] if slices and len(steps) else encoding.spacing[2])
    uneven = np.abs(steps - (across if slices else 0)).max(initial=0) > EVEN or np.abs(across).max() <= EVEN
    if turned or uneven or not np.allclose(directions.T @ directions, np.eye(3), atol=EVEN):
        return Place.spaced(encoding.spacing)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([directions[:, :2] * encoding.spacing[:2], across])
    affine[:3, 3] = middles[0] - affine[:3, :axes] @ [n // 2 for n in encoding.size[:axes]]
    return Place(LPS_TO_RAS @ affine, 1)


def _whitening(noise: Sequence[Any], like: Any, encoding: Encoding) -> Complex[np.ndarray, "coils coils"] | None:
    """What makes noise independent between coils and of deviation 1 in real and imaginary parts; None without any.

    Lines of an image that are sampled faster or slower have more or less of it (Kellman 2005, doi 10.1002/mrm.20713).
    """
    if not noise:
        return None
    coils = like.active_channels
    if any(line.active_channels != coils for line in noise):
        raise ValueError(f"data: got noise of other coils than the image's {coils}, expected the same")
    values = np.concatenate([line.data for line in noise], axis=1).astype(np.complex128)
    covariance = values @ values.conj().T / values.shape[1]
    times = like.sample_time_us, noise[0].sample_time_us
    share = times[0] / times[1] * encoding.bandwidth if min(times) > 0 else 1.0
    try:
        return np.linalg.inv(np.linalg.cholesky(covariance)) * np.sqrt(2 * share)
    except np.linalg.LinAlgError:
        raise ValueError(f"data: got {values.shape[1]} samples of noise that do not tell {coils} coils apart") from None


def _xyz(three: Any) -> tuple[Any, Any, Any]:
    return three.x, three.y, three.z
