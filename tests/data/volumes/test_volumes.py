"""Volumes in folders: which files make a sample, crops, held-out parts, and files that come out as they went in."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from anydit.codecs import Normalize
from anydit.config import from_json
from anydit.data import MNI152, Data, Inside, Part, Samples, Slab, Volumes, VolumeView, Whole
from anydit.data.kept import UNUSED_SECONDS
from anydit.data.volumes.files import VALUES
from anydit.inference.config import PipelineConfig, exported
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from tests.data.volumes.scans import AFFINE, dicom, nifti, values

ALL = Whole(0.0)


def folder_of(folder: Path, count: int = 3, **how: Any) -> Path:
    for i in range(count):
        nifti(folder / f"sub-{i}.nii.gz", values(8, 10, 6, seed=i), **how)
    return folder


def refused(data: Data, part: Part = "train") -> str:
    with pytest.raises(ValueError) as error:
        data.open(part)
    return str(error.value)


def recipe_of(data: Volumes, view: VolumeView | None = None) -> Recipe:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2, 2, 2))
    return Recipe(model=model, codec=Normalize(), view=view or VolumeView(), data=data)


def read(samples: Samples, *ids: int) -> np.ndarray:
    return samples.read(torch.tensor(ids)).x.numpy()


def test_whole_volumes_come_back_as_the_files_they_were(tmp_path: Path):
    """The pipeline, after a round trip through JSON, writes files of the values and the grid that were read."""
    data = Volumes(path=folder_of(tmp_path / "in"), held_out=ALL)
    samples = data.open("train")
    assert (len(samples), samples.facts.size, samples.facts.channels) == (3, (8, 10, 6), 1)
    saved = from_json(PipelineConfig, exported(resolved(recipe_of(data), samples)))
    batch = samples.read(torch.tensor([2, 0]))
    assert not batch.cond
    for path, number in zip(saved.view.write(batch.x, tmp_path), (2, 0), strict=True):
        out, there = nibabel.load(path), nibabel.load(tmp_path / "in" / f"sub-{number}.nii.gz")
        assert np.array_equal(np.asarray(out.dataobj), np.asarray(there.dataobj))
        assert np.allclose(out.affine, there.affine)
        for name in ("sform_code", "qform_code", "pixdim", "xyzt_units"):
            assert np.allclose(out.header[name], there.header[name]), name
        assert nibabel.aff2axcodes(out.affine) == ("P", "S", "L")


def test_a_series_of_slices_goes_in_and_nifti_comes_out(tmp_path: Path):
    stored = np.random.default_rng(0).integers(0, 100, (6, 4, 8))
    for name in "ab":
        dicom(tmp_path / "in" / name, stored, (1, 0, 0), (0, 1, 0), (0, 0, 2.0))
    data = Volumes(path=tmp_path / "in", held_out=ALL)
    samples = data.open("train")
    assert len(samples) == 2
    view = resolved(recipe_of(data), samples).view
    out = nibabel.load(view.write(samples.read(torch.tensor([0])).x, tmp_path)[0])
    assert np.allclose(out.header.get_zooms(), (0.25, 0.5, 2.0))
    assert out.header["descrip"].item() == b"HU"
    assert np.array_equal(np.asarray(out.dataobj), (2 * stored - 1024).transpose(1, 0, 2))


def test_files_beside_each_other_are_channels(tmp_path: Path):
    arrays = {}
    for sub in "ab":
        for name in ("t1", "gm"):
            arrays[sub, name] = values(4, 4, 4, seed=len(arrays))
            nifti(tmp_path / sub / f"scan_{name}_v2.nii", arrays[sub, name])
    nifti(tmp_path / "a" / "scan_mask.nii", values(5, 5, 5))
    data = Volumes(path=tmp_path, channels=("gm", "t1"), held_out=ALL)
    x = read(data.open("train"), 0, 1)
    for i, sub in enumerate("ab"):
        assert np.array_equal(x[i], np.stack([arrays[sub, "gm"], arrays[sub, "t1"]]))
    (tmp_path / "b" / "scan_gm_v2.nii").unlink()
    assert "no file for gm beside scan_t1_v2.nii" in refused(data)
    moved = AFFINE + np.eye(4) * [0, 0, 0, 0] + np.array([[0, 0, 0, 5]] + [[0] * 4] * 3)
    nifti(tmp_path / "b" / "scan_gm_v2.nii", arrays["b", "gm"], moved)
    assert "scan_t1_v2.nii lies on another grid than scan_gm_v2.nii" in refused(data)
    assert "expected words of names" in refused(replace(data, channels=("t2",)))


def test_frames_are_volumes(tmp_path: Path):
    array = values(4, 4, 4, 3)
    nifti(tmp_path / "a.nii", array)
    nifti(tmp_path / "b.nii", array[..., :2] + 1)
    data = Volumes(path=tmp_path, frames=True, held_out=ALL)
    samples = data.open("train")
    assert len(samples) == 5
    assert np.array_equal(read(samples, 1, 3)[:, 0], [array[..., 1], array[..., 0] + 1])
    assert "different channels: 3 in a.nii, 2 in b.nii" in refused(replace(data, frames=False))


def test_crops_are_parts_of_the_volumes_at_their_places(tmp_path: Path):
    """A field that is linear in space: each crop's mean is the field at the place that is told."""
    slope, count = np.array([0.5, -1, 2]), 40
    for i in range(2):
        indices = np.stack([*np.meshgrid(*map(np.arange, (9, 8 + i, 7)), indexing="ij"), np.ones((9, 8 + i, 7))], -1)
        nifti(tmp_path / f"{i}.nii", ((indices @ AFFINE.T)[..., :3] @ slope + 1000 * i).astype(np.float32))
    data = Volumes(path=tmp_path, crop=(4, 6, 2), crops=count, held_out=ALL)
    samples = data.open("train")
    assert len(samples) == 2 * count
    assert samples.facts.numbers == {"place": ("x in mm", "y in mm", "z in mm")}
    batch = samples.read(torch.arange(len(samples)))
    assert batch.x.shape == (2 * count, 1, 4, 6, 2)
    means = batch.x.mean((1, 2, 3, 4)).numpy() - 1000 * (np.arange(2 * count) >= count)
    assert np.allclose(means, batch.tensor("place").numpy() @ slope, atol=1e-2)
    assert len(batch.tensor("place").unique(dim=0)) > count / 2, "at many places"
    mirrored = replace(data, symmetric=True).open("train")
    assert mirrored.facts.numbers == {"place": ("|x| in mm", "y in mm", "z in mm")}
    far = mirrored.read(torch.arange(len(samples))).tensor("place")
    assert torch.equal(far[:, 0], batch.tensor("place")[:, 0].abs())
    assert torch.equal(far[:, 1:], batch.tensor("place")[:, 1:])
    again = data.open("train").read(torch.tensor([7, 3]))
    assert torch.equal(again.x, batch.x[[7, 3]]), "the same ids, the same crops"
    view = resolved(recipe_of(data), samples).view
    assert isinstance(view, VolumeView)
    assert np.allclose(view.matrix @ [1.5, 2.5, 0.5, 1], [0, 0, 0, 1]), "the middle of a crop is at 0"
    assert np.allclose(view.matrix[:3, :3], AFFINE[:3, :3])


@pytest.mark.parametrize(("code", "left"), [(0, 0), (1, 1), (2, 1), (4, 1)])
def test_a_crop_is_written_as_in_no_space_that_it_is_not_in(tmp_path: Path, code: int, left: int):
    """Its axes and spacing are the data's; "aligned" or MNI would say where in a brain it is, and whole volumes do."""
    data = Volumes(path=folder_of(tmp_path / "in", code=code), held_out=ALL)
    for how, expected in ((data, code), (replace(data, crop=(4, 6, 2)), left)):
        samples = how.open("train")
        saved = from_json(PipelineConfig, exported(resolved(recipe_of(how), samples)))
        out = nibabel.load(saved.view.write(samples.read(torch.tensor([0])).x, tmp_path)[0])
        assert (int(out.header["sform_code"]), int(out.header["qform_code"])) == (expected, expected)
        assert np.allclose(out.header.get_zooms(), (1.5, 3, 2))
        if code:
            assert np.allclose(out.affine[:3, :3], AFFINE[:3, :3])
            assert np.allclose(out.affine, AFFINE) == (how is data)
    moved = AFFINE + np.array([[0, 0, 0, 5]] + [[0] * 4] * 3)
    nifti(tmp_path / "in" / "sub-1.nii.gz", values(8, 10, 6), moved, code=code)
    view = data.open("train").facts.view
    assert isinstance(view, VolumeView)
    assert view.code == left, "whole volumes of different places have none in common"


def test_volumes_that_are_not_read_are_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = Volumes(path=folder_of(tmp_path / "in", 12), held_out=Whole(0.4))
    (tmp_path / "in" / "participants.tsv").write_text("no volume")
    (tmp_path / "in" / "LICENSE").write_text("no volume")
    data.open("train")
    assert not capsys.readouterr().err
    series = dicom(tmp_path / "in" / "ct", np.zeros((4, 4, 5)), (1, 0, 0), (0, 1, 0), (0, 0, 2.0))
    (series / "0.dcm").rename(series / "IM0000")
    (series / "1.dcm").rename(series / "1")
    (series / ".2.dcm").write_bytes(b"")
    data.open("held_out")
    assert not capsys.readouterr().err
    assert len(data.open("train")) < 12
    assert capsys.readouterr().err == "Passed over 5 DICOM files, since there are NIfTI files.\n"
    for name in ("sub-a_t1", "sub-a_t2", "sub-a_mask", "sub-a_t1_t2"):
        nifti(tmp_path / "channels" / f"{name}.nii", values(4, 4, 4))
    both = replace(data, path=tmp_path / "channels", channels=("t1", "t2"), held_out=ALL)
    assert len(both.open("train")) == 1
    said = "Passed over 2 NIfTI files that name none of data.channels, or several: sub-a_mask.nii, sub-a_t1_t2.nii.\n"
    assert capsys.readouterr().err == said
    series.rename(tmp_path / "channels" / "ct")
    both.open("train")
    assert capsys.readouterr().err == said.replace("over 2", "over 5 DICOM files, since there are NIfTI files; 2")


@pytest.mark.parametrize("axis", [0, 2])
def test_no_crop_to_train_on_touches_a_slab_that_is_held_out(tmp_path: Path, axis: int):
    shape = (12, 12, 12)
    nifti(tmp_path / "a.nii", np.arange(12**3, dtype=np.float32).reshape(shape))
    data = Volumes(path=tmp_path, crop=(3, 3, 3), crops=300, held_out=Slab(axis, 0.4))
    seen = {part: set(read(data.open(part), *range(300)).flatten().tolist()) for part in ("train", "held_out")}
    planes = {part: set(np.unravel_index(np.array(sorted(s), int), shape)[axis].tolist()) for part, s in seen.items()}
    assert planes == {"train": set(range(7)), "held_out": set(range(7, 12))}
    assert "expected at most (5, 12, 12)" in refused(replace(data, crop=(6, 3, 3), held_out=Slab(0, 0.4)), "held_out")


def test_crops_are_inside(tmp_path: Path):
    array = np.zeros((30, 8, 8), np.float32)
    array[:6] = 1
    nifti(tmp_path / "a.nii", array)
    data = Volumes(path=tmp_path, crop=(4, 4, 4), crops=50, held_out=ALL)
    anywhere = read(data.open("train"), *range(50)).mean((1, 2, 3, 4))
    inside = read(replace(data, inside=Inside(above=0.5, share=0.5)).open("train"), *range(50)).mean((1, 2, 3, 4))
    assert (anywhere == 0).mean() > 0.5
    assert (inside >= 0.5).mean() > 0.9


def test_held_out_volumes_are_whole_ones(tmp_path: Path):
    data = Volumes(path=folder_of(tmp_path, 20), held_out=Whole(0.3))
    parts = [{row.tobytes() for row in read(s, *range(len(s)))} for s in map(data.open, ("train", "held_out"))]
    assert len(parts[0]) + len(parts[1]) == len(parts[0] | parts[1]) == 20
    assert 2 <= len(parts[1]) <= 10
    assert "leaves none of 20 volumes in the part held_out" in refused(replace(data, held_out=ALL), "held_out")


def test_grids_that_differ_are_named_and_brought_together(tmp_path: Path):
    nifti(tmp_path / "a.nii", values(8, 8, 8), np.diag([1.0, 1, 1, 1]))
    nifti(tmp_path / "b.nii", values(8, 8, 8), np.diag([-1.0, 1, 2, 1]))
    data = Volumes(path=tmp_path, crop=(4, 4, 4), held_out=ALL)
    assert "data.axes: got volumes of different axes to: RAS in a.nii, LAS in b.nii" in refused(data)
    turned = replace(data, axes="RAS")
    assert "1 x 1 x 1 mm in a.nii, 1 x 1 x 2 in b.nii" in refused(turned)
    alike = replace(turned, spacing=(1.0, 1.0, 1.0)).open("train")
    assert len(alike) == 2 * data.crops
    assert alike.facts.view == VolumeView(
        affine=((1.0, 0.0, 0.0, -1.5), (0.0, 1.0, 0.0, -1.5), (0.0, 0.0, 1.0, -1.5)), code=1, unit="mm", quantity=""
    )
    assert "different size" in refused(replace(turned, crop=None, spacing=(1.0, 1.0, 1.0)))
    nifti(tmp_path / "b.nii", values(8, 8, 8), np.eye(4), unit="micron")
    assert "different unit: mm in a.nii, micron in b.nii" in refused(data)


def test_what_cannot_be_used_is_named_or_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    array = values(8, 10, 6)
    array[1, 2, 3], array[4, 5, 0] = np.nan, np.inf
    nifti(folder_of(tmp_path, 30) / "sub-9.nii.gz", array)
    (tmp_path / "sub-8.nii.gz").write_bytes(b"hello")
    data = Volumes(path=tmp_path, held_out=ALL)
    said = refused(data)
    assert "got 2 unreadable among 30 volumes" in said
    assert "sub-9.nii.gz: NaN or infinity in 2 voxels" in said and "sub-8.nii.gz: " in said
    assert len(replace(data, bad_limit=0.1).open("train")) == 28
    assert capsys.readouterr().err.startswith("Skipped 2 unreadable of 30 volumes (sub-8.nii.gz: ")
    (tmp_path / "sub-8.nii.gz").unlink()
    x = read(replace(data, nan=-5.0).open("train"), *range(29))
    assert np.isfinite(x).all() and (x == -5).sum() == 2


def test_a_file_that_changes_is_read_anew(tmp_path: Path):
    data = Volumes(path=folder_of(tmp_path / "in"), held_out=ALL, cache=tmp_path / "cache")
    before = read(data.open("train"), 0)
    kept = {file: file.stat().st_ctime_ns for file in (tmp_path / "cache" / "volumes").glob(f"*/{VALUES}")}
    assert len(kept) == 3
    assert np.array_equal(read(data.open("train"), 0), before)
    assert {file: file.stat().st_ctime_ns for file in kept} == kept, "read once"
    nifti(tmp_path / "in" / "sub-0.nii.gz", values(8, 10, 6, seed=9))
    assert np.array_equal(read(data.open("train"), 0)[0, 0], values(8, 10, 6, seed=9))
    (tmp_path / "file").touch()
    assert "data.cache: got" in refused(replace(data, cache=tmp_path / "file"))


def test_volumes_that_nobody_has_looked_at_for_long_are_removed_when_others_come(tmp_path: Path):
    data = Volumes(path=folder_of(tmp_path / "in"), held_out=ALL, cache=tmp_path / "cache")
    before = read(data.open("train"), 0, 1, 2)
    replace(data, axes="RAS").open("train")
    place = tmp_path / "cache" / "volumes"
    assert len(list(place.iterdir())) == 6
    for path in [*place.rglob("*")]:
        os.utime(path, (time.time() - UNUSED_SECONDS - 60,) * 2)
    assert np.array_equal(read(data.open("train"), 0, 1, 2), before)
    assert len(list(place.iterdir())) == 6, "none was read"
    nifti(tmp_path / "in" / "sub-3.nii.gz", values(8, 10, 6, seed=3))
    assert np.array_equal(read(data.open("train"), 0, 1, 2), before)
    assert len(list(place.iterdir())) == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"axes": "RAX"}, "axes: got 'RAX'"),
        ({"axes": "RLS"}, "axes: got 'RLS'"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing: got"),
        ({"crop": (0, 1, 1)}, "crop, crops: got"),
        ({"held_out": Slab()}, "got what is for crops"),
        ({"inside": Inside()}, "got what is for crops"),
    ],
)
def test_configs_that_cannot_be_are_refused(fields: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Volumes(**fields)
    for make in (lambda: Slab(axis=3), lambda: Whole(share=1.0), lambda: Inside(share=2)):
        with pytest.raises(ValueError):
            make()


def test_places_without_volumes_are_named(tmp_path: Path):
    assert "which is not there" in refused(Volumes(path=tmp_path / "none"))
    assert "without NIfTI files (.nii, .nii.gz) or DICOM series" in refused(Volumes(path=tmp_path))


def test_the_brain_is_held_out_on_its_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = MNI152(crops=8, cache=tmp_path)
    for part, left in (("train", True), ("held_out", False)):
        samples = data.open(part)
        batch = samples.read(torch.arange(8))
        assert batch.x.shape == (8, 3, 32, 32, 32)
        assert batch.x.amin() >= 0 and batch.x.amax() <= 255
        place = replace(data, symmetric=False).open(part).read(torch.arange(8)).tensor("place")
        assert ((place[:, 0] < 0) == left).all()
        assert torch.equal(batch.tensor("place")[:, 0], place[:, 0].abs()), "what mirrors each other is told the same"
        assert ((batch.x[:, 0] > 10).float().mean((1, 2, 3)) > 0.5).float().mean() > 0.8
        view = samples.facts.view
        assert isinstance(view, VolumeView) and view.names == ("t1", "gm", "wm")
        assert view.code == 1, "the files' own is another, which crops about 0 are not in"
    assert not capsys.readouterr().err, "of what else the package ships"
