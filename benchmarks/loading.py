"""How long training waits for data, by the format of the files: with small models, whose steps are short.

    python benchmarks/loading.py [--steps 40]

Files of each format are written by anydit's own views and read by the recipes' data. "First opening" is reading them
once, into memory or a mapped file; a batch is then read while the step before is computed. Waiting is measured in the
loop's own reader: the time until a batch is there when the step asks for it.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
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


class Case(NamedTuple):
    """A format: the view that writes it, samples, the data that read the files, and the patch of a model of them."""

    name: str
    view: View
    x: Tensor
    data: Data
    patch: tuple[int, ...]


def cases() -> Iterator[Case]:
    """Every format that views write; paths are put in later."""
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random)

    yield Case("PNG", Images(), noise(200, 3, 64, 64), ImageFolder(), (8, 8))
    yield Case("NPY", ArrayView(), noise(1, 200, 1, 64, 64), Arrays(), (8, 8))
    films = noise(40, 3, 16, 32, 32)
    yield Case("MP4", Videos(rate=8), films, VideoFolder(size=(32, 32)), (4, 8, 8))
    yield Case("GIF of frames", Videos(rate=8, format=GIF()), films, VideoFolder(size=(32, 32)), (4, 8, 8))
    sounds = noise(200, 1, 8000) - 0.5
    for name, form in (("WAV", {}), ("FLAC", {"format": Flac()}), ("Ogg", {"format": Ogg()})):
        yield Case(name, AudioView(rate=8000, **form), sounds, Audio(rate=8000, seconds=1.0), (200,))
    yield Case("NIfTI", VolumeView(), noise(6, 1, 64, 64, 64), Volumes(crop=(32, 32, 32)), (8, 8, 8))
    for name in (".csv", ".parquet"):
        rows = SeriesView(names=("a", "b", "c"), step=60.0, suffix=name)
        yield Case(name[1:].capitalize(), rows, noise(4, 3, 5000), Series(time="seconds"), (4,))
    axes = (Axis("x", periodic=True), Axis("y", periodic=True))
    for name in ("hdf5", "netcdf", "zarr"):
        fields = FieldView(variables=("u", "v"), units=("m/s", "m/s"), axes=axes, format=name)
        yield Case(name, fields, noise(100, 2, 32, 32), Fields(), (4, 4))
    for name, file in (("XYZ", {}), ("SDF", {"file": SDF()})):
        yield Case(name, MoleculeView(elements=("H", "C"), **file), chains(), Molecules(), (1,))


def chains(count: int = 200) -> Tensor:
    """Zigzags of 5 to 8 atoms of carbon."""
    x = torch.zeros(count, 5, 8)
    at = torch.arange(8)
    x[:, 0], x[:, 1], x[:, 4] = at * 1.25, at % 2 * 0.85, 1
    lengths = 5 + torch.arange(count) % 4
    return torch.where((at < lengths[:, None])[:, None], x, torch.nan)


def measured(case: Case, folder: Path, steps: int) -> list[object]:
    """First opening in seconds, a batch in ms, a step in ms, and the share of training that waits for data."""
    case.view.write(case.x, folder)
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
    steps = parser.parse_args().steps
    rows = list[list[object]]()
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(case, Path(folder), steps))
        print(*rows[-1])
    head = ["files", "samples of", "samples", "first opening, s", "a batch of 32, ms", "a step, ms", "waiting for data"]
    publish("loading", "Reading data while training", table(head, rows))


if __name__ == "__main__":
    main()
