"""k-space comes to a model's samples with every value at its place, and back: turned, and at their spacing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
import torch

from anydit.data import SliceView
from anydit.inverse.classical import plainly
from anydit.inverse.operators import MRI
from anydit.inverse.scan.acquired import of_kspace
from anydit.inverse.scan.grid import Grid
from anydit.inverse.scan.kspace import KSpace, images, maps_respaced, respaced, spectra
from anydit.inverse.scan.place import Fit, Place, Turn
from anydit.inverse.scan.source import Source, opened
from tests.cli.test_reconstruct import AXES
from tests.inverse.scan.test_kspace import SCALE, acquired, of_size, ring
from tests.inverse.scan.test_raw import PHASES, READ, found, header, line, write_raw

AXIAL = SliceView(low=0, high=200, affine=AXES, code=1, unit="mm")
"""A model's slices, to the right and the front, 2 x 1.5 mm."""

TO_FRONT, TO_LEFT, UP = (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
"""As ISMRMRD has them: to the left, back and top."""


def shown() -> torch.Tensor:
    """Two slices `[n, readout, phase]` of which no part is like another."""
    x = torch.rand(2, READ // 2, PHASES, generator=torch.Generator().manual_seed(0))
    return x * torch.hann_window(READ // 2)[:, None]  # no more than the readout shows


def scanned(folder: Path, directions: Any = (TO_FRONT, TO_LEFT, UP), rise: float = 5.0) -> Path:
    """Those slices, of 24 x 32 mm and `rise` mm above each other, in a readout twice as long."""
    wide = torch.zeros(2, 1, READ, PHASES)
    wide[:, 0, READ // 4 : -READ // 4] = shown()
    some = list[ismrmrd.Acquisition]()
    for i, y in enumerate(spectra(wide.to(torch.complex64))):
        for j in range(PHASES):
            place = tuple(np.array([10.0, 20.0, 30.0]) + rise * i * np.array(directions[2]))
            some.append(line(y[:, :, j].numpy(), j, i, position=place))
            for name, to in zip(("read_dir", "phase_dir", "slice_dir"), directions, strict=True):
                setattr(some[-1], name, to)
    return write_raw(folder / "a.h5", some, header(mm=(24.0, 32.0)))


def test_what_lies_otherwise_than_the_model_s_data_is_turned_and_comes_back_to_its_place(tmp_path: Path):
    pipe = of_size(12, 16)
    pipe.config = pipe.config.__class__(**{**vars(pipe.config), "view": AXIAL})
    source = Source(scanned(tmp_path), sigma=1e-3, scale=100.0)
    task, origin = opened(pipe, source, MRI(acceleration=1, center=1))
    assert any("axes are turned to the model's, RA" in note for note in task.notes)
    first, second = (plainly(task.measured(job, pipe, slice(None))) / 100 for job in task.jobs)
    expected = shown().transpose(1, 2).flip(1)[:, None, 2:14]  # its columns run to the left, the model's rows right
    torch.testing.assert_close(torch.cat([first, second]), expected, atol=0.02, rtol=0.02)
    scan = origin.scan(torch.cat([first, second]) * 100, AXIAL)
    assert scan.code == 1 and scan.unit == "mm"
    np.testing.assert_allclose(scan.values[0, 0], shown()[:, :, 2:14].movedim(0, -1), atol=0.03)
    middle = scan.affine @ [8, 6, 1, 1]
    np.testing.assert_allclose(middle, [-10, -20, 35, 1], atol=1e-5, err_msg="of the second slice's field of view")
    step = scan.affine @ [9, 6, 1, 1] - middle, scan.affine @ [8, 7, 1, 1] - middle
    np.testing.assert_allclose(step, [[0, 1.5, 0, 0], [-2, 0, 0, 0]], atol=1e-5)


@pytest.mark.parametrize(("size", "after"), [((24, 30), (12, 15)), ((12, 15), (24, 30))])
def test_another_spacing_shows_the_same_at_the_same_places(size: tuple[int, int], after: tuple[int, int]):
    """Exactly so, of images that the coarser spacing can hold: what is shared by both grids has the same values."""
    affine = np.array([[0, 2.0, 0, 5], [1.0, 0, 0, -3], [0, 0, 4, 7], [0, 0, 0, 1]])
    y = torch.zeros(1, 1, *size, dtype=torch.complex64)
    y[..., size[0] // 2 - 5 : size[0] // 2 + 6, size[1] // 2 - 7 : size[1] // 2 + 8] = torch.randn(
        11, 15, dtype=torch.cfloat
    )
    k = KSpace(y, torch.ones(size, dtype=torch.bool), place=Place(affine, 1), noise=0.1)
    other = respaced(k, after)
    assert k.place is not None and other.place is not None
    assert other.noise == pytest.approx(0.1 * (after[0] * after[1] / size[0] / size[1]) ** 0.5)
    (few, fine), (coarse, dense) = sorted([(k.place, images(k.y)), (other.place, images(other.y))], key=_voxels)
    shared = 0
    for i, j in np.ndindex(*fine.shape[2:]):
        at = np.linalg.solve(coarse.affine, few.affine @ [i, j, 0, 1])[:2]
        if np.allclose(at, at.round(), atol=1e-6) and (at.round() >= 0).all():
            a, b = at.round().astype(int)
            torch.testing.assert_close(fine[0, 0, i, j], dense[0, 0, a, b], atol=1e-5, rtol=1e-5)
            shared += 1
    assert shared == fine[0, 0].numel()


@pytest.mark.parametrize(("size", "after"), [((24, 30), (12, 15)), ((12, 15), (24, 30))])
def test_maps_of_coils_come_to_another_spacing_too(size: tuple[int, int], after: tuple[int, int]):
    """What is smooth has the same values at the same places, but at the edges."""

    def ramp(shape: tuple[int, int]) -> torch.Tensor:
        i, j = ((torch.arange(n) - n // 2) / n for n in shape)
        return torch.complex(i[:, None] + 2 * j, 3 * i[:, None] - j)[None, None]

    torch.testing.assert_close(maps_respaced(ramp(size), after)[..., 1:-1, 1:-1], ramp(after)[..., 1:-1, 1:-1])


def test_maps_of_the_file_s_own_size_serve_a_model_of_another_spacing():
    pipe = of_size(16, 16)
    pipe.config = pipe.config.__class__(**{**vars(pipe.config), "view": AXIAL})
    k = replace(acquired(), place=Place.spaced((1.0, 1.5, 5.0)))
    task = of_kspace(pipe, k, MRI(), 0.02, 100 / SCALE, ring(4, (32, 32))[None])
    assert any("brought from 1 x 1.5 mm" in note for note in task.notes)


def _voxels(one: tuple[Place, torch.Tensor]) -> int:
    return one[1].numel()


def test_what_a_file_does_not_tell_is_said():
    grid = Grid.of(AXIAL, (16, 16))
    unknown, spaced = Fit.of(grid, None, (16, 16)), Fit.of(grid, Place.spaced((2.01, 1.5, 9.0)), (16, 16))
    assert unknown.notes == ("the file tells no spacing, which is taken for the model's, 2 x 1.5 mm",)
    assert spaced.notes == ("the file does not tell where its axes run to, which is taken for the model's, RA",)
    assert unknown.size == spaced.size == (16, 16), "a spacing that differs by less than a hundredth stays"
    assert Fit.of(Grid((16, 16), 2, None, None), Place.spaced((9.0, 9.0, 9.0)), (16, 16)) == Fit(Turn(), (16, 16))


def test_slices_of_another_plane_are_refused_and_those_without_a_place_have_none(tmp_path: Path):
    sideways = found(scanned(tmp_path, (TO_FRONT, UP, TO_LEFT)))
    with pytest.raises(ValueError, match=r"k-space: got axes to AS, expected the model's plane, .* run to RA"):
        Fit.of(Grid.of(AXIAL, (16, 16)), sideways.place, (16, 16))
    for directions, rise in (((TO_FRONT, TO_LEFT, UP), 0.0), ((TO_FRONT, TO_FRONT, UP), 5.0)):
        (tmp_path / "a.h5").unlink()
        place = found(scanned(tmp_path, directions, rise)).place
        assert place is not None and place.code == 0 and place.spacing == pytest.approx((1.5, 2.0, 4.5))
