"""What a person says of a file: nothing of it is passed over."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.codecs import Normalize
from anydit.data import Images
from anydit.inverse.operators import MRI, Inpainting
from anydit.inverse.scan.source import Source, opened
from tests.inverse.scan.test_kspace import acquired, of_size
from tests.inverse.test_adapter import IMAGE, pipeline


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"measured": True}, "measured: got True"),
        ({"mask": Path("a.npy")}, "mask: got a.npy"),
        ({"coil_maps": Path("a.npy")}, "coil-maps: got a.npy"),
        ({"slices": [0]}, r"slices: got \[0\]"),
    ],
)
def test_what_is_said_of_a_file_wants_one(told: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=f"{named}, and no SCAN that it would be of"):
        Source(**told)
    assert Source(Path("scan.npy"), **told).path and Source(scale=2.0, sigma=0.1).path is None


def test_masks_are_numbers(tmp_path: Path):
    """NaN is what is unknown in arrays, and would count as measured in a mask."""
    np.save(tmp_path / "a.npy", np.linspace(1, 16, 64, dtype=np.float32).reshape(1, 1, 8, 8))
    for kind in (np.longdouble, ">f4", ">i2"):
        np.save(tmp_path / "mask.npy", np.eye(8).astype(kind))
        task, _ = opened(pipeline(), Source(tmp_path / "a.npy", mask=tmp_path / "mask.npy", sigma=0.1), Inpainting())
        assert int((task.jobs[0].y != 0).sum()) == 8
    np.save(tmp_path / "mask.npy", np.where(np.eye(8), 1, np.nan))
    with pytest.raises(ValueError, match=r"mask: got NaN or infinity in .*mask\.npy, expected 0 where nothing"):
        opened(pipeline(), Source(tmp_path / "a.npy", mask=tmp_path / "mask.npy", sigma=0.1), Inpainting())


@pytest.mark.parametrize("how", ["measured", "mask"])
def test_k_space_that_is_said_to_be_measured_is_used_whole(how: str, tmp_path: Path):
    """A mask says so, too: where it measures nearly all, what is left is not left out again."""
    np.save(tmp_path / "k.npy", acquired(1, 1.0, noise=0.01).y.numpy())
    np.save(tmp_path / "mask.npy", np.ones(32))
    told: dict[str, Any] = {"measured": True} if how == "measured" else {"mask": tmp_path / "mask.npy"}
    for said, share, known in (({}, 0.25, True), (told, 1.0, False)):
        task, _ = opened(of_size(32, 32), Source(tmp_path / "k.npy", **said), MRI(acceleration=4))
        assert (task.jobs[0].y != 0).float().mean().item() == pytest.approx(share, abs=0.01)
        assert (task.jobs[0].truth is not None) == known


def test_an_array_without_anything_is_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((0, 1, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"scan: got shape \(0, 1, 8, 8\), in which there is nothing"):
        opened(pipeline(), Source(tmp_path / "a.npy"), Inpainting())


def test_of_a_picture_the_scale_is_known(tmp_path: Path):
    Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    task, _ = opened(pipeline(), Source(tmp_path / "a.png"), Inpainting())
    assert task.jobs[0].truth is not None and task.jobs[0].truth.max().item() == pytest.approx(16 * 252 / 255)


def test_of_a_dark_picture_more_than_black_is_multiplied(tmp_path: Path):
    """And divided again in what is written."""
    Image.fromarray(np.arange(0, 64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    pipe = pipeline(contrast=14.0, view=Images(low=-8, high=8), codec=Normalize.to_unit(-8, 8))
    with pytest.raises(ValueError, match=r"scan: got samples whose values are 3\.95.* apart.* --scale NUMBER"):
        opened(pipe, Source(tmp_path / "a.png"), Inpainting())
    task, origin = opened(pipe, Source(tmp_path / "a.png", scale=4.0), Inpainting())
    truth = task.jobs[0].truth
    assert truth is not None and (truth.min(), truth.max()) == (-8, pytest.approx(-8 + 16 * 252 / 255))
    torch.testing.assert_close(origin.values(truth), torch.arange(64.0).reshape(1, *IMAGE) * 16 / 255 - 8)
