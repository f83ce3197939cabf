"""Whole volumes of several sizes: each is a bucket, nothing is cut, and a batch is of one."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from anydit.config import from_json, to_json
from anydit.data import Data, EachSize, Samples, Volumes, VolumeView, Whole
from anydit.data.base import Bucketed
from anydit.data.buckets import by_bucket, by_size
from anydit.data.loader import order_of, read_ahead
from anydit.inference.config import PipelineConfig, exported
from anydit.overrides import overridden
from anydit.train.resolve import resolved
from tests.data.loading import goes_on
from tests.data.volumes.scans import AFFINE, nifti, values
from tests.data.volumes.test_volumes import recipe_of

SIZES = ((8, 8, 8), (8, 12, 8), (8, 8, 8), (7, 5, 8))


def folder_of(folder: Path, count: int = 12, **how: Any) -> Path:
    for i in range(count):
        nifti(folder / f"sub-{i:02d}.nii.gz", values(*SIZES[i % 4], seed=i), **how)
    return folder


def data_of(path: Path, **changes: Any) -> Volumes:
    some = {"buckets": EachSize(4, fill=-7.0), "held_out": Whole(0.0), "cache": path.parent / "cache"}
    return Volumes(path=path, **(some | changes))


def refused(data: Data) -> str:
    with pytest.raises(ValueError) as error:
        data.open("train")
    return str(error.value)


def whole(samples: Samples) -> dict[int, np.ndarray]:
    """Every volume by its id."""
    out = dict[int, np.ndarray]()
    for ids in by_bucket(samples, torch.arange(len(samples)), 5):
        out |= dict(zip(ids.tolist(), samples.read(ids).x.numpy(), strict=True))
    return out


def test_volumes_keep_their_sizes_and_all_of_their_voxels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    samples = data_of(folder_of(tmp_path / "in")).open("train")
    assert isinstance(samples, Bucketed) and len(samples) == 12
    assert samples.facts.size == (8, 8, 8), "of the most"
    assert sorted(samples.sizes) == [(8, 8, 8), (8, 12, 8)]
    said = "12 volumes by size: 8x8x8 (75%), 8x12x8 (25%); at most 45% of a sample is filled up with -7.\n"
    assert capsys.readouterr().err == said
    found = list(whole(samples).values())
    for i in range(12):
        i_, j, k = SIZES[i % 4]
        there = [x for x in found if np.array_equal(x[0, :i_, :j, :k], values(i_, j, k, seed=i))]
        assert len(there) == 1
        rest = np.ones_like(there[0], bool)
        rest[:, :i_, :j, :k] = False
        assert (there[0][rest] == -7).all(), "after the end of an axis"
    with pytest.raises(ValueError, match=r"ids: got samples of sizes 8x8x8 and 8x12x8 in one batch, expected one"):
        samples.read(torch.arange(12))
    exact = data_of(tmp_path / "in", buckets=EachSize()).open("train")
    assert sorted(exact.sizes) == [(7, 5, 8), (8, 8, 8), (8, 12, 8)]  # type: ignore[attr-defined]
    assert "filled" not in capsys.readouterr().err


def test_the_loader_never_mixes_and_goes_on_as_it_was(tmp_path: Path):
    samples = data_of(folder_of(tmp_path / "in", 16)).open("train")
    batches = read_ahead(samples, order_of(samples, 2, 0), 0)
    first = [next(batches) for _ in range(16)]
    batches.close()  # type: ignore[attr-defined]
    assert {tuple(batch.x.shape[2:]) for batch in first} == {(8, 8, 8), (8, 12, 8)}
    assert set(torch.cat([batch.ids for batch in first]).tolist()) == set(range(16))
    goes_on(samples, order_of(samples, 2, 0), 5, first[5:9])


def test_places_are_kept_where_all_have_them(tmp_path: Path):
    data = data_of(folder_of(tmp_path / "in"))
    samples = data.open("train")
    saved = from_json(PipelineConfig, exported(resolved(recipe_of(data), samples, lambda _: None)))
    for part in by_size(samples):
        x = part.read(torch.tensor([0])).x
        out = nibabel.load(saved.view.write(x, tmp_path)[0])
        assert out.shape == part.facts.size and np.allclose(out.affine, AFFINE)
    moved = AFFINE + np.array([[0, 0, 0, 5]] + [[0] * 4] * 3)
    nifti(tmp_path / "in" / "sub-01.nii.gz", values(8, 12, 8), moved)
    view = data.open("train").facts.view
    assert isinstance(view, VolumeView)
    assert np.allclose(view.matrix @ [3.5, 3.5, 3.5, 1], [0, 0, 0, 1]), "the middle of most is at 0"


def test_what_is_not_asked_for_or_makes_no_sense_is_refused(tmp_path: Path):
    root = folder_of(tmp_path / "in", 4)
    said = refused(data_of(root, buckets=None))
    assert said.startswith(
        "data.crop, data.buckets: got volumes of different size: (8, 8, 8) in sub-00.nii.gz, (8, 12, "
    )
    assert "data.buckets: got EachSize(multiple=4, fill=-7.0) beside crops, expected whole volumes" in refused(
        data_of(root, crop=(4, 4, 4))
    )
    for bad in ({"multiple": 0}, {"fill": float("nan")}):
        with pytest.raises(ValueError, match=r"^buckets\.(multiple|fill): got"):
            EachSize(**bad)
    nifti(root / "sub-01.nii.gz", values(8, 12, 8), np.diag([3.0, 1, 1, 1]))
    assert "data.axes: got volumes of different axes" in refused(data_of(root))
    data = overridden(Volumes(), ["--buckets", "EachSize", "--buckets.multiple", "16"], "test")
    assert data.buckets == EachSize(16) and from_json(Volumes, to_json(data)) == data
