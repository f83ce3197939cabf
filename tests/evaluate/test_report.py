"""The report as a page that needs no other file, as JSON, as a table."""

import json
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from anydit.evaluate import pictures
from anydit.evaluate.compare import Figure
from anydit.evaluate.evaluate import Report
from anydit.evaluate.report import CAPTIONS, html, summary, table, write
from anydit.weights import read_config

RED, BLUE = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))


def report() -> Report:
    return Report(
        figures={
            "frechet": Figure("Fréchet distance", 3.25, 2.5, 0.125, "small is <good>"),
            "kernel": Figure("Kernel distance", -0.01, -0.02, None, "0 on average"),
        },
        features="64 features",
        counts={"samples": 744, "draws": 2, "held_out": 372, "training": 1425, "reference": 1425, "features": 64},
        settings={"sampling": {"type": "Sampling", "steps": 25}, "seed": 7},
        seconds={"samples": 1.5},
        network_calls=25,
        notes=("Only a few & so on.",),
        pictures={"samples": RED, "held_out": BLUE},
    )


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[tuple[str, Image.Image]] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        source = given.get("src") or given.get("href")
        if tag == "img" and source and source.startswith("data:image/png;base64,"):
            picture = Image.open(BytesIO(b64decode(source.partition(",")[2])))
            self.images.append((given.get("alt") or "", picture.convert("RGB")))
        elif source:
            self.links.append(source)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page():
    page = Page(html(report(), "runs/<digits>", {"loss": BLUE, "denoising": RED}))
    assert not page.links, "the page needs no other file"
    assert [alt for alt, _ in page.images] == [CAPTIONS[n] for n in ("samples", "held_out", "denoising", "loss")]
    assert [image.getpixel((0, 0)) for _, image in page.images] == [(255, 0, 0), (0, 0, 255)] * 2
    for words in ("runs/<digits>", "Fréchet distance", "3.25 ± 0.12", "2.5", "1.30", "small is <good>", "-0.01"):
        assert words in page.words, words
    assert any(words.startswith(summary(report())) for words in page.words)
    for words in ("Only a few & so on.", "sampling.steps", "25", "seed", "7", "seconds, samples"):
        assert words in page.words, words


def test_files(tmp_path: Path):
    paths = write(report(), tmp_path / "a" / "b", "title")
    assert [p.name for p in paths] == ["report.json", "report.html"]
    assert read_config(paths[0]) == json.loads(json.dumps(report().json()))
    assert len(Page(paths[1].read_text(encoding="utf-8")).images) == 2
    before = paths[1].read_bytes()
    write(report(), tmp_path / "a" / "b", "title")
    assert paths[1].read_bytes() == before
    assert len(list(paths[0].parent.iterdir())) == 2


@pytest.mark.parametrize("width", [60, 100])
def test_table(width: int):
    console = Console(width=width, record=True, file=StringIO())
    console.print(table(report(), "title"))
    text = console.export_text()
    row = next(line for line in text.splitlines() if "Fréchet" in line)
    assert [cell.strip() for cell in row.split("│")[1:5]] == ["Fréchet distance", "3.25 ± 0.12", "2.5", "1.30"]
    assert max(map(len, text.splitlines())) <= width


def test_summary():
    assert summary(report()) == (
        "744 samples in 2 draws, and 372 held-out samples, each against 1425 training samples, in 64 features. "
        "25 network calls a sample."
    )
    once = replace(report(), counts={**report().counts, "samples": 372, "draws": 1})
    assert summary(once).startswith("372 samples, and 372 held-out samples")


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_plot_of_classes(classes: int):
    """Samples always of class 0: one bar, or one point, is high, and the rest are at nothing."""
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    confusion[:, 0] = 5
    confusion[classes - 1] = 0
    held = 5 * torch.eye(classes, dtype=torch.long)
    names = [f"class {i}" for i in range(classes)]
    plot = pictures.confusion_plot(confusion, held, names)
    assert plot.width > plot.height > 300
    other = pictures.confusion_plot(held, held, names)
    assert plot.tobytes() != other.tobytes()
