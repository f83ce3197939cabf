"""Figures of fields, where their values are known, and a whole report of them."""

from dataclasses import replace
from math import pi
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.data import Axis, Fields, FieldView
from anydit.data.fields.flow import Flow
from anydit.evaluate import fields as module
from anydit.evaluate import sets as the_sets
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.own import own
from anydit.evaluate.own.fields import _of_vector, spectrum, vectors
from anydit.evaluate.own.gradients import gradients
from anydit.evaluate.sets import opened
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from tests.data.fields import grids

SQUARE = (Axis("x", step=2 * pi / 16, periodic=True), Axis("y", step=2 * pi / 16, periodic=True))


def at(axis: Axis, n: int) -> Tensor:
    return torch.from_numpy(axis.places(n))


def flows(n: int) -> Tensor:
    flow = Flow(torch.full((n,), 40.0), 16)
    return flow.velocity(flow.start(0))


def test_a_waves_energy_is_at_its_wavenumber():
    x, y = at(SQUARE[0], 16)[:, None], at(SQUARE[1], 16)[None]
    waves = torch.stack([3 * torch.cos(3 * x + 4 * y), 2 + torch.sin(2 * y).expand(16, 16)])[None]
    found = spectrum(waves, SQUARE, torch.tensor([3.0, 1.0]))
    assert found.half == 4 and len(found.energy) == 8
    assert torch.allclose(found.energy[[1, 4]], torch.tensor(0.5, dtype=torch.float64)), "waves 2 and 5"
    assert float(found.energy.sum()) == pytest.approx(1)


def test_wavenumbers_of_a_long_box_count_along_its_longest_axis():
    axes = (Axis("x", step=1.0, periodic=True), Axis("y", step=0.25, periodic=True))
    y = at(axes[1], 16)[None]
    found = spectrum(torch.cos(2 * pi * y / 4).expand(1, 1, 32, 16), axes, torch.ones(1))
    assert int(found.energy.argmax()) + 1 == 8
    assert len(found.energy) == 16


def test_white_noise_has_its_variance_in_all_wavenumbers_together():
    axes = (Axis("x", periodic=True),)
    found = spectrum(torch.randn(4000, 1, 16), axes, torch.ones(1))
    assert torch.allclose(found.energy[:7], torch.tensor(2 / 16, dtype=torch.float64), atol=0.01)


def test_open_ends_leak_little():
    """Of a slope, which is no wave, nothing is left at high wavenumbers."""
    slope = torch.linspace(-1, 1, 32).reshape(1, 1, 32)
    open_, closed = (spectrum(slope, (Axis("x", periodic=periodic),), torch.ones(1)) for periodic in (False, True))
    assert (
        float(open_.energy[8:].sum() / open_.energy.sum()) < 1e-3 < float(closed.energy[8:].sum() / closed.energy.sum())
    )


def test_a_solved_flow_has_no_divergence():
    g = gradients(flows(3), SQUARE)
    assert g.shape == (2, 2, 3, 16, 16)
    assert float(g.diagonal().sum(-1).abs().max()) < 1e-5 < float(g.abs().max())
    flow = Flow(torch.full((3,), 40.0), 16)
    vorticity = torch.fft.irfft2(flow.start(0))
    assert torch.allclose((g[1, 0] - g[0, 1]).float(), vorticity, atol=1e-5)


def test_a_flow_is_told_from_one_that_sinks_into_sources():
    """What is the curl of one is the divergence of the other, turned by a right angle: all of its gradient."""
    swirl, other = flows(40), flows(50)[40:]
    sink = torch.stack([swirl[:, 1], -swirl[:, 0]], 1)
    figures = _of_vector([sink, swirl, swirl], SQUARE)
    assert figures["divergence"].floor < 1e-5
    assert figures["divergence"].samples == pytest.approx(1, abs=1e-6)
    assert figures["vorticity"].floor == 0 and figures["flatness"].floor == pytest.approx(3, abs=0.3)
    spread = float((c := gradients(swirl, SQUARE))[1, 0].sub(c[0, 1]).abs().div((c[1, 0] - c[0, 1]).std()).mean())
    assert figures["vorticity"].samples == pytest.approx(spread, rel=0.02), "all of it has to be moved to 0"
    assert 0 < _of_vector([other, swirl, swirl], SQUARE)["vorticity"].samples < 0.1
    assert _of_vector([swirl.sign() * swirl.abs() ** 3, swirl, swirl], SQUARE)["flatness"].samples > 4


def test_what_is_a_vector():
    axes = (Axis("lat"), Axis("lon"))
    view = FieldView(variables=("p", "wind_lon", "u", "wind_lat", "v"), axes=axes)
    assert vectors(view) == [(3, 1), (4, 2)]
    assert vectors(FieldView(variables=("u", "v"), axes=(Axis("x"),))) == []
    assert vectors(FieldView(variables=("u", "v"))) == []
    assert vectors(FieldView(variables=("w", "v", "u"), axes=(*axes, Axis("z")))) == [(1, 2, 0)]


@pytest.mark.parametrize(
    ("axes", "parts"),
    [
        (("x", "y"), "uv"),
        (("Latitude", "longitude"), "vu"),
        (("level", "lat", "lon"), "wvu"),
        (("rows", "columns"), "uv"),
        (("rows", "x"), "vu"),
        (("x", "z"), "uw"),
        (("lon", "x"), "uv"),
        (("rows", "lat", "lon"), "wvu"),
    ],
)
def test_components_are_along_the_axes_that_are_called_so(axes: tuple[str, ...], parts: str):
    view = FieldView(variables=("u", "v", "w"), axes=tuple(map(Axis, axes)))
    assert vectors(view) == [tuple(map("uvw".index, parts))]


def test_units_say_where_degrees_go():
    axes = (Axis("rows", unit="degrees_north"), Axis("columns", unit="degrees_east"))
    assert vectors(FieldView(variables=("u", "v"), axes=axes)) == [(1, 0)]


def test_on_x_and_z_v_is_along_z_where_there_is_no_w():
    assert vectors(FieldView(variables=("u", "v"), axes=(Axis("z"), Axis("x")))) == [(1, 0)]


def test_a_flow_without_divergence_has_none_whatever_the_order_of_its_axes():
    flow, view = flows(2), FieldView(variables=("u", "v"), axes=SQUARE)
    for states, axes in ((flow, SQUARE), (flow.transpose(2, 3), SQUARE[::-1])):
        (parts,) = vectors(replace(view, axes=axes))
        assert _of_vector([states[:, list(parts)]] * 3, axes)["divergence"].samples < 1e-5


def test_of_several_vectors_each_has_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A vector whose components, or whose axes, are in different units has none, and that is said."""
    monkeypatch.setattr(the_sets, "LEAST", 5)
    with h5py.File(tmp_path / "a.h5", "w") as out:
        for name, unit in (("wind", "m/s"), ("field", "T"), ("odd_x", "m/s"), ("odd_y", "km/h")):
            shape = (12, 8, 8) if "_" in name else (12, 8, 8, 2)
            out[name] = grids.values(*shape, seed=len(name))
            out[name].attrs["units"] = unit
    data = Fields(path=tmp_path / "a.h5", axes=("time", "x", "y", "component"), held_out=0.5)
    recipe = Recipe(model=DiTConfig(16, 1, 2, (2, 2)), sampling=Sampling(steps=2), view=FieldView(), data=data)
    report = evaluate(Pipeline(resolved(recipe, data.open("train"), lambda _: None)), data, samples=5)
    names = [f"{kind} of {name}" for name in ("field", "wind") for kind in ("divergence", "vorticity", "flatness")]
    assert [name for name in report.figures if " of " in name] == names
    assert report.figures["divergence of wind"].title == "Divergence of wind"
    said = "Of odd there is no divergence and no vorticity: its components are in 'm/s', 'km/h'."
    assert said in report.notes


@pytest.fixture
def forecaster(tmp_path: Path) -> tuple[Pipeline, Fields]:
    """Winds, and an untrained pipeline that is to foresee them."""
    grids.netcdf(tmp_path / "a.nc")
    data = Fields(path=tmp_path / "a.nc", variables=("u", "v"), past=1, held_out=0.6)
    model = DiTConfig(16, 1, 2, (2, 2), conditions={"past": Field()})
    recipe = Recipe(model=model, sampling=Sampling(steps=2), view=FieldView(), data=data)
    return Pipeline(resolved(recipe, data.open("train"), lambda _: None)), data


def test_a_report_has_them(forecaster: tuple[Pipeline, Fields], monkeypatch: pytest.MonkeyPatch):
    pipeline, data = forecaster
    monkeypatch.setattr(the_sets, "LEAST", 5)
    held = len(data.open("held_out"))
    report = evaluate(pipeline, data, samples=4 * held)
    names = ["spectrum", "values", "divergence", "vorticity", "flatness", "crps", "spread"]
    assert list(report.figures)[: len(names)] == names
    assert report.figures["crps"].title == "CRPS of 4"
    assert all(np.isfinite(report.figures[name].samples) for name in names)
    assert "Energy by wavenumber, in waves along the longest axis" in report.pictures


def test_data_as_samples_are_as_good_as_held_out_data(
    forecaster: tuple[Pipeline, Fields], monkeypatch: pytest.MonkeyPatch
):
    pipeline, data = forecaster
    monkeypatch.setattr(the_sets, "LEAST", 5)
    sets = opened(pipeline, data, len(data.open("held_out")))
    figures = own(sets.view, sets.real.x, sets).figures
    for name in ("spectrum", "values", "divergence", "vorticity", "flatness"):
        assert figures[name].samples == pytest.approx(figures[name].floor)
    assert figures["crps"].samples == 0 and "spread" not in figures
    noise = own(sets.view, 2 * torch.randn_like(sets.real.x), sets).figures
    assert noise["values"].samples > 2 * noise["values"].floor
    assert noise["crps"].samples > 1


def test_a_variable_that_never_varies_spoils_no_figure(
    forecaster: tuple[Pipeline, Fields], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pipeline, data = forecaster
    data = replace(data, path=tmp_path / "b.nc")
    grids.netcdf(data.path)
    with netCDF4.Dataset(data.path, "a") as out:
        out["v"][:] = 2.0
    monkeypatch.setattr(the_sets, "LEAST", 5)
    sets = opened(pipeline, data, len(data.open("held_out")))
    figures = own(sets.view, sets.real.x + 0.1, sets).figures
    assert all(np.isfinite(figures[name].samples) for name in ("spectrum", "values", "divergence", "vorticity", "crps"))


def test_several_states_in_a_sample_are_all_looked_at(
    forecaster: tuple[Pipeline, Fields], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(the_sets, "LEAST", 5)
    _, data = forecaster
    data = replace(data, future=2)
    recipe = Recipe(model=DiTConfig(16, 1, 2, (2, 2), conditions={"past": Field()}), view=FieldView(), data=data)
    pipeline = Pipeline(resolved(recipe, data.open("train"), lambda _: None))
    sets = opened(pipeline, data, len(data.open("held_out")))
    seen = list[tuple[int, ...]]()
    monkeypatch.setattr(module, "wasserstein", lambda a, b: seen.append((len(a), len(b))) or 0.0)
    figures = own(sets.view, sets.real.x, sets).figures
    count = len(sets.real.x)
    assert seen[0][0] == 2 * count * grids.X * grids.Y
    assert figures["crps"].samples == 0
