"""Videos and volumes of several sizes, trained on, drawn and evaluated; a run that broke off ends as it would have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import Data, EachSize, VideoFolder, Videos, View, Volumes, VolumeView, Whole
from anydit.evaluate import classifier
from anydit.evaluate import volumes as volume_figures
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import RandomNetwork
from anydit.model.conditioning import Condition, Label
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.train.ema import EMA
from anydit.train.loop import train
from anydit.train.recipe import Recipe
from tests.data.video import test_sizes as videos
from tests.data.volumes import test_sizes as volumes
from tests.train.tiny import ends_as, silent, tiny_with


def recipe_of(data: Data, view: View, conditions: dict[str, Condition], **some: Any) -> Recipe:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4, 4), conditions=conditions, position=Rope())
    return replace(tiny_with(**some), model=model, codec=Normalize(), view=view, data=data)


def of_kind(kind: str, root: Path, count: int, share: float, **some: Any) -> Recipe:
    if kind == "videos":
        data: Data = VideoFolder(path=videos.folder_of(root, count), seconds=1.5, shorter=(1.0,), stride=0.125,
                                 size=(8, 8), channels=1, buckets=videos.THREE, held_out=share)  # fmt: skip
        return recipe_of(data, Videos(), {"label": Label()}, **some)
    data = Volumes(path=volumes.folder_of(root, count), buckets=EachSize(4), held_out=Whole(share))
    return recipe_of(data, VolumeView(), {}, **some)


@pytest.fixture(params=["videos", "volumes"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    return request.param


@pytest.mark.fault("T1")
def test_a_run_that_broke_off_ends_as_if_nothing_had_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    """An error in a step."""
    recipe = of_kind(kind, tmp_path / "in", 12, 0.0, steps=8)
    real = EMA.update

    def update(self: EMA, step: int, applied: Any) -> None:
        if step == 6:
            raise OSError("broken")
        real(self, step, applied)

    with monkeypatch.context() as once, pytest.raises(OSError, match="broken"):
        once.setattr(EMA, "update", update)
        train(recipe, tmp_path / "run", "cpu", silent)
    notes = list[str]()
    train(recipe, tmp_path / "run", "cpu", notes.append)
    assert any("Going on from step 4 of 8" in note for note in notes)
    train(recipe, tmp_path / "whole", "cpu", silent)
    ends_as(tmp_path / "run", tmp_path / "whole")


def test_samples_have_the_size_asked_for_and_figures_say_of_which_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    for name, value in (("LEAST_SEEN", 100), ("EPOCHS", 1)):
        monkeypatch.setattr(classifier, name, value)
    monkeypatch.setattr(volume_figures, "slice_features", lambda x, *_: RandomNetwork(x, torch.device("cpu")))
    recipe = of_kind(kind, tmp_path / "in", 36 if kind == "videos" else 80, 0.5, steps=2)
    sizes = [(12, 8, 8), (8, 8, 16), (12, 16, 16)] if kind == "videos" else [(8, 8, 8), (8, 12, 8), (4, 4, 12)]
    data = recipe.data
    pipeline = train(recipe, tmp_path / "run", "cpu", silent)
    for size in sizes:
        assert pipeline.sample(2, size=size).shape == (2, 1, *size)
    drawn = {file.name for file in (tmp_path / "run").glob("samples*.png")}
    assert "samples.png" in drawn and len(drawn) == len(data.open("train").sizes)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"size: got .*, expected multiples of patch \(4, 4, 4\)"):
        pipeline.sample(1, size=(8, 8, 6))
    report = evaluate(pipeline, data, samples=20)
    said = [note for note in report.notes if note.startswith("Figures and pictures are of the size ")]
    assert len(said) == 1 and "of the held-out data have. The training data have the sizes" in said[0]
    assert all(torch.isfinite(torch.tensor(figure.samples)) for figure in report.figures.values())
