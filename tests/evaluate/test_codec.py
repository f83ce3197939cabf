"""A codec's reconstructions, judged beside held-out data."""

import json
from math import log10
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import Codec
from anydit.data import Arrays, ArrayView, Digits, Images
from anydit.evaluate import report as reports
from anydit.evaluate.evaluate import evaluate_codec
from anydit.evaluate.features import RandomNetwork

CPU = torch.device("cpu")
VIEW = Images(low=0, high=16)


class Rounded(Codec):
    """A codec that keeps whole multiples of `unit`."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def encode(self, x: Tensor) -> Tensor:
        return (x / self.unit).round()

    def decode(self, z: Tensor) -> Tensor:
        return z * self.unit


def test_figures_of_reconstructions(quick: Path):
    data = Digits()
    x = data.open("held_out").read(torch.arange(len(data.open("held_out")))).x
    fine, coarse = (evaluate_codec(Rounded(unit), VIEW, data, CPU) for unit in (3.0, 9.0))
    names = ["psnr", "ssim", "accuracy", "frechet", "kernel", "precision", "recall"]
    assert list(fine.figures) == names and fine.subject == "reconstructions"
    error = (Rounded(3.0).decode(Rounded(3.0).encode(x)).clamp(0, 16) - x).square().mean()
    assert fine.figures["psnr"].samples == pytest.approx(10 * log10(256 / float(error)), abs=1e-3)
    assert fine.figures["psnr"].samples > coarse.figures["psnr"].samples
    assert 1 > fine.figures["ssim"].samples > coarse.figures["ssim"].samples
    assert fine.figures["frechet"].samples < coarse.figures["frechet"].samples
    assert fine.figures["frechet"].floor == coarse.figures["frechet"].floor
    assert fine.counts["samples"] == fine.counts["held_out"] == len(x)
    width, height = fine.pictures["reconstructions"].size
    assert height == pytest.approx(width, rel=0.05), "five rows, each over its reconstructions"


def test_the_report_is_written_and_read(quick: Path, tmp_path: Path):
    report = evaluate_codec(Rounded(4.0), VIEW, Digits(), CPU, samples=100)
    reports.write(report, tmp_path, "A codec")
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["figures"]["psnr"]["floor"] is None and content["figures"]["psnr"]["ratio"] is None
    assert content["counts"]["samples"] == 100
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<th>reconstructions</th>" in page and "each row over that of their reconstructions" in page
    assert "network calls" not in reports.summary(report)


def test_data_without_labels_or_bounds(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(3, 2, (200, 2, 12)).astype(np.float32))
    report = evaluate_codec(Rounded(0.5), ArrayView(), Arrays(path=tmp_path / "x.npy", held_out=0.2), CPU)
    assert list(report.figures) == ["psnr", "ssim", "frechet", "kernel", "precision", "recall"]
    assert report.features == RandomNetwork.name
    assert "no labels" in report.notes[0]


def test_too_few_or_too_many_are_refused(quick: Path):
    for samples in (5, 100_000):
        with pytest.raises(ValueError, match=f"samples: got {samples}, expected 20 to 3"):
            evaluate_codec(Rounded(1.0), VIEW, Digits(), CPU, samples=samples)
