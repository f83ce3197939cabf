"""Figures that only one modality has: registered for its view, in the report beside the others."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from anydit.config import config
from anydit.data import Arrays, ArrayView
from anydit.evaluate.compare import Figure
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.own import Own, own
from anydit.evaluate.report import html, write
from anydit.evaluate.sets import Sets
from anydit.inference.pipeline import Pipeline


@config
class Tides(ArrayView):
    """A modality of this test."""


@own.register
def _(view: Tides, x: Tensor, sets: Sets) -> Own:
    heights = {name: float(values.mean()) for name, values in (("samples", x), ("real", sets.real.x))}
    figure = Figure("Height", heights["samples"], heights["real"], None, "in m")
    return Own({"height": figure}, {"Tide <by> tide": view.picture(x[:4])})


def test_a_view_of_its_own_has_figures_of_its_own(arrays: tuple[Pipeline, Arrays], tmp_path: Path):
    pipeline, data = arrays
    plain = evaluate(pipeline, data, samples=20)
    view = Tides(low=-3, high=9)
    object.__setattr__(pipeline.config, "view", view)
    report = evaluate(pipeline, data, samples=20)
    assert {name: report.figures[name] for name in plain.figures} == plain.figures
    assert list(report.figures) == ["height", *plain.figures]
    assert 2 < report.figures["height"].floor < 4
    page = html(report, "Tides", {"loss": Image.new("RGB", (2, 2))})
    assert page.index("Training loss") < page.index("Tide &lt;by&gt; tide")
    assert len(write(report, tmp_path, "Tides")) == 2
