"""Samples of fields: which they are, what is known of them, who is held out, and what is refused."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import torch

from anydit.codecs import Normalize
from anydit.config import from_json, to_json
from anydit.data import Data, Fields, FieldView
from anydit.data.fields import fields as module
from anydit.data.fields.fields import FieldSamples, coarsened
from anydit.data.fields.view import Quantity
from anydit.data.loader import Order, read_ahead
from anydit.model.conditioning import Field, Numbers
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from tests.data.fields import grids
from tests.data.fields.grids import N, T, X, Y


def opened(path: Path, **fields: Any) -> FieldSamples:
    samples = Fields(**{"path": path, "held_out": 0.0} | fields).open("train")
    assert isinstance(samples, FieldSamples)
    return samples


def refused(path: Path, **fields: Any) -> str:
    with pytest.raises(ValueError, match=r"^data\.") as error:
        samples = opened(path, **fields)
        samples.read(torch.arange(len(samples)))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kept", [True, False])
def test_states_of_all_trajectories(tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(module, "KEPT_BYTES", 0)
    arrays = grids.netcdf(tmp_path / "a.nc")
    samples = opened(tmp_path / "a.nc", numbers=("speed", "density"))
    assert all((source.kept is not None) is kept for source in samples.sources)
    assert (samples.facts.channels, samples.facts.size, len(samples)) == (3, (X, Y), N * T)
    assert samples.facts.numbers == {"numbers": ("speed in m/s", "density")}
    batch = samples.read(torch.tensor([T + 2, 0]))
    for i, name in enumerate(("u", "v", "temperature")):
        assert np.array_equal(batch.x[:, i].numpy(), arrays[name][[1, 0], [2, 0]])
    assert batch.tensor("numbers").tolist() == [[1, 1.5], [0, 1.5]]
    batch.x.zero_()  # what is done to a batch is not done to the data
    assert np.array_equal(samples.read(torch.tensor([0])).x[0, 0].numpy(), arrays["u"][0, 0])


@pytest.mark.parametrize("kept", [True, False])
def test_the_future_after_the_past(tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(module, "KEPT_BYTES", 0)
    arrays = grids.netcdf(tmp_path / "a.nc")
    wanted = {"variables": ("v", "u"), "given": ("depth",), "past": 2, "future": 1, "stride": 2}
    samples = opened(tmp_path / "a.nc", **wanted)
    assert len(samples) == N * (T - 4)
    assert samples.facts.fields == {"past": 4, "given": 1}
    view = samples.facts.view
    assert isinstance(view, FieldView) and view.given == (Quantity("depth"),)
    assert replace(view, given=None) == opened(tmp_path / "a.nc", variables=("v", "u"), stride=2).facts.view
    batch = samples.read(torch.tensor([3 + 1]))  # the second trajectory, from its second state on
    past = [arrays[name][1, time] for time in (1, 3) for name in "vu"]
    assert np.array_equal(batch.tensor("past")[0].numpy(), past)
    assert np.array_equal(batch.x[0].numpy(), [arrays[name][1, 5] for name in "vu"])
    assert np.array_equal(batch.tensor("given")[0, 0].numpy(), arrays["depth"])
    two = opened(tmp_path / "a.nc", variables=("u",), past=1, future=2)
    batch = two.read(torch.tensor([0]))
    assert np.array_equal(batch.x[0].numpy(), arrays["u"][0, 1:3])
    assert torch.equal(two.trajectory(0, 1, 2)[:, 0], batch.x[0])
    assert len(two.trajectory(0, T - 1, 9)) == 1


def test_means_over_blocks(tmp_path: Path) -> None:
    arrays = grids.netcdf(tmp_path / "a.nc")
    samples = opened(tmp_path / "a.nc", variables=("u",), coarse=2)
    coarse = samples.read(torch.tensor([0])).tensor("coarse")
    u = arrays["u"][0, 0]
    assert samples.facts.fields == {"coarse": 1}
    assert np.allclose(coarse[0, 0, 2:4, 0:2].numpy(), u[2:4, 0:2].mean(), atol=1e-6)
    assert torch.allclose(coarsened(coarse, 2), coarse)
    assert "data.coarse: got 4, expected a divisor of each of (6, 4) points" in refused(tmp_path / "a.nc", coarse=4)


def test_the_well(tmp_path: Path) -> None:
    arrays = grids.the_well(tmp_path / "a.hdf5")
    names = ("density", "velocity", "stress", "profile")
    samples = opened(tmp_path / "a.hdf5", variables=names, given=("mask",), numbers=("viscosity", "reynolds"))
    view = samples.facts.view
    assert isinstance(view, FieldView)
    assert view.variables == (
        "density", "velocity_x", "velocity_y", "stress_xx", "stress_xy", "stress_yx", "stress_yy", "profile"
    )  # fmt: skip
    batch = samples.read(torch.tensor([2 * T + 3]))
    x = batch.x[0].numpy()
    assert np.array_equal(x[0], arrays["density"][2, 3])
    assert np.array_equal(x[1:3], np.moveaxis(arrays["velocity"][2, 3], -1, 0))
    assert np.array_equal(x[4], arrays["stress"][2, 3, :, :, 0, 1])
    assert np.array_equal(x[7], np.broadcast_to(arrays["profile"][2, 3], (X, Y)))
    assert np.array_equal(batch.tensor("given")[0, 0].numpy(), arrays["mask"])
    assert batch.tensor("numbers").tolist() == [[0.25, 20.0]]
    assert view.axes is not None and [(a.name, a.periodic) for a in view.axes] == [("x", True), ("y", False)]
    assert view.interval == pytest.approx(0.1)
    assert "data.variables: got none" not in refused(tmp_path / "a.hdf5", numbers=("speed",))
    assert opened(tmp_path / "a.hdf5").facts.channels == 8, "all that varies in time"


def test_folders_say_which_part_their_files_are_of(tmp_path: Path) -> None:
    for i, part in enumerate(("train", "valid", "test")):
        (tmp_path / "data" / part).mkdir(parents=True)
        grids.the_well(tmp_path / "data" / part / "a.hdf5", n=2, seed=10 * i)
    grids.the_well(tmp_path / "data" / "train" / "b.hdf5", n=3, seed=50)
    data = Fields(path=tmp_path, variables=("density",), numbers=("reynolds",))
    train, held = data.open("train"), data.open("held_out")
    assert (len(train), len(held)) == (5 * T, 2 * T)
    assert np.array_equal(held.read(torch.tensor([0])).x[0, 0].numpy(), grids.values(2, T, X, Y, seed=10)[0, 0])
    assert np.array_equal(train.read(torch.tensor([2 * T])).x[0, 0].numpy(), grids.values(3, T, X, Y, seed=50)[0, 0])
    assert train.read(torch.tensor([4 * T])).tensor("numbers").tolist() == [[20.0]]


def test_files_at_any_depth_are_read_and_others_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hidden ones, as those beside files that came from a Mac, are not; nor is what a store holds."""
    for name in ("a", "2001/b", "2001/may/c"):
        (folder := (tmp_path / name).parent).mkdir(exist_ok=True)
        grids.the_well(tmp_path / f"{name}.hdf5", n=1, seed=len(name))
        (folder / "._a.hdf5").write_bytes(b"\0\5\26\7")
    (tmp_path / "2001" / "c.grib").touch()
    samples = opened(tmp_path, variables=("density",))
    assert [source.file.name for source in samples.sources] == ["b.hdf5", "c.hdf5", "a.hdf5"]
    assert "Passed over files that are not named like fields: 1 with .grib.\n" in capsys.readouterr().err
    grids.store(tmp_path / "stores" / "deep" / "a.zarr", 3)
    grids.store(tmp_path / "stores" / "deep" / "a.zarr" / "within.zarr", 3)
    assert len(opened(tmp_path / "stores", variables=("u",))) == N * T


def test_parts_of_which_none_is_to_train_on_are_refused(tmp_path: Path) -> None:
    for part in ("test", "valid"):
        (tmp_path / part).mkdir()
        grids.the_well(tmp_path / part / "a.hdf5", n=1)
    said = (
        f"with the folders test, valid, which are parts; expected train among them, or one of them, as {tmp_path}/test"
    )
    assert said in refused(tmp_path)
    assert len(opened(tmp_path / "test")) == T


def test_whole_trajectories_are_held_out(tmp_path: Path) -> None:
    grids.netcdf(tmp_path / "a.nc")
    data = Fields(path=tmp_path / "a.nc", variables=("u",), held_out=0.5, numbers=("speed",))
    seen = [
        set(s.read(torch.arange(len(s))).tensor("numbers")[:, 0].tolist())
        for s in map(data.open, ("train", "held_out"))
    ]
    assert all(seen) and not seen[0] & seen[1] and seen[0] | seen[1] == {0, 1, 2, 3, 4}


def test_of_one_trajectory_the_last_time_is_held_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out["u"] = np.broadcast_to(np.arange(20.0)[:, None], (20, X))
    data = Fields(path=tmp_path / "a.h5", axes=("time", "x"), past=2, held_out=0.3)
    train, held = data.open("train"), data.open("held_out")
    states = [torch.cat([(b := s.read(torch.arange(len(s)))).x, b.tensor("past")], 1) for s in (train, held)]
    assert float(states[0].max()) == 13 and float(states[1].min()) == 14, "no state is in both"


def test_what_files_do_not_name_the_user_does(tmp_path: Path) -> None:
    u, p = grids.values(N, 2, X, Y, 3), grids.values(N, 2, X, Y)
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out["flow/u"], out["flow/p"] = u, p
    samples = opened(tmp_path / "a.h5", axes=("sample", "time", "x", "y", "component"))
    assert samples.facts.view is not None
    assert samples.facts.view.variables == ("flow/p", "flow/u_0", "flow/u_1", "flow/u_2")
    x = samples.read(torch.tensor([3])).x[0].numpy()
    assert np.array_equal(x[0], p[1, 1]) and np.array_equal(x[3], u[1, 1, :, :, 2])
    said = "data.axes: got none, and"
    assert said in refused(tmp_path / "a.h5") and "expected a name for each, such as sample time x y" in refused(
        tmp_path / "a.h5"
    )
    assert "expected x once" in refused(tmp_path / "a.h5", axes=("sample", "x", "x", "y", "component"))


def test_names_of_ones_own_go_before_the_files(tmp_path: Path) -> None:
    """Levels become channels, one for each."""
    arrays = grids.netcdf(tmp_path / "a.nc")
    samples = opened(tmp_path / "a.nc", variables=("u",), axes=("sample", "time", "component", "y"))
    assert isinstance(samples.facts.view, FieldView)
    assert samples.facts.view.variables == tuple(f"u_{i}" for i in range(X))
    assert np.array_equal(samples.read(torch.tensor([1])).x[0].numpy(), arrays["u"][0, 1])


def test_axes_may_be_said_to_be_periodic(tmp_path: Path) -> None:
    grids.netcdf(tmp_path / "a.nc")
    view = opened(tmp_path / "a.nc", variables=("u",), periodic=("x",)).facts.view
    assert isinstance(view, FieldView) and view.axes is not None
    assert [axis.periodic for axis in view.axes] == [True, False]
    assert "data.periodic: got 'z', expected of x, y" in refused(tmp_path / "a.nc", variables=("u",), periodic=("z",))


def test_places_and_times_have_all_their_digits(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        for name, at, unit in (("time", 1.1e6 + 0.25 * np.arange(T), "hours since 1900-01-01"),
                               ("x", 5.4e6 + 0.5 * np.arange(X), "m")):  # fmt: skip
            out.createDimension(name, len(at))
            made = out.createVariable(name, "f8", (name,))
            made.units = unit
            made[:] = at
        out.createVariable("u", "f4", ("time", "x"))[:] = grids.values(T, X)
    view = opened(tmp_path / "a.nc").facts.view
    assert isinstance(view, FieldView) and view.axes is not None
    assert (view.interval, view.time_unit) == (0.25, "hours")
    assert view.axes[0].places(X).tolist() == (5.4e6 + 0.5 * np.arange(X)).tolist()


def test_no_sample_has_states_that_are_missing_by_their_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grids.netcdf(tmp_path / "a.nc")
    with netCDF4.Dataset(tmp_path / "a.nc", "a") as out:
        out["time"][:] = np.array([0, 0.5, 1, 4, 4.5, 5, 5.5])
    arrays = grids.netcdf(tmp_path / "b.nc")
    for stride in (1, 2):
        data = {"variables": ("u",), "past": 1, "stride": stride}
        samples, whole = (opened(tmp_path / f"{name}.nc", **data) for name in "ab")
        told = capsys.readouterr().err
        firsts = [first for first in range(T - stride) if not first < 3 <= first + stride]
        assert len(whole) == N * (T - stride) and len(samples) == N * len(firsts)
        assert f"Left out {len(whole) - len(samples)} samples in which states are missing" in told
        assert np.array_equal(samples.read(torch.arange(len(firsts))).tensor("past")[:, 0], arrays["u"][0, firsts])
        view = samples.facts.view
        assert isinstance(view, FieldView) and view.interval == 0.5 * stride
    assert len(opened(tmp_path / "a.nc", variables=("u",))) == N * T, "single states need no others"


def test_states_are_as_far_apart_in_all_files(tmp_path: Path) -> None:
    for name, step in (("a.nc", 0.5), ("b.nc", 2.0)):
        grids.netcdf(tmp_path / name)
        with netCDF4.Dataset(tmp_path / name, "a") as out:
            out["time"][:] = step * np.arange(T)
    assert f"b.nc has 2 h from state to state, expected 0.5 as in {tmp_path}/a.nc" in refused(tmp_path, past=1)
    assert len(opened(tmp_path)) == 2 * N * T, "of single states it is all the same"


@pytest.mark.parametrize("kept", [True, False])
def test_land_has_the_value_that_is_said(tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(module, "KEPT_BYTES", 0)
    arrays, land = grids.netcdf(tmp_path / "a.nc"), np.zeros((X, Y), bool)
    land[:2, 1:] = True
    with netCDF4.Dataset(tmp_path / "a.nc", "a") as out:
        for name in ("u", "v", "depth"):
            out[name][:] = np.where(land, np.nan, arrays[name])
    how: dict[str, Any] = {"variables": ("u", "v"), "given": ("depth",), "past": 1}
    assert "--data.nan 0 puts 0 for NaN" in refused(tmp_path / "a.nc", **how)
    samples = opened(tmp_path / "a.nc", nan=-4.0, **how)
    batch = samples.read(torch.arange(len(samples)))
    for x in (batch.x, batch.tensor("past"), batch.tensor("given"), samples.trajectory(0, 0, 3)):
        assert (x[..., torch.from_numpy(land)] == -4).all()
    sea = torch.from_numpy(~land)
    assert np.array_equal(batch.x[0, 0][sea].numpy(), arrays["u"][0, 1][~land])
    shutil.copy(tmp_path / "a.nc", tmp_path / "b.nc")
    with netCDF4.Dataset(tmp_path / "b.nc", "a") as out:
        out["u"][1, 2, 5, 0] = np.inf
    assert "has NaN or infinity in state 2 of trajectory 1" in refused(tmp_path / "b.nc", nan=-4.0, **how)


def test_files_whose_points_lie_elsewhere_are_refused_by_name(tmp_path: Path) -> None:
    for name in "ab":
        grids.netcdf(tmp_path / f"{name}.nc")
    assert len(opened(tmp_path)) == 2 * N * T

    def changed(name: str, place: int, by: float, unit: str = "km") -> None:
        shutil.copy(tmp_path / "b.nc", tmp_path / "new")  # an open file is not written to
        with netCDF4.Dataset(tmp_path / "new", "a") as out:
            out[name][place] += by
            out["x"].units = unit
        (tmp_path / "new").replace(tmp_path / "b.nc")

    changed("time", 0, -0.1)  # times are each file's own
    changed("x", 3, 1e-4)  # rounding
    assert len(opened(tmp_path)) == 2 * N * T
    changed("y", 2, 0.5)
    said = refused(tmp_path)
    assert said == f"data.path: {tmp_path}/b.nc has point 2 of y at 3.5, expected 3 as in {tmp_path}/a.nc"
    changed("y", 2, -0.5, "m")
    assert f"{tmp_path}/b.nc has x in 'm', expected 'km' as in {tmp_path}/a.nc" in refused(tmp_path)


def with_nan(file: Path) -> None:
    grids.netcdf(file)
    with netCDF4.Dataset(file, "a") as out:
        out["v"][3, 4, 1, 2] = np.nan
        out["u"][0, 6] = np.inf


def test_values_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    with_nan(tmp_path / "a.nc")
    said = refused(tmp_path / "a.nc", variables=("v",), stride=2, past=1)
    assert f"data.path: {tmp_path}/a.nc has NaN or infinity in state 4 of trajectory 3" in said
    assert "--data.bad-limit 0.01" in said
    assert len(opened(tmp_path / "a.nc", variables=("temperature",)).read(torch.arange(N * T)).x) == N * T


def test_or_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_nan(tmp_path / "a.nc")
    samples = opened(tmp_path / "a.nc", bad_limit=0.1, past=1)
    assert len(samples) == N * (T - 1) - 2 - 1, "two samples have the one, one the other"
    assert samples.read(torch.arange(len(samples))).x.isfinite().all()
    told = capsys.readouterr().err
    assert "Left out 2 of 35 states" in told and "state 6 of trajectory 0; " in told
    assert "data.bad_limit: got 2 bad of 35 states" in refused(tmp_path / "a.nc", bad_limit=0.05)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variables": ("w",)}, "data.variables: got 'w', which"),
        ({"variables": ("u", "speed")}, "data.variables: got speed (sample: 5) of"),
        ({"given": ("w",)}, "data.given: got 'w'"),
        ({"numbers": ("w",)}, "data.numbers: got 'w', which"),
        ({"numbers": ("u",)}, "data.numbers: got 'u' of shape (5, 7, 6, 4)"),
        ({"past": 7}, "data.past, data.future: got 7 and 1 states 1 apart, expected at most the 7"),
        ({"path": Path("none.nc")}, "none.nc, which is not there; expected a file of fields"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    grids.netcdf(tmp_path / "a.nc")
    assert said in refused(**{"path": tmp_path / "a.nc"} | fields)


def test_a_part_without_samples_is_refused(tmp_path: Path) -> None:
    grids.netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="which leaves no sample of 5 trajectories in the part held_out"):
        Fields(path=tmp_path / "a.nc", held_out=0.0).open("held_out")


def test_arrays_on_other_grids_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out["u"], out["p"] = grids.values(T, X), grids.values(T, X + 1)
    said = refused(tmp_path / "a.h5", axes=("t", "x"))
    assert "has p on time: 7 x: 7 and u on time: 7 x: 6, expected the same grid" in said


def test_files_must_be_alike(tmp_path: Path) -> None:
    grids.store(tmp_path / "a.zarr", 3)
    with h5py.File(tmp_path / "b.h5", "w") as out:
        out["u"] = grids.values(N, T, X + 1)
    said = refused(tmp_path, axes=("sample", "time", "x"))
    assert "b.h5 has u on (7,) points, expected u on (6,) points as in" in said
    (tmp_path / "b.h5").unlink()
    with h5py.File(tmp_path / "c.h5", "w") as out:
        out["u"] = grids.values(N, T, X)
        out["u"].attrs["units"] = "km"
    assert "c.h5 has u in 'km', expected 'm' as in" in refused(tmp_path, axes=("sample", "time", "x"))
    (tmp_path / "empty").mkdir()
    assert "without fields" in refused(tmp_path / "empty")


@pytest.mark.parametrize("kept", [True, False])
def test_files_may_be_of_different_lengths(tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(module, "KEPT_BYTES", 0)
    for name, times in (("a", 3), ("b", 9)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as out:
            out["u"], out["depth"] = grids.values(2, times, X), grids.values(X, seed=times)
    samples = opened(tmp_path, axes=("sample", "time", "x"), variables=("u",))
    assert len(samples) == 2 * 3 + 2 * 9
    assert np.array_equal(samples.read(torch.tensor([-1])).x[0, 0].numpy(), grids.values(2, 9, X)[1, 8])


def test_a_new_file_in_an_old_place_is_read_anew(tmp_path: Path) -> None:
    for n in (2, 3):
        grids.the_well(tmp_path / "new.hdf5", n=n)
        (tmp_path / "new.hdf5").replace(tmp_path / "a.hdf5")
        assert len(opened(tmp_path / "a.hdf5", variables=("density",))) == n * T


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
def test_workers_read_files_for_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    grids.the_well(tmp_path / "a.hdf5")
    samples = opened(tmp_path / "a.hdf5", variables=("density",))
    order = Order(len(samples), 4, 0)
    batches = read_ahead(samples, order, 0, workers=2)
    for step in range(3):
        assert torch.equal(next(batches).x, samples.read(order.ids(step)).x)
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_recipe_takes_all_from_the_data(tmp_path: Path) -> None:
    grids.netcdf(tmp_path / "a.nc")
    data: Data = Fields(path=tmp_path / "a.nc", variables=("u", "v"), past=1, numbers=("speed",), held_out=0.0)
    model = DiTConfig(16, 1, 2, (2, 2), conditions={"past": Field(), "numbers": Numbers(), "coarse": Field()})
    recipe = Recipe(model=model, codec=Normalize(), view=FieldView(limits=(0.0, 9.0)), data=data)
    notes = list[str]()
    whole = resolved(recipe, data.open("train"), notes.append)
    assert list(whole.model.conditions) == ["past", "numbers"]
    assert whole.view == FieldView(
        variables=("u", "v"), units=("m/s", "m/s"), axes=whole.view.axes, interval=0.5, time_unit="h",
        format="netcdf", limits=(0.0, 9.0),
    )  # fmt: skip
    assert from_json(Recipe, to_json(whole)) == whole
