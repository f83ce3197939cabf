"""One model for everything: no modality is named where the model is, and another one needs only data and a recipe."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

import anydit
from anydit.codecs import Normalize
from anydit.config import config
from anydit.data import ArraySamples, ArrayView, Data, Facts, Part, Samples, View
from anydit.data.arrays import split
from anydit.evaluate.evaluate import evaluate
from anydit.inference.config import Sampling
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.recipes import RECIPES
from anydit.tensors import MASK, Batch
from anydit.train.base import Trainable
from anydit.train.loop import train
from anydit.train.optim import AdamW
from anydit.train.recipe import Recipe, TrainConfig

ROOT = Path(anydit.__file__).parent

MODALITIES = re.compile(
    r"\b(images\b|photo|audio|video|waveform|spectrogram|mel\b|sound|speech|film|frame rate|volumes|voxel|nifti|"
    r"dicom|scanner|brain|molecul|atoms?\b|smiles|protein|turbulen|fluid|weather|time series|forecast|pixel|rgb\b)",
    re.IGNORECASE,
)
"""Words by which code would know what it is about."""

ALLOWED = {"diffusion/samplers.py": {"pixel"}, "diffusion/losses.py": {"images"}}
"""Where a word only says what is usual."""

KNOWN_TO_TRAINING = {"ArraySamples", "Data", "Facts", "Samples", "View", "cache_folder"}
"""Of data: the seams."""
RECIPE_LINES = 80


@pytest.mark.parametrize("part", ["model", "diffusion", "train"])
def test_no_file_of_the_model_and_its_training_names_a_modality(part: str):
    for file in sorted((ROOT / part).glob("*.py")):
        found = {match[0].lower() for match in MODALITIES.finditer(file.read_text(encoding="utf-8"))}
        assert found <= ALLOWED.get(f"{part}/{file.name}", set()), file


def test_the_model_imports_no_data():
    """What a modality is lies in data: model and diffusion import none of it, training no kind."""
    for part, allowed in (("model", set[str]()), ("diffusion", set[str]()), ("train", KNOWN_TO_TRAINING)):
        for file in (ROOT / part).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module == "anydit.data":
                    assert {name.name for name in node.names} <= allowed, file
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("anydit.data."):
                    assert not (ROOT / "data" / (node.module or "").split(".")[2]).is_dir(), file


def test_a_recipe_is_short():
    for file in (ROOT / "recipes").glob("[!_]*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= RECIPE_LINES, file
    for name, make in RECIPES.items():
        assert isinstance(make(), Trainable), name


# A modality of four axes: movies of volumes, say. All that it needs is here.


@config
class Waves4d(Data):
    """Plane waves on four axes, in two classes that differ in their direction."""

    def open(self, part: Part) -> Samples:
        rng = np.random.default_rng(0)
        label, phase = rng.integers(0, 2, 300), rng.uniform(0, 2 * np.pi, 300)
        axes = np.stack(np.meshgrid(*[np.arange(4) * np.pi / 2] * 4, indexing="ij"))
        angle = np.where((label == 0)[:, None, None, None, None], axes[0] + axes[1], axes[2] + axes[3])
        x = np.sin(angle + phase[:, None, None, None, None])[:, None].astype(np.float32)
        facts = Facts(1, (4, 4, 4, 4), {"label": ("first", "last")})
        return ArraySamples(x, facts, {"label": torch.from_numpy(label)}, rows=split(300, 0.2, part))


def waves() -> Recipe:
    """A recipe for them."""
    model = DiTConfig(
        width=48, depth=2, heads=2, patch=(2, 2, 2, 2), position=Rope(), conditions={"label": Label(dropout=0.1)}
    )
    return Recipe(model=model, codec=Normalize(), view=ArrayView(), data=Waves4d(), sampling=Sampling(steps=10),
                  train=TrainConfig(steps=200, batch=32, optimizer=AdamW(lr=5e-3), ema_decay=0.98, sample_every=10**6,
                                    save_every=10**6, log_every=50))  # fmt: skip


def variance_along(x: Tensor) -> list[float]:
    """How much the values change along the first and along the last axis."""
    return [float(x.diff(dim=axis).square().mean()) for axis in (2, 5)]


def test_four_axes_need_only_data_and_a_recipe(tmp_path: Path):
    pipeline = train(waves(), tmp_path / "run", "cpu", lambda _: None)
    x = {label: pipeline.sample(16, {"label": label}) for label in ("first", "last")}
    real = Waves4d().open("held_out").read(torch.arange(20)).x
    assert x["first"].shape == (16, 1, 4, 4, 4, 4)
    for label, (along, across) in (("first", (0, 1)), ("last", (1, 0))):
        found = variance_along(x[label])
        assert found[along] > 1.5 * found[across], "each class changes along its own axes"
    assert float(x["first"].square().mean()) == pytest.approx(float(real.square().mean()), rel=0.4)
    again = anydit.load(tmp_path / "run")
    assert torch.equal(again.sample(2, {"label": "last"}), pipeline.sample(2, {"label": "last"}))
    paths = again.config.view.write(x["first"], tmp_path)
    assert np.load(paths[3]).shape == (1, 4, 4, 4, 4)
    with pytest.raises(ValueError, match="expected 1 to 3; give evaluate"):
        evaluate(again, Waves4d(), samples=20)
    report = evaluate(again, Waves4d(), features=Flat(), samples=40)
    assert any("No classifier sees 4 axes" in note for note in report.notes)
    assert report.figures["frechet"].samples > report.figures["frechet"].floor > 0


class Flat:
    """Features for what no network is made for."""

    name = "some of the values"

    def __call__(self, x: Float[Tensor, "b c *space"], /) -> Float[Tensor, "b d"]:
        return x.flatten(1)[:, ::37]


# A modality without a grid: graphs of points, of different numbers. All that it needs is here.


@dataclass(frozen=True)
class Rings:
    """Points on a ring, 3 to 8 of them, each as far from the next as from the one before; in any order."""

    facts: Facts
    numbers: Int[Tensor, " n"]
    most: int = 8

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        counts = self.numbers[ids]
        exists = torch.arange(self.most) < counts[:, None]
        angle = torch.arange(self.most) * 2 * torch.pi / counts[:, None] + ids[:, None]
        x = torch.stack([angle.cos(), angle.sin()], dim=1) * exists[:, None]
        return Batch(x, {MASK: exists}, ids)


@config
class Points(Data):
    """Rings, of which every fifth is held out."""

    def open(self, part: Part) -> Samples:
        ids = torch.arange(500)
        numbers = 3 + torch.from_numpy(np.random.default_rng(0).integers(0, 6, 500))
        return Rings(Facts(2, (8,)), numbers[(ids % 5 == 0) == (part == "held_out")])


@config
class Dots(View):
    """Points in the plane, as dots; written as a table of those that are there."""

    def picture(
        self, x: Float[Tensor, "b 2 n"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        image = Image.new("L", (40 * len(x), 40))
        for i, points in enumerate(x):
            for u, v in (20 + 15 * points.T).round().long().clamp(0, 39).tolist():
                image.putpixel((40 * i + u, v), 255)
        return image

    def save(self, x: Float[Tensor, "2 n"], path: Path) -> Path:
        path = path.with_name(f"{path.name}.txt")
        np.savetxt(path, x.T.numpy())
        return path


def rings() -> Recipe:
    """A recipe for them: a set has no position."""
    model = DiTConfig(width=48, depth=2, heads=2, patch=(1,), position=None)
    return Recipe(model=model, codec=Normalize(shift=(0.0,), scale=(0.7,)), view=Dots(), data=Points(),
                  sampling=Sampling(steps=20),
                  train=TrainConfig(steps=250, batch=64, optimizer=AdamW(lr=5e-3), ema_decay=0.98, sample_every=10**6,
                                    save_every=10**6, log_every=50))  # fmt: skip


def test_a_set_of_points_needs_only_data_and_a_recipe(tmp_path: Path):
    pipeline = train(rings(), tmp_path / "run", "cpu", lambda _: None)
    exists = torch.arange(8) < torch.tensor([3, 8] * 20)[:, None]
    x = pipeline.sample(40, {MASK: exists})
    radius = x.norm(dim=1)[exists]
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).norm(dim=1) * 0.7
    assert float((radius - 1).abs().mean()) < 0.7 * float((noise - 1).abs().mean())
    # As many as are there make a ring: three points are as far from each other as those of a triangle.
    triangles = x[::2, :, :3]
    sides = torch.stack([(triangles[:, :, i] - triangles[:, :, i - 1]).norm(dim=1) for i in range(3)])
    assert float(sides.mean()) == pytest.approx(3**0.5, rel=0.2)
    paths = anydit.load(tmp_path / "run").config.view.write(x[:1], tmp_path)
    assert np.loadtxt(paths[0]).shape == (8, 2)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    t, noisy = torch.full((1,), 0.5), x[1:2]
    with torch.no_grad():
        out, turned = pipeline.model(noisy, t), pipeline.model(noisy[:, :, order], t)
    assert torch.allclose(out[:, :, order], turned, atol=1e-5), "the order of a set means nothing"
