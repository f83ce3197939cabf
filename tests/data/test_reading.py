"""What a view wrote it reads back, whatever the modality; what is no such sample is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.data import (
    GIF,
    ArrayView,
    AudioView,
    Axis,
    FieldView,
    Flac,
    Images,
    MoleculeView,
    SeriesView,
    SliceView,
    Videos,
    View,
    VolumeView,
    Wav,
)
from anydit.data.molecules.view import SDF


def uniform(*shape: int, levels: int = 0) -> Tensor:
    """Numbers from 0 to 1, of so many levels where that is said."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return (x * (levels - 1)).round() / (levels - 1) if levels else x


def waves(channels: int) -> Tensor:
    """A smooth video, which a lossy codec keeps."""
    t, y, x = torch.meshgrid(*[torch.arange(n) for n in (6, 16, 24)], indexing="ij")
    return (0.5 + 0.4 * torch.sin(x / 9 + y / 7 + t / 3)).expand(channels, -1, -1, -1)


def water(spare: int) -> Tensor:
    """A molecule of three atoms, and places for more."""
    places = torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
    there = torch.cat([places.T, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])])
    return torch.cat([there, torch.full((5, spare), torch.nan)], 1)


AXES = (Axis("x", 1.0, 0.5, "km", periodic=True), Axis("level", unit="hPa", at=(1000.0, 850.0, 500.0)))
FIELDS = {"variables": ("u", "v"), "units": ("m/s", "m/s"), "axes": AXES, "interval": 0.5, "time_unit": "h"}
AFFINE = ((0.0, -2.0, 0.0, 7.0), (1.5, 0.0, 0.0, 8.0), (0.0, 0.0, 3.0, 9.0))
SCANS: dict[str, Any] = {"affine": AFFINE, "code": 1, "unit": "mm", "names": ("a", "b")}

CASES: dict[str, tuple[View, Tensor, float]] = {
    "array": (ArrayView(), uniform(2, 3, 4, 5, 2), 0),
    "array, channels last": (ArrayView(channels_last=True), uniform(2, 3, 4), 0),
    "image": (Images(-1, 1), uniform(3, 12, 9, levels=256) * 2 - 1, 1e-6),
    "image, alpha": (Images(), torch.cat([uniform(3, 6, 6, levels=256), torch.ones(1, 6, 6)]), 1e-6),
    "image, two channels": (Images(), uniform(2, 12, 9), 0),
    "video": (Videos(high=16, rate=8.0), 16 * waves(3), 0.35),
    "video, grey GIF": (Videos(rate=10.0, format=GIF()), waves(1), 3e-3),
    "sound": (AudioView(rate=8000, format=Wav(32)), uniform(2, 500) * 2 - 1, 0),
    "sound, FLAC": (AudioView(rate=8000, format=Flac(24)), uniform(1, 500) * 2 - 1, 1e-6),
    "series": (SeriesView(names=("a b", "seconds"), step=900.0), uniform(2, 7), 1e-6),
    "series, Parquet": (SeriesView(suffix=".parquet"), uniform(2, 7), 0),
    "field": (FieldView(**FIELDS), uniform(2, 6, 3), 0),
    "field, states": (FieldView(**FIELDS, format="netcdf"), uniform(8, 6, 3), 0),
    "field, The Well": (FieldView(**FIELDS, format="the_well"), uniform(8, 6, 3), 0),
    "field, Zarr": (FieldView(format="zarr"), uniform(2, 6), 0),
    "volume": (VolumeView(**SCANS), uniform(2, 4, 5, 6), 0),
    "slice": (SliceView(**SCANS, across=1), uniform(2, 4, 5), 0),
    "molecule": (MoleculeView(elements=("H", "O")), water(2), 1e-6),
    "molecule, SDF": (MoleculeView(elements=("H", "O"), file=SDF()), water(0), 1e-4),
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_is_read_back(name: str, tmp_path: Path):
    view, x, error = CASES[name]
    path = view.save(x, tmp_path / "a.b")
    assert path.name.startswith("a.b.") and path.name.endswith((*view.suffixes, ".npy"))
    loaded = view.read(path, x.shape)
    assert loaded.x.dtype == torch.float32 and loaded.x.shape == x.shape
    assert torch.allclose(loaded.x, x, atol=error, rtol=0, equal_nan=True)
    again = loaded.view.save(loaded.x, tmp_path / "again")
    assert torch.allclose(view.read(again, x.shape).x, x, atol=2 * error, rtol=0, equal_nan=True)


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_such_file_or_sample_is_refused(name: str, tmp_path: Path):
    view, x, _ = CASES[name]
    (tmp_path / "x.txt").write_text("none")
    for file in ("x.txt", "nothing.npy"):
        with pytest.raises(ValueError, match=f"got .*{file}"):
            view.read(tmp_path / file, x.shape)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"got .*folder(, expected a file named|: no picture|: 0 DICOM|.*Is a dir)"):
        view.read(tmp_path / "folder", x.shape)
    if not isinstance(view, Images | Videos | AudioView | MoleculeView):  # which any picture or sound is brought to
        path, (channels, *space) = view.save(x, tmp_path / "x"), x.shape
        wrong = (channels, *space[:-1], space[-1] + 1) if view.time_axis is None else (channels + 1, *space)
        with pytest.raises(ValueError, match=r"got .*x\."):
            view.read(path, wrong)


def test_a_view_that_reads_no_files_says_so(tmp_path: Path):
    class Silent(ArrayView):
        """A view that only writes."""

        read = View.read

    with pytest.raises(ValueError, match=r"got .*x\.bin, expected a \.npy file: Silent reads no other"):
        Silent().read(tmp_path / "x.bin", (1, 2))
    path = Silent().save(torch.ones(1, 2), tmp_path / "x")
    assert torch.equal(Silent().read(path, (1, 2)).x, torch.ones(1, 2))


@pytest.mark.parametrize(
    ("view", "text", "places"),
    [
        (Videos(rate=8.0), "5s", 40),
        (Videos(rate=8.0), "500 ms", 4),
        (SeriesView(step=3600.0), "2d", 48),
        (SeriesView(step=3600.0), "90min", 2),
        (AudioView(rate=8000), "0.5s", 4000),
        (SeriesView(), "12", 12),
    ],
)
def test_lengths_are_places_or_times(view: View, text: str, places: int):
    assert view.places(text) == places


@pytest.mark.parametrize("text", ["", "s", "-1s", "0", "1.5", "1m", "infs", "nand", "2h"])
def test_what_is_no_length_is_refused(text: str):
    with pytest.raises(ValueError, match="expected a whole number of places from 1 on"):
        Videos().places(text)
    if text != "2h":
        with pytest.raises(ValueError, match=r"expected a time, as 0\.5s, 500ms, 2min, 3h or 1d, or a whole number"):
            Videos(rate=8.0).places(text)


def test_of_numpy_only_arrays_of_numbers_are_read(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.array(["a"]))
    with pytest.raises(ValueError, match="cannot be read as an array of NumPy"):
        ArrayView().read(tmp_path / "x.npy", (1, 2))
