"""Raw lines in ISMRMRD's layout, in files that its own library writes: what k-space they make, and what is refused."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
import torch
from ismrmrd import xsd

from anydit.inverse.scan.files import read
from anydit.inverse.scan.kspace import KSpace, spectra, together
from tests.inverse.scan.test_files import image

READ, PHASES = 32, 16
COILS = torch.tensor([0.6, 0.8j]).view(1, 2, 1, 1)


def header(
    size: tuple[int, int, int] = (READ, PHASES, 1), trajectory: str = "cartesian", encodings: int = 1, **more: Any
) -> str:
    """Of an image of 48 x 24 mm, or `mm`, whose readout shows twice as much; `more`: of the encoding."""
    along, across = more.pop("mm", (48.0, 24.0))
    encoded, shown = (
        xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=n, y=size[1], z=size[2]),
            fieldOfView_mm=xsd.fieldOfViewMm(x=mm, y=across, z=4.5 * size[2]),
        )
        for n, mm in ((size[0], 2 * along), (size[0] // 2, along))
    )
    limits = xsd.encodingLimitsType(kspace_encoding_step_1=more.pop("limit", None))
    one = xsd.encodingType(
        encodedSpace=encoded, reconSpace=shown, encodingLimits=limits, trajectory=xsd.trajectoryType(trajectory), **more
    )
    frequency = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63_500_000)
    receiver = xsd.acquisitionSystemInformationType(relativeReceiverNoiseBandwidth=0.5)
    return xsd.ismrmrdHeader(
        experimentalConditions=frequency, encoding=[one] * encodings, acquisitionSystemInformation=receiver
    ).toXML()


def line(data: np.ndarray, phase: int, slice: int = 0, *flags: int, **more: Any) -> ismrmrd.Acquisition:
    """One line `[coils, samples]`, centred unless something else is said."""
    told = {"center_sample": data.shape[1] // 2, "sample_time_us": 4.0} | more
    made = ismrmrd.Acquisition.from_array(data.astype(np.complex64), **told)
    made.idx.kspace_encode_step_1, made.idx.slice = phase, slice
    for flag in flags:
        made.set_flag(flag)
    return made


def write_raw(path: Path, lines: Iterable[ismrmrd.Acquisition], xml: str | None, group: str = "dataset") -> Path:
    """A file of these lines."""
    with ismrmrd.Dataset(str(path), group) as file:
        if xml is not None:
            file.write_xml_header(xml)
        for one in lines:
            file.append_acquisition(one)
    return path


def scanned(n: int = 2) -> torch.Tensor:
    """k-space `[n, coils, readout, phase]` whose readout shows twice as much as the image has; no line is quite 0."""
    x = 1e-6 * torch.randn(n, 1, READ, PHASES, generator=torch.Generator().manual_seed(0))
    x[:, 0, READ // 4 : READ // 4 + READ // 2] += image(n, READ // 2, PHASES)
    return spectra(x * COILS)


def lines(y: torch.Tensor, phases: Iterable[int] = range(PHASES), *flags: int) -> list[ismrmrd.Acquisition]:
    return [line(y[i, :, :, j].numpy(), j, i, *flags) for j in phases for i in range(len(y))]


def found(path: Path, axes: int = 2) -> KSpace:
    k = read(path, axes)
    assert isinstance(k, KSpace)
    return k


def test_slices_come_together_without_what_the_readout_shows_beyond_them(tmp_path: Path):
    k = found(write_raw(tmp_path / "a.h5", lines(scanned()), header()))
    assert k.y.shape == (2, 2, READ // 2, PHASES) and k.whole and k.noise is None
    torch.testing.assert_close(k.y, spectra(image(2, READ // 2, PHASES)[:, None] * COILS), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together(k.y)[:, 0], image(2, READ // 2, PHASES), atol=1e-5, rtol=1e-5)
    assert k.place is not None and k.place.spacing == pytest.approx((3.0, 1.5, 4.5))


@pytest.mark.parametrize("embedded", [True, False])
def test_lines_for_calibration_are_of_the_image_where_they_are_embedded(tmp_path: Path, embedded: bool):
    y, mode = scanned(), xsd.calibrationModeType.EMBEDDED if embedded else xsd.calibrationModeType.SEPARATE
    factor = xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1)
    xml = header(parallelImaging=xsd.parallelImagingType(accelerationFactor=factor, calibrationMode=mode))
    both = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING
    some = [
        *lines(y, range(0, PHASES, 2)),
        *lines(y, [7, 9], ismrmrd.ACQ_IS_PARALLEL_CALIBRATION),
        *lines(y, [11], both),
    ]
    some += lines(99 * y, [13], ismrmrd.ACQ_IS_NAVIGATION_DATA)
    k = found(write_raw(tmp_path / "a.h5", some, xml))
    measured = {*range(0, PHASES, 2), 11, *((7, 9) if embedded else ())}
    assert k.mask.any(0).nonzero()[:, 0].tolist() == sorted(measured)
    assert float(k.y.abs().max()) < 2 * float(y.abs().max())


def test_a_line_that_is_not_whole_is_put_about_frequency_0(tmp_path: Path):
    """A readout that begins late and ends with samples to discard, phases counted from -3."""
    y, early = scanned(1), READ // 2 - 6
    some = [
        line(np.pad(y[0, :, early:, j].numpy(), ((0, 0), (1, 2)), constant_values=99), j + 3, 0,
             center_sample=7, discard_pre=1, discard_post=2)
        for j in range(PHASES - 3)
    ]  # fmt: skip
    limit = xsd.limitType(minimum=3, maximum=PHASES - 1, center=PHASES // 2 + 3)
    k = found(write_raw(tmp_path / "a.h5", some, header(limit=limit)))
    assert k.mask.shape == (READ, PHASES), "not cut, where that would not be exact"
    torch.testing.assert_close(k.y[0, :, early:, : PHASES - 3], y[0, :, early:, : PHASES - 3])
    assert not bool(k.mask[:early].any()) and not bool(k.mask[:, PHASES - 3 :].any())


def test_measured_noise_is_made_white_and_averages_lower_it(tmp_path: Path):
    """Noise lines are sampled twice as fast, and the receiver lets half of that through: as much as the image has."""
    mixed = np.array([[3e-3, 0], [2e-3 + 1e-3j, 1e-3]])

    def made(signal: np.ndarray) -> KSpace:
        rng = np.random.default_rng(0)
        draw = lambda n: mixed @ (rng.standard_normal((2, n)) + 1j * rng.standard_normal((2, n)))  # noqa: E731
        some = [line(draw(20_000), 0, 0, ismrmrd.ACQ_IS_NOISE_MEASUREMENT, sample_time_us=2.0)]
        some += [line(signal[:, :, j] + draw(READ), j) for _ in range(4) for j in range(PHASES)]
        return found(write_raw(tmp_path / f"{signal.max().real}.h5", some, header()))

    y = scanned(1)[0].numpy()
    nothing, something = made(0 * y), made(y)
    assert nothing.noise == pytest.approx(0.5)
    noise = nothing.y[0].flatten(1)
    covariance = noise @ noise.mH / noise.shape[1]
    torch.testing.assert_close(covariance, 2 * 0.5**2 * torch.eye(2, dtype=torch.complex64), atol=0.1, rtol=0)
    shown = spectra(image(1, READ // 2, PHASES)[:, None] * COILS)[0].numpy()
    expected = torch.from_numpy(np.einsum("ij,jab->iab", np.linalg.inv(mixed), shown)).to(torch.complex64)
    off = (something.y - nothing.y)[0] - expected
    assert float(off.norm()) < 0.03 * float(expected.norm())


def test_partitions_are_a_third_axis(tmp_path: Path):
    x = torch.randn(1, 1, 8, 4, 6, dtype=torch.complex64)
    some = list[ismrmrd.Acquisition]()
    for j in range(4):
        for k in range(6):
            some.append(line(x[0, :, :, j, k].numpy(), j))
            some[-1].idx.kspace_encode_step_2 = k
    got = found(write_raw(tmp_path / "a.h5", some, header((8, 4, 6))), axes=3)
    assert got.y.shape == (1, 1, 4, 4, 6) and got.place and got.place.spacing == pytest.approx((12.0, 6.0, 4.5))


@pytest.mark.parametrize(("apart", "code"), [(0.0, 1), (40.0, 0)])
def test_volumes_have_a_place_where_it_is_one(apart: float, code: int, tmp_path: Path):
    some = list[ismrmrd.Acquisition]()
    for volume, j, k in np.ndindex(2, 4, 6):
        some.append(line(np.ones((1, 8), np.complex64), j, volume, position=(10.0, 20.0, 30.0 + apart * volume)))
        some[-1].idx.kspace_encode_step_2 = k
        for name, to in (("read_dir", (1, 0, 0)), ("phase_dir", (0, 1, 0)), ("slice_dir", (0, 0, 1))):
            setattr(some[-1], name, to)
    place = found(write_raw(tmp_path / "a.h5", some, header((8, 4, 6))), axes=3).place
    assert place is not None and place.code == code and place.spacing == pytest.approx((12.0, 6.0, 4.5))


def turned(y: torch.Tensor) -> list[ismrmrd.Acquisition]:
    some = lines(y)
    some[3] = ismrmrd.Acquisition.from_array(some[3].data, np.zeros((READ, 2), np.float32))
    return some


Y = scanned()


@pytest.mark.parametrize(
    ("some", "xml", "message"),
    [
        (lines(Y), None, "xml: got .* without a header"),
        (lines(Y), "<ismrmrdHeader>", "header in .* that cannot be read"),
        (lines(Y), header(trajectory="radial"), "trajectory: got radial, expected cartesian"),
        (lines(Y), header(encodings=2), "encoding: got 2 of them"),
        (lines(Y), header((READ, PHASES, 4)), r"encodedSpace: got \(32, 16, 4\), expected one"),
        (lines(Y), header((2**15, 2**15, 2)), "at most"),
        (lines(Y), header((READ // 2, PHASES, 1)), r"data: got a line over -8 to 24 at 0, 0 .* within \(16, 16, 1\)"),
        (lines(Y), header((READ, 8, 1)), "data: got a line over 0 to 32 at 8, 0"),
        (turned(Y), header(), "traj: got lines with a trajectory"),
        (lines(Y, range(PHASES), ismrmrd.ACQ_IS_REVERSE), header(), "run backwards"),
        (lines(Y, range(PHASES), ismrmrd.ACQ_IS_NOISE_MEASUREMENT), header(), "no line of an image"),
        (lines(Y)[:-1], header(), "other lines were measured"),
        ([*lines(Y), line(Y[0, :1, :, 0].numpy(), 0)], header(), r"active_channels: got \[1, 2\]"),
        (
            [*lines(Y), line(np.ones((1, 9)), 0, 0, ismrmrd.ACQ_IS_NOISE_MEASUREMENT)],
            header(), "noise of other coils than the image's 2",
        ),
        (
            [*lines(Y), line(np.ones((2, 9)), 0, 0, ismrmrd.ACQ_IS_NOISE_MEASUREMENT)],
            header(), "9 samples of noise that do not tell 2 coils apart",
        ),
    ],
)  # fmt: skip
def test_what_is_not_one_cartesian_image_is_refused(some, xml, message, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        read(write_raw(tmp_path / "a.h5", some, xml), 2)


def test_a_file_of_two_measurements_is_refused(tmp_path: Path):
    for group in ("first", "second"):
        write_raw(tmp_path / "a.h5", lines(Y), header(), group)
    with pytest.raises(ValueError, match=r"with first, second, expected kspace, .* or one ISMRMRD dataset"):
        read(tmp_path / "a.h5", 2)
