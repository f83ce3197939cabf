"""Samples of which files tell a part, or what came before: what is told, what stays, and when it goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import Axis, FieldView, SeriesView, View, VolumeView
from anydit.data.known import COARSE, KNOWN, PAST, told
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.drawing import Asked, Drawn, drawn
from anydit.inference.files import FromFiles
from anydit.inference.pipeline import Pipeline
from anydit.inference.rollout import rollout, rollout_along
from anydit.model.conditioning import Condition, Field, Numbers
from anydit.model.dit import DiTConfig

MEAN = (1.0, -1.0)


def untrained(condition: Condition, name: str, view: View, size: tuple[int, ...], channels: int = 2) -> Pipeline:
    """Any network of such samples, which makes something of what it is told."""
    model = DiTConfig(16, 1, 2, (2,) * len(size), channels=channels, size=size, conditions={name: condition})
    made = Pipeline(PipelineConfig(model=model, codec=Normalize((0.0,), (1.0,)), sampling=Sampling(steps=2), view=view))
    for parameter in made.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return made


@pytest.fixture(scope="module")
def series() -> Pipeline:
    """Windows of eight rows, of which half were known in training."""
    known = Field(4, mean=(*MEAN, 0.5, 0.5), std=(1.0,) * 4)
    return untrained(known, KNOWN, SeriesView(names=("a", "b"), step=60.0), (8,))


def table(path: Path, rows: int, empty: slice = slice(0, 0)) -> Tensor:
    """A table of so many rows, some of a channel empty."""
    frame = pd.DataFrame({"a": np.sin(np.arange(rows)), "b": np.cos(np.arange(rows))})
    frame.loc[frame.index[empty], "b"] = np.nan
    frame.insert(0, "seconds", 60.0 * np.arange(rows))
    frame.to_csv(path, index=False)
    return torch.tensor(frame[["a", "b"]].to_numpy(np.float32).T)


def from_table(series: Pipeline, path: Path, **how: Any) -> tuple[FromFiles, Drawn]:
    files = FromFiles(series, KNOWN, (path,), (8,))
    return files, drawn(series, Asked(files=(files,), **how))


@pytest.mark.parametrize(
    ("rows", "empty", "kept", "note"),
    [
        (4, slice(0, 0), slice(0, 4), ""),
        (3, slice(0, 0), slice(0, 3), "The first 3 of 8 places in time are told; in training 4 were"),
        (8, slice(2, 5), slice(0, 8), ""),
        (8, slice(0, 0), slice(4, 8), "Of 8 places in time in a file the last 4 are told"),
        (20, slice(0, 0), slice(16, 20), "Of 20 places in time in a file the last 4 are told"),
        (20, slice(17, 20), slice(12, 20), "Of 20 places in time in a file the last 8 are told"),
        (20, slice(1, 2), slice(16, 20), "Of 20 places in time in a file the last 4 are told"),
    ],
)
def test_the_end_of_a_file_is_how_a_sample_begins(
    series: Pipeline, tmp_path: Path, rows: int, empty: slice, kept: slice, note: str
):
    part = table(tmp_path / "x.csv", rows, empty)[:, kept]
    files, (x, (view, _)) = from_table(series, tmp_path / "x.csv", n=2)
    whole = torch.cat([part, torch.full((2, 8 - part.shape[1]), torch.nan)], 1)
    expected = series.sample(2, {KNOWN: told(whole[None], ~whole[None].isnan(), MEAN)})
    assert torch.equal(x, torch.where(whole.isnan(), expected, whole)), "what is known stays as it is"
    assert files.windows[0].note.startswith(note) and bool(files.windows[0].note) == bool(note)
    out = pd.read_csv(view.save(x[0], tmp_path / "out"))
    assert out["seconds"].tolist() == [60.0 * (kept.start + i) for i in range(8)]


def test_it_goes_on_in_time(series: Pipeline, tmp_path: Path):
    for rows in (3, 20):
        first = table(tmp_path / "x.csv", rows)
        _, (x, views) = from_table(series, tmp_path / "x.csv", n=2, length=30, seed=3)
        assert len(views) == 2
        expected = rollout_along(series, first.expand(2, 2, rows), 30, known=min(rows, 4), seed=3)
        assert torch.equal(x, expected) and torch.equal(x[:, :, :rows], first.expand(2, 2, rows))
        assert pd.read_csv(views[1].save(x[1], tmp_path / "out"))["seconds"].iloc[-1] == 60 * 29


def test_files_of_any_length_each_tell_a_sample(series: Pipeline, tmp_path: Path):
    parts = [table(tmp_path / f"{rows}.csv", rows) for rows in (4, 9)]
    files = FromFiles(series, KNOWN, (tmp_path / "4.csv", tmp_path / "9.csv"), (8,))
    x, views = drawn(series, Asked(2, files=(files,)))
    assert torch.equal(x[0, :, :4], parts[0]) and torch.equal(x[1, :, :4], parts[1][:, 5:])
    assert [pd.read_csv(v.save(one, tmp_path / "out"))["seconds"][0] for one, v in zip(x, views, strict=True)] == [
        0,
        300,
    ]


@pytest.mark.parametrize(
    ("rows", "empty", "asked", "said"),
    [
        (8, slice(0, 0), {"length": 8}, "length: got 8, expected more than the 8 places in time that are known"),
        (6, slice(2, 3), {"length": 12}, "length: got 12 for a file with gaps"),
        (8, slice(0, 0), {"states": 2}, "states: got 2, expected --past FILE"),
        (4, slice(0, 0), {"states": 2, "length": 12}, "states: got 2 beside --length, expected one of them"),
        (4, slice(0, 0), {"size": (16,), "length": 12}, "size: got 16 places in time beside --length, expected 8"),
        (0, slice(0, 0), {}, "known: got a file of which nothing is known"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused(
    series: Pipeline, tmp_path: Path, rows: int, empty: slice, asked: dict[str, Any], said: str
):
    table(tmp_path / "x.csv", rows, empty)
    files = FromFiles(series, KNOWN, (tmp_path / "x.csv",), asked.get("size", (8,)))
    with pytest.raises(ValueError, match=said):
        drawn(series, Asked(files=(files,), **asked))


def test_what_is_known_may_be_told_as_in_training(series: Pipeline, tmp_path: Path):
    whole = torch.randn(3, 2, 8)
    condition = told(whole, torch.randn(3, 2, 8) < 0.5, MEAN)
    np.save(tmp_path / "x.npy", condition.numpy())
    files = FromFiles(series, KNOWN, (tmp_path / "x.npy",), (8,))
    assert torch.equal(files.value, condition)
    x, _ = drawn(series, Asked(3, files=(files,)))
    assert torch.equal(x[condition[:, 2:] == 1], whole[condition[:, 2:] == 1])


def test_only_samples_come_in_the_format_of_the_data(tmp_path: Path):
    """A table of the samples' own columns is no condition of as many channels."""
    pipe = untrained(Field(2, mean=MEAN, std=(1.0, 1.0)), "given", SeriesView(names=("a", "b"), step=60.0), (8,))
    table(tmp_path / "x.csv", 8)
    wanted = r"expected a .npy file of shape \[n, 2, 8\]: given is no part of a sample"
    with pytest.raises(ValueError, match=wanted):
        drawn(pipe, Asked(files=(FromFiles(pipe, "given", (tmp_path / "x.csv",), (8,)),)))
    with pytest.raises(ValueError, match="length: got 9, expected none: this model cannot be told what samples begin"):
        drawn(pipe, Asked(length=9))


def test_what_came_before_is_as_long_as_samples(tmp_path: Path):
    pipe = untrained(Field(2, mean=MEAN, std=(1.0, 1.0)), PAST, SeriesView(names=("a", "b"), step=60.0), (8,))
    names = [tmp_path / f"{rows}.csv" for rows in (8, 9)]
    for rows, name in zip((8, 9), names, strict=True):
        table(name, rows)
    with pytest.raises(ValueError, match=r"past: got .*9.csv of shape \(2, 9\), expected \(2, 8\)"):
        drawn(pipe, Asked(2, files=(FromFiles(pipe, PAST, tuple(names), (8,)),)))


def test_a_volume_is_completed_where_it_is_nan_and_lies_where_it_lay(tmp_path: Path):
    known = Field(2, mean=(0.0, 0.5), std=(1.0, 1.0))
    pipe = untrained(
        known, KNOWN, VolumeView(affine=((2.0, 0, 0, 0), (0, 2.0, 0, 0), (0, 0, 2.0, 0)), code=1), (4, 4, 4), 1
    )
    part = torch.randn(1, 4, 4, 4).where(torch.arange(4) < 2, torch.nan)
    there = VolumeView(affine=((2.0, 0, 0, 7.0), (0, 2.0, 0, 8.0), (0, 0, 2.0, 9.0)), code=4)
    files = FromFiles(pipe, KNOWN, (there.save(part, tmp_path / "x"),), (4, 4, 4))
    x, views = drawn(pipe, Asked(files=(files,)))
    assert torch.equal(x[0][..., :2], part[..., :2]) and bool(x.isfinite().all())
    assert isinstance(views[0], VolumeView) and np.allclose(views[0].matrix, there.matrix) and views[0].code == 4
    whole = FromFiles(pipe, KNOWN, (there.save(x[0], tmp_path / "y"),), (4, 4, 4))
    with pytest.raises(ValueError, match="known: got a file of which everything is known, expected NaN"):
        drawn(pipe, Asked(files=(whole,)))
    with pytest.raises(ValueError, match="length: got 9, expected none: the samples have no axis of time"):
        drawn(pipe, Asked(files=(files,), length=9))


@pytest.mark.parametrize(
    ("first", "side", "x"), [("x", None, 30.0), ("|x|", "left", -30.0), ("|x|", "right", 30.0), ("|x|", None, 0.0)]
)
def test_a_volume_lies_where_it_was_asked_for(tmp_path: Path, first: str, side: Any, x: float):
    """The middle voxel of what is written is at the place; where only half of it is known, about 0 as without one."""
    names = (f"{first} in mm", "y in mm", "z in mm")
    turned = ((0.0, -2.0, 0.0, 3.0), (2.0, 0.0, 0.0, -3.0), (0.0, 0.0, 2.0, -3.0))
    view = VolumeView(affine=turned, code=1, unit="mm", side=side)
    pipe = untrained(Numbers(names, (0.0,) * 3, (40.0,) * 3, dropout=0.0), "place", view, (4, 4, 4), 1)
    places = [[30.0, -60.0, -30.0], [30.0, 8.0, 9.0]]
    samples, views = drawn(pipe, Asked(2, {"place": places}, size=(6, 4, 4)))
    assert samples.shape == (2, 1, 6, 4, 4)
    for sample, of_one, place in zip(samples, views, places, strict=True):
        affine = nibabel.load(of_one.save(sample, tmp_path / "x")).affine
        assert np.allclose(affine[:3, :3], np.array(turned)[:, :3])
        middle = (affine @ [2.5, 1.5, 1.5, 1])[:3]
        assert np.allclose(middle, [x, *place[1:]] if x else (0, 2, 0))
    assert len(set(drawn(pipe, Asked(2, {"place": places[:1]})).views)) == 1


def test_a_finer_field_is_written_when_the_coarse_one_was(tmp_path: Path):
    """Told in the format of the data, and of several samples each at its time; by an array it is told without one."""
    view = FieldView(
        variables=("u", "v"), axes=(Axis("x"), Axis("y")), interval=0.5, time_unit="h", blocks=2, calendar="noleap"
    )
    pipe = untrained(Field(2, mean=(0.0,) * 2, std=(1.0,) * 2), COARSE, view, (4, 6))
    means, axes = torch.randn(2, 2, 2, 3), tuple(axis.coarse(2) for axis in view.axes or ())
    files = [
        replace(view, axes=axes, start=start, time_unit="h since 2000-01-01").save(one, tmp_path / f"{start}")
        for one, start in zip(means, (3.0, 4.5), strict=True)
    ]
    x, views = drawn(pipe, Asked(2, files=(FromFiles(pipe, COARSE, tuple(files), (4, 6)),)))
    coarse = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(x, pipe.sample(2, {COARSE: coarse}))
    with netCDF4.Dataset(views[1].save(x[1], tmp_path / "fine")) as out:
        assert (out["time"][:].tolist(), out["time"].units) == ([4.5], "h since 2000-01-01")
        assert out["time"].calendar == "noleap" and out["u"].shape == (1, 4, 6)
    np.save(tmp_path / "x.npy", coarse.numpy())
    again, plain = drawn(pipe, Asked(2, files=(FromFiles(pipe, COARSE, (tmp_path / "x.npy",), (4, 6)),)))
    assert torch.equal(again, x) and plain == [view, view]


def test_states_follow_those_in_a_file_at_their_times(tmp_path: Path):
    view = FieldView(variables=("u", "v"), axes=(Axis("x"), Axis("y")), interval=0.5, time_unit="h")
    pipe = untrained(Field(4, mean=(0.0,) * 4, std=(1.0,) * 4), PAST, view, (4, 6))
    before = torch.randn(10, 4, 6)
    files = FromFiles(pipe, PAST, (view.save(before, tmp_path / "past"),), (4, 6))
    x, views = drawn(pipe, Asked(2, files=(files,), states=3, seed=7))
    assert torch.equal(x, rollout(pipe, before[None, -4:].expand(2, 4, 4, 6), 3, seed=7).flatten(1, 2))
    assert [v.start for v in views if isinstance(v, FieldView)] == [2.5, 2.5], (
        "five states half an hour apart were before"
    )
    once, (then,) = drawn(pipe, Asked(files=(files,), seed=7))
    assert torch.allclose(once[0], x[0, :2], atol=1e-3) and isinstance(then, FieldView) and then.start == 2.5
