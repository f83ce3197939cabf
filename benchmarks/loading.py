"""How long training waits for data, by the format of the files: with small models, whose steps are short.

    python benchmarks/loading.py [--steps 40]

Files of each format are written by anydit's own views, or where these write no such files by the libraries that others
write them with, and read by the recipes' data. "First opening" is reading them once, into memory or a mapped file; a
batch is then read while the step before is computed. Waiting is measured in the loop's own reader: the time until a
batch is there when the step asks for it.
"""

import argparse
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.db
import av
import numpy as np
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from results import publish, table
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import (
    Arrays,
    ArrayView,
    Audio,
    AudioView,
    Axis,
    Data,
    Fields,
    FieldView,
    ImageFolder,
    Images,
    ImageShards,
    Molecules,
    MoleculeView,
    Series,
    SeriesView,
    VideoFolder,
    Videos,
    View,
    Volumes,
    VolumeView,
)
from anydit.data.audio.view import Flac, Ogg
from anydit.data.loader import read_ahead
from anydit.data.molecules.view import SDF
from anydit.data.video.view import GIF
from anydit.model.dit import DiTConfig
from anydit.train.base import Site
from anydit.train.recipe import Recipe, TrainConfig

BATCH = 32


def by_view(view: Any, x: Tensor, folder: Path) -> None:
    """Files as the view writes them."""
    view.write(x, folder)


def in_tar(view: Any, x: Tensor, folder: Path) -> None:
    """The files that the view writes, as the members of a tar file."""
    files = view.write(x, folder)
    with tarfile.open(folder / "all.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
            file.unlink()


def as_webm(view: Any, x: Tensor, folder: Path) -> None:
    """Videos in WebM, by VP9."""
    for i, film in enumerate((x * 255).byte().permute(0, 2, 3, 4, 1).numpy()):
        with av.open(str(folder / f"{i}.webm"), "w") as container:
            stream: Any = container.add_stream("libvpx-vp9", rate=round(view.rate))
            stream.height, stream.width, stream.pix_fmt = *film.shape[1:3], "yuv420p"
            for pixels in film:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
            container.mux(stream.encode())


def as_dicom(view: Any, x: Tensor, folder: Path) -> None:
    """Each volume as a series of slices, 1 mm apart."""
    for i, volume in enumerate((x[:, 0] * 1000).short().numpy()):
        (folder / str(i)).mkdir()
        series = generate_uid()
        for k in range(volume.shape[2]):
            one: Any = Dataset()
            one.file_meta = FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = CTImageStorage, generate_uid(), series
            one.Modality, one.Rows, one.Columns = "CT", volume.shape[1], volume.shape[0]
            one.PixelSpacing, one.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
            one.ImagePositionPatient, one.SamplesPerPixel, one.PixelRepresentation = [0, 0, k], 1, 1
            one.PhotometricInterpretation, one.BitsAllocated, one.BitsStored, one.HighBit = "MONOCHROME2", 16, 16, 15
            one.PixelData = volume[:, :, k].T.tobytes()
            one.save_as(folder / str(i) / f"{k}.dcm", enforce_file_format=True)


def as_database(view: Any, x: Tensor, folder: Path) -> None:
    """Molecules in one of ASE's databases."""
    with ase.db.connect(folder / "all.db") as database:
        for numbers, positions in view.atoms(x):
            database.write(ase.Atoms(numbers, positions))


class Case(NamedTuple):
    """A format: the view, samples, the data that read its files, the patch of a model of them, what writes files."""

    name: str
    view: View
    x: Tensor
    data: Data
    patch: tuple[int, ...]
    write: Callable[[Any, Tensor, Path], None] = by_view


def cases() -> Iterator[Case]:
    """Every format that is read; paths are put in later."""
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random)

    pictures = noise(200, 3, 64, 64)
    yield Case("PNG", Images(), pictures, ImageFolder(), (8, 8))
    yield Case("PNG in a tar file", Images(), pictures, ImageShards(), (8, 8), in_tar)
    yield Case("NPY", ArrayView(), noise(1, 200, 1, 64, 64), Arrays(), (8, 8))
    films = noise(40, 3, 16, 32, 32)
    yield Case("MP4", Videos(rate=8), films, VideoFolder(size=(32, 32)), (4, 8, 8))
    yield Case("MP4 in a tar file", Videos(rate=8), films, VideoFolder(size=(32, 32)), (4, 8, 8), in_tar)
    yield Case("WebM", Videos(rate=8), films, VideoFolder(size=(32, 32)), (4, 8, 8), as_webm)
    yield Case("GIF of frames", Videos(rate=8, format=GIF()), films, VideoFolder(size=(32, 32)), (4, 8, 8))
    sounds = noise(200, 1, 8000) - 0.5
    for name, form in (("WAV", {}), ("FLAC", {"format": Flac()}), ("Ogg", {"format": Ogg()})):
        yield Case(name, AudioView(rate=8000, **form), sounds, Audio(rate=8000, seconds=1.0), (200,))
    yield Case("FLAC in a tar file", AudioView(rate=8000, format=Flac()), sounds, Audio(rate=8000), (200,), in_tar)
    scans = noise(6, 1, 64, 64, 64)
    yield Case("NIfTI", VolumeView(), scans, Volumes(crop=(32, 32, 32)), (8, 8, 8))
    yield Case("DICOM", VolumeView(), scans, Volumes(crop=(32, 32, 32)), (8, 8, 8), as_dicom)
    for name in (".csv", ".parquet"):
        rows = SeriesView(names=("a", "b", "c"), step=60.0, suffix=name)
        yield Case(name[1:].capitalize(), rows, noise(4, 3, 5000), Series(time="seconds"), (4,))
    axes = (Axis("x", periodic=True), Axis("y", periodic=True))
    for name, form in (("HDF5", "hdf5"), ("NetCDF", "netcdf"), ("Zarr", "zarr"), ("HDF5 as The Well", "the_well")):
        fields = FieldView(variables=("u", "v"), units=("m/s", "m/s"), axes=axes, format=form)
        yield Case(name, fields, noise(100, 2, 32, 32), Fields(), (4, 4))
    for name, file in (("XYZ", {}), ("SDF", {"file": SDF()})):
        yield Case(name, MoleculeView(elements=("H", "C"), **file), chains(), Molecules(), (1,))
    yield Case("ASE database", MoleculeView(elements=("H", "C")), chains(), Molecules(), (1,), as_database)


def chains(count: int = 200) -> Tensor:
    """Zigzags of 5 to 8 atoms of carbon."""
    x = torch.zeros(count, 5, 8)
    at = torch.arange(8)
    x[:, 0], x[:, 1], x[:, 4] = at * 1.25, at % 2 * 0.85, 1
    lengths = 5 + torch.arange(count) % 4
    return torch.where((at < lengths[:, None])[:, None], x, torch.nan)


def measured(case: Case, folder: Path, steps: int) -> list[object]:
    """First opening in seconds, a batch in ms, a step in ms, and the share of training that waits for data."""
    case.write(case.view, case.x, folder)
    path = folder if not isinstance(case.data, Arrays) else next(folder.iterdir())
    data = replace(case.data, path=path)
    began = time.perf_counter()
    samples = data.open("train")
    samples.read(torch.arange(min(2, len(samples))))
    opening = time.perf_counter() - began
    sets = isinstance(case.view, MoleculeView)
    model = DiTConfig(width=128, depth=4, heads=4, patch=case.patch, **({"position": None} if sets else {}))
    recipe = Recipe(
        model=model, codec=Normalize(), view=case.view, data=data, train=TrainConfig(steps=steps, batch=BATCH)
    )
    whole = recipe.resolved(samples, lambda _: None, torch.device("cpu"))
    work = whole.begin(samples, Site(folder, torch.device("cpu"), lambda _: None))
    batches, waits, taken = read_ahead(work.samples, work.order, 0), list[float](), list[float]()
    for step in range(steps):
        began = time.perf_counter()
        batch = next(batches)
        there = time.perf_counter()
        work.step(batch, step)
        waits.append(there - began)
        taken.append(time.perf_counter() - there)
    batches.close()
    began = time.perf_counter()
    for step in range(steps):
        work.samples.read(work.order.ids(step))
    reading = (time.perf_counter() - began) / steps
    # The first batch is not read ahead, and the first steps warm up.
    waiting = sum(waits[3:]) / (sum(waits[3:]) + sum(taken[3:]))
    size = "x".join(map(str, (samples.facts.channels, *samples.facts.size)))
    return [case.name, size, len(samples), opening, 1000 * reading, 1000 * sum(taken[3:]) / len(taken[3:]),
            f"{waiting:.2%}"]  # fmt: skip


def main() -> None:
    """Print and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="steps of each training")
    parser.add_argument("--only", nargs="*", help="print these formats alone, by their names in the table")
    asked = parser.parse_args()
    rows = list[list[object]]()
    for case in cases():
        if asked.only and case.name not in asked.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(case, Path(folder), asked.steps))
        print(*rows[-1])
    if asked.only:
        return
    head = ["files", "samples of", "samples", "first opening, s", "a batch of 32, ms", "a step, ms", "waiting for data"]
    publish("loading", "Reading data while training", table(head, rows))


if __name__ == "__main__":
    main()
