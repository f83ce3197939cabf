"""What a person says of a file: nothing of it is passed over."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anydit.inverse.operators import Inpainting
from anydit.inverse.scan.source import Source, opened
from tests.inverse.test_adapter import pipeline


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


def test_of_a_picture_the_scale_is_known(tmp_path: Path):
    Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    task, _ = opened(pipeline(), Source(tmp_path / "a.png"), Inpainting())
    assert task.jobs[0].truth is not None and task.jobs[0].truth.max().item() == pytest.approx(16 * 252 / 255)
    with pytest.raises(ValueError, match=r"scale: got 2\.0 for .*a\.png, a picture, whose black and white are"):
        opened(pipeline(), Source(tmp_path / "a.png", scale=2.0), Inpainting())
