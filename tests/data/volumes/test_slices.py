"""Slices of volumes: each of them that of a file, in its part, and written where it was."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from anydit.data import Bands, EachSize, Inside, Moved, Slices, SliceView, Volumes, Whole
from anydit.data.volumes.slices import centered
from anydit.recipes.slices import brain_slices
from tests.data.volumes.scans import nifti, values

ALL = Whole(0.0)


def slices_of(folder: Path, count: int = 2) -> Slices:
    for i in range(count):
        nifti(folder / f"sub-{i}.nii.gz", values(8, 10, 6, seed=i))
    return Slices(volumes=Volumes(path=folder), held_out=ALL)


@pytest.mark.parametrize("across", [0, 1, 2])
def test_slices_are_those_of_the_files(tmp_path: Path, across: int):
    data = replace(slices_of(tmp_path), across=across)
    samples = data.open("train")
    files = [np.asarray(nibabel.load(tmp_path / f"sub-{i}.nii.gz").dataobj) for i in range(2)]
    whole = np.concatenate([np.moveaxis(file, across, 0) for file in files])
    x = samples.read(torch.arange(len(samples))).x
    assert samples.facts.size == tuple(x.shape[2:])
    assert np.array_equal(x[:, 0].numpy(), whole)


def test_a_slice_is_written_one_voxel_thick_with_the_volumes_axes_and_spacing(tmp_path: Path):
    data = replace(slices_of(tmp_path), across=1)
    for i in range(2):
        nifti(tmp_path / f"sub-{i}.nii.gz", values(8, 10, 6, seed=i), code=4)
    samples = data.open("train")
    view = SliceView(across=1).like(samples.facts)
    x = samples.read(torch.tensor([3])).x
    (path,) = view.write(x, tmp_path)
    out, there = nibabel.load(path), nibabel.load(tmp_path / "sub-0.nii.gz")
    assert out.shape == (8, 1, 6)
    assert np.array_equal(np.asarray(out.dataobj)[:, 0], x[0, 0].numpy())
    assert np.allclose(out.affine[:3, :3], there.affine[:3, :3])
    assert int(out.header["sform_code"]) == int(out.header["qform_code"]) == 1, (
        "about 0, which is nowhere in MNI's space"
    )


def test_head_and_face_are_up_in_pictures():
    """Axial slices show the right on the right and the front above, whichever way the axes run."""
    x = torch.zeros(1, 1, 48, 64)
    x[:, :, 24:, 32:] = 1
    shown = np.asarray(SliceView(low=0, high=1).picture(x).convert("L"))[2:-2, 2:-2]
    assert shown.shape == (64, 48), "only the one slice, its front above"
    assert shown[:32, 24:].min() == 255
    assert shown[32:].max() == 0 and shown[:, :24].max() == 0


def test_bands_and_whole_volumes_are_held_out(tmp_path: Path):
    data = replace(slices_of(tmp_path, 1), held_out=Bands(slices=2, every=3))
    whole = np.moveaxis(np.asarray(nibabel.load(tmp_path / "sub-0.nii.gz").dataobj), 2, 0)
    train, held_out = (data.open(part).read(torch.arange(n)).x[:, 0] for part, n in (("train", 4), ("held_out", 2)))
    assert np.array_equal(train.numpy(), whole[:4]) and np.array_equal(held_out.numpy(), whole[4:])
    assert [k for k in range(24) if Bands(slices=12, every=2).middle(k)] == [*range(3, 9), *range(15, 21)]
    some = replace(slices_of(tmp_path, 4), held_out=Whole(0.6))
    assert (len(some.open("train")), len(some.open("held_out"))) == (18, 6)
    with pytest.raises(ValueError, match="no slice for the part held_out"):
        replace(data, held_out=Bands(slices=100)).open("held_out")


def test_slices_that_hold_little_are_left_out(tmp_path: Path):
    array = np.zeros((8, 10, 6), np.float32)
    array[:4, :, 2:4] = 100
    nifti(tmp_path / "a.nii.gz", array)
    data = Slices(volumes=Volumes(path=tmp_path), held_out=ALL, inside=Inside(above=10, share=0.5))
    assert len(data.open("train")) == 2


@pytest.mark.parametrize("size", [(4, 16), (9, 7), (8, 10), (5, 5)])
def test_slices_are_cut_and_filled_about_their_middle_and_go_back(size: tuple[int, int]):
    x = values(2, 8, 10)
    there = centered(x, size, -1)
    assert there.shape == (2, *size)
    back = centered(there, (8, 10), -1)
    kept = back != -1
    assert np.array_equal(back[kept], x[kept])
    assert kept.sum() == 2 * min(8, size[0]) * min(10, size[1])


def test_copies_are_moved_a_little_and_always_alike(tmp_path: Path):
    """Moved by nothing they are the slices; moved, they are smooth images of the same values nearby."""
    grid = np.stack(np.meshgrid(*(np.linspace(-3, 3, n) for n in (24, 20)), indexing="ij"))
    blob = (100 * np.exp(-(grid**2).sum(0)))[:, :, None].astype(np.float32)
    nifti(tmp_path / "a.nii.gz", blob)
    data = Slices(volumes=Volumes(path=tmp_path), held_out=ALL)
    (plain,) = data.open("train").read(torch.tensor([0])).x
    still = replace(data, moved=Moved(copies=3, by=0, shift=0)).open("train")
    assert len(still) == 3
    assert torch.allclose(still.read(torch.tensor([2])).x[0], plain, atol=1e-3)
    samples = replace(data, moved=Moved(copies=64)).open("train")
    x = samples.read(torch.arange(64)).x
    assert torch.equal(samples.read(torch.tensor([7, 3])).x, x[[7, 3]])
    assert x.min() >= plain.min() and x.max() <= plain.max()
    sums = x.sum((1, 2, 3)) / plain.sum()
    assert sums.std() > 0.03, "stretched"
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    middle = torch.stack([(x[:, 0] * at).sum((1, 2)) / x[:, 0].sum((1, 2)) for at in (rows, columns)])
    off = (middle - torch.tensor([[11.5], [9.5]])).abs().amax(1)
    assert (off > 0.3).all() and (off < 0.045 * torch.tensor([24, 20]) / 0.8).all(), "shifted by up to 4 %"
    assert len(replace(data, moved=Moved(), held_out=Bands(slices=1, every=2)).open("train")) == 64


@pytest.mark.parametrize("axis", [0, 1])
def test_half_of_the_copies_are_mirrored_along_an_axis(tmp_path: Path, axis: int):
    data = slices_of(tmp_path, 1)
    plain = data.open("train").read(torch.tensor([0])).x[0]
    moved = replace(data, moved=Moved(copies=64, by=0, shift=0, mirrored=axis)).open("train")
    x = moved.read(torch.arange(0, len(moved), 6)).x
    as_it_was = [torch.allclose(one, plain, atol=1e-3) for one in x]
    reversed_ = [torch.allclose(one, plain.flip(1 + axis), atol=1e-3) for one in x]
    assert all(a != b for a, b in zip(as_it_was, reversed_, strict=True)) and 16 < sum(reversed_) < 48


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Slices(across=3), "across"),
        (lambda: Slices(size=(0, 4)), "size"),
        (lambda: Slices(volumes=Volumes(crop=(4, 4, 4))), "volumes.crop"),
        (lambda: Slices(volumes=Volumes(buckets=EachSize())), "volumes.buckets"),
        (lambda: Bands(every=1), "every"),
        (lambda: Moved(by=0.6), "by"),
        (lambda: Moved(mirrored=2), "mirrored"),
        (lambda: SliceView(across=5), "across"),
    ],
)
def test_what_cannot_be_is_refused(wrong, says: str):
    with pytest.raises(ValueError, match=says):
        wrong()


def test_slices_of_different_sizes_need_one(tmp_path: Path):
    nifti(tmp_path / "a.nii.gz", values(8, 10, 6))
    nifti(tmp_path / "b.nii.gz", values(9, 10, 4))
    data = Slices(volumes=Volumes(path=tmp_path), held_out=ALL)
    with pytest.raises(ValueError, match=r"data\.size"):
        data.open("train")
    assert len(replace(data, size=(8, 8)).open("train")) == 10


def test_the_brains_held_out_slices_are_of_other_places():
    data = brain_slices().data
    assert isinstance(data, Slices)
    train, held_out = replace(data, moved=None).open("train"), data.open("held_out")
    assert train.facts.size == held_out.facts.size == (40, 48)
    a, b = (s.read(torch.arange(len(s))).x for s in (train, held_out))
    assert (len(a), len(b)) == (94, 32)
    assert torch.cdist(a.flatten(1), b.flatten(1)).min() > 0
