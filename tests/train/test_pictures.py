"""What a person looks at: sheets whose columns are classes, whatever their number."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import ArraySamples, Digits, Facts, Images
from anydit.data.sheet import arranged
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Condition, Label
from anydit.model.dit import DiTConfig
from anydit.model.text import Text
from anydit.train import pictures

Sheet = Callable[[dict[str, Condition], int], tuple[int, list[str], int | None]]


@pytest.fixture
def sheet_of(monkeypatch: pytest.MonkeyPatch) -> Sheet:
    """How many samples a sheet shows, with which captions and in how many columns, for conditions and a count."""
    picture, shown = Images.picture, list[Any]()

    def seen(self: Images, x: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        shown[:] = len(x), list(captions), columns
        return picture(self, x, captions, columns)

    def sheet(conditions: dict[str, Condition], n: int) -> tuple[int, list[str], int | None]:
        model = DiTConfig(width=8, depth=1, heads=1, patch=(2, 2), channels=1, size=(4, 4), conditions=conditions)
        config = PipelineConfig(model=model, codec=Normalize.to_unit(0, 1), sampling=Sampling(steps=1))
        samples = ArraySamples(np.zeros((3, 1, 4, 4), np.float32), Facts(1, (4, 4)))
        pictures.sheet(Pipeline(config), samples, n)
        return shown[0], shown[1], shown[2]

    monkeypatch.setattr(Images, "picture", seen)
    return sheet


@pytest.mark.parametrize(
    ("classes", "rows", "columns"), [(2, 10, 10), (3, 11, 9), (7, 10, 7), (10, 10, 10), (13, 7, 13), (16, 6, 16)]
)
def test_each_class_has_columns_of_its_own(classes: int, rows: int, columns: int, sheet_of: Sheet):
    names = tuple(f"c{i}" for i in range(classes))
    count, captions, got = sheet_of({"label": Label(classes, names=names)}, 100)
    assert (count, got) == (rows * columns, columns)
    grid = [captions[i : i + columns] for i in range(0, count, columns)]
    assert all(row == grid[0] for row in grid)
    assert grid[0] == [name for name in names for _ in range(columns // classes)]


def test_beside_a_text_classes_are_those_of_the_samples():
    digits = Digits().open("train")
    conditions: dict[str, Condition] = {"label": Label(10), "text": Text(width=4)}
    cond, captions = pictures.examples(digits, conditions, 12, 6)
    labels = digits.read(torch.arange(12)).tensor("label")
    assert torch.equal(cond["label"], labels) and captions == [str(i) for i in labels.tolist()]


@pytest.mark.parametrize("classes", range(2, 17))
@pytest.mark.parametrize("n", [20, 50, 100])
def test_sheets_are_about_square(classes: int, n: int):
    rows, columns = arranged(n, classes)
    assert columns % classes == 0 and n / 2 < rows * columns <= n
    assert rows <= 1.6 * columns and (columns <= 2.1 * rows or columns == classes)


@pytest.mark.parametrize(
    "conditions", [{}, {"label": Label(1)}, {"label": Label(17)}, {"label": Label(3), "side": Label(2)}]
)
def test_else_a_square_of_all(conditions: dict[str, Condition], sheet_of: Sheet):
    count, captions, columns = sheet_of(conditions, 50)
    assert (count, columns) == (50, None)
    assert len(captions) == (50 if conditions else 0)
