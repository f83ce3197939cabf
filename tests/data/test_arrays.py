from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import Arrays, ArrayView, Data, Samples
from anydit.data import arrays as module
from anydit.data.arrays import split
from anydit.model.conditioning import Condition, Field, Label, Numbers
from anydit.model.dit import DiT, DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved

N = 12


def x_of(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return (np.random.default_rng(0).random(shape) * 200).astype(dtype)


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def npy(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def opened(path: Path, **fields: Any) -> Samples:
    return Arrays(**{"path": path, "held_out": 0.0} | fields).open("train")


def refused(path: Path, **fields: Any) -> str:
    with pytest.raises(ValueError, match=r"^data\.") as error:
        opened(path, **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("space", [(7,), (5, 4), (3, 4, 2)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "u1", ">u2", ">f4", "i8", "?"])
def test_values_come_as_they_are(tmp_path: Path, space: tuple[int, ...], dtype: str) -> None:
    x = x_of(N, 2, *space, dtype=np.dtype(dtype))
    samples = opened(npy(tmp_path, x))
    assert (samples.facts.channels, samples.facts.size) == (2, space)
    batch = samples.read(torch.tensor([3, 0, 11]))
    assert batch.x.dtype == torch.float32
    assert np.array_equal(batch.x.numpy(), x[[3, 0, 11]].astype(np.float32))
    batch.x.zero_()  # what is done to a batch is not done to the data
    assert np.array_equal(samples.read(torch.tensor([3])).x[0].numpy(), x[3].astype(np.float32))


def test_an_npy_file_stays_on_disk(tmp_path: Path) -> None:
    samples = opened(npy(tmp_path, x_of(N, 2, 5)), channels_last=True)
    assert isinstance(samples.x, np.memmap)  # pyright: ignore[reportAttributeAccessIssue]
    assert (samples.facts.channels, samples.facts.size) == (5, (2,))


def test_what_is_known_of_the_samples(tmp_path: Path) -> None:
    x, field = x_of(N, 6, 4, 3), x_of(N, 6, 4, 2)
    label, speed = np.array(list("cabbacabbaca")), np.arange(N)
    mass = np.linspace(1, 2, N)[:, None]
    path = npz(tmp_path, data=x, kind=label, speed=speed, mass=mass, coarse=field)
    samples = opened(path, x="data", label="kind", numbers=("speed", "mass"), field="coarse", channels_last=True)
    assert samples.facts.conditions == ("label", "numbers", "field")
    assert samples.facts.classes == {"label": ("a", "b", "c")}
    assert samples.facts.numbers == {"numbers": ("speed", "mass")}
    assert samples.facts.fields == {"field": 2}
    assert (samples.facts.channels, samples.facts.size) == (3, (6, 4))
    ids = torch.tensor([2, 0])
    batch = samples.read(ids)
    assert np.array_equal(batch.x.numpy(), x[[2, 0]].transpose(0, 3, 1, 2))
    assert batch.cond["label"].tolist() == [1, 2]
    assert torch.allclose(batch.cond["numbers"], torch.tensor([[2, 1 + 2 / 11], [0, 1]]))
    assert np.array_equal(batch.cond["field"].numpy(), field[[2, 0]].transpose(0, 3, 1, 2))


def test_parts_keep_samples_and_conditions_together(tmp_path: Path) -> None:
    x = np.broadcast_to(np.arange(100.0)[:, None, None], (100, 1, 4))
    path = npz(tmp_path, x=x, n=np.arange(100), label=np.arange(100) % 3)
    data = Arrays(path=path, numbers=("n",), label="label", held_out=0.3)
    seen = list[int]()
    for part in ("train", "held_out"):
        samples = data.open(part)
        batch = samples.read(torch.arange(len(samples)))
        rows = batch.x[:, 0, 0]
        assert torch.equal(batch.cond["numbers"][:, 0], rows)
        assert torch.equal(batch.cond["label"], rows.long() % 3)
        seen += rows.long().tolist()
    assert sorted(seen) == list(range(100))


def test_both_parts_come_from_one_look_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, look = list[Path](), module._read  # pyright: ignore[reportPrivateUsage]

    def read(path: Path, wanted: set[str]) -> Any:
        looked.append(path)
        return look(path, wanted)

    monkeypatch.setattr(module, "_read", read)
    data = Arrays(path=npz(tmp_path, x=x_of(N, 1, 4)), held_out=0.5)
    train, held_out = data.open("train"), data.open("held_out")
    assert len(looked) == 1
    assert len(train) + len(held_out) == N
    npz(tmp_path, x=1 + x_of(N + 1, 1, 4))
    assert len(data.open("train")) + len(data.open("held_out")) == N + 1
    assert len(looked) == 2


def test_paths_are_looked_for_where_one_is_or_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Arrays(path=Path("a.npz"), held_out=0.0)
    for name, n in (("here", 3), ("there", 4)):
        (tmp_path / name).mkdir()
        npz(tmp_path / name, x=x_of(n, 1, 4))
        monkeypatch.chdir(tmp_path / name)
        assert len(data.open("train")) == n
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(Arrays(path=Path("~/here/a.npz"), held_out=0.0).open("train")) == 3


def test_a_row_keeps_its_part_when_rows_are_added() -> None:
    few, many = (set(split(n, 0.2, "held_out").tolist()) for n in (300, 2000))
    assert few == {row for row in many if row < 300}
    assert 340 < len(many) < 460


def test_labels_are_classes_in_order(tmp_path: Path) -> None:
    for values, names in (
        (np.array([10, 2, 2, 1] * 3), ("1", "2", "10")),
        (np.array([b"x", b"yy"] * 6), ("x", "yy")),
        (np.array([[True], [False]] * 6), ("False", "True")),
    ):
        samples = opened(npz(tmp_path, x=x_of(N, 1, 4), label=values), label="label")
        assert samples.facts.classes["label"] == names
        found = [names[i] for i in samples.read(torch.arange(N)).cond["label"].tolist()]
        assert found == [v.decode() if isinstance(v, bytes) else str(v) for v in values.reshape(-1).tolist()]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_no_float32_are_found_wherever_they_are(
    tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKED_AT_ONCE", 3 * 8)
    for at in (0, 7, 11):
        x = x_of(N, 2, 4, dtype=np.float64)
        x[at, 1, 3] = bad
        assert refused(npy(tmp_path, x)).endswith(f"in sample {at}")
        good = x_of(N, 2, 4)
        assert f"data.numbers: got NaN, infinity or more than 3.4e+38 in sample {at}" in refused(
            npz(tmp_path, x=good, n=x[:, 1, 3]), numbers=("n",)
        )
        assert "data.field" in refused(npz(tmp_path, x=good, f=x), field="f")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"x": "y"}, "data.x: got 'y', expected one of x, label, half, real, cut"),
        ({"label": "labels"}, "data.label: got 'labels'"),
        ({"numbers": ("label", "n")}, "data.numbers: got 'n'"),
        ({"field": "f"}, "data.field: got 'f'"),
        ({"label": "half"}, "data.label: got an array of shape (6,), expected [12]"),
        ({"label": "real"}, "data.label: got an array of float64, expected whole numbers or text"),
        ({"numbers": ("half",)}, "data.numbers: got an array of shape (6,)"),
        ({"field": "cut"}, "data.field: got shape (12, 2, 4), expected that of x but for channels: (12, 1, 5)"),
        ({"field": "label"}, "data.field: got an array of shape (12,), expected [n, c, *space]"),
        ({"x": "label"}, "data.x: got an array of shape (12,), expected [n, c, *space]"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    path = npz(
        tmp_path,
        x=x_of(N, 1, 5),
        label=np.arange(N) % 2,
        half=np.arange(6),
        real=x_of(N, dtype=float),
        cut=x_of(N, 2, 4),
    )
    assert said in refused(path, **fields)


def test_files_that_hold_no_arrays_are_named(tmp_path: Path) -> None:
    assert "which is not a file" in refused(tmp_path / "none.npy")
    assert "expected none: a .npy file holds one array only" in refused(npy(tmp_path, x_of(N, 1, 4)), label="label")
    assert "expected none" in refused(npy(tmp_path, x_of(N, 1, 4)), numbers=("n",))
    objects = np.array([{}, None] * 6, dtype=object)
    for path in (npy(tmp_path, objects), npz(tmp_path, x=objects)):
        assert "cannot be read as .npy or .npz" in refused(path)  # pickles are not read
    assert "complex64, expected numbers" in refused(npy(tmp_path, x_of(N, 1, 4).astype(np.complex64)))
    for path in (npy(tmp_path, x_of(N, 1, 40)), npz(tmp_path, x=x_of(N, 1, 40))):
        path.write_bytes(path.read_bytes()[:-100])
        assert "cannot be read as .npy or .npz" in refused(path)
    (tmp_path / "a.npz").write_bytes(b"hello")
    assert "cannot be read as .npy or .npz" in refused(tmp_path / "a.npz")
    assert "leaves none of 0 samples" in refused(npy(tmp_path, x_of(0, 1, 4)))
    with pytest.raises(ValueError, match="held_out: got 1"):
        Arrays(held_out=1.0)


@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({"label": "label"}, Label()),
        ({"numbers": ("speed", "mass")}, Numbers(names=("speed in m/s", "mass in kg"))),
        ({"numbers": ("speed", "mass")}, Numbers()),
        ({"field": "coarse"}, Field(channels=2)),
        ({"field": "coarse"}, Field()),
    ],
    ids=["label", "numbers", "unnamed", "field", "of any channels"],
)
def test_each_condition_makes_a_model(tmp_path: Path, fields: dict[str, Any], condition: Condition) -> None:
    path = npz(
        tmp_path,
        x=x_of(N, 3, 8),
        label=np.arange(N) % 5,
        speed=np.arange(N),
        mass=np.full(N, 7.0),
        coarse=x_of(N, 2, 8),
    )
    name = next(iter(fields))
    data: Data = Arrays(path=path, held_out=0.0, **fields)
    recipe = Recipe(
        model=DiTConfig(width=16, depth=1, heads=2, patch=(4,), conditions={name: condition}),
        codec=Normalize(),
        view=ArrayView(),
        data=data,
    )
    samples = data.open("train")
    whole = resolved(recipe, samples)
    made = whole.model.conditions[name]
    if isinstance(made, Numbers):
        assert made.mean == (5.5, 7.0)
        assert made.std == (np.arange(N).std(), 1.0)  # what never varies is left alone
    if isinstance(made, Label):
        assert made.classes == 5
    batch = samples.read(torch.arange(4))
    assert DiT(whole.model)(batch.x, torch.full((4,), 0.5), batch.cond).shape == (4, 3, 8)


@pytest.mark.parametrize("space", [(6,), (6, 4)])
@pytest.mark.parametrize("last", [True, False])
def test_samples_are_written_as_the_data_lies(tmp_path: Path, space: tuple[int, ...], last: bool) -> None:
    """What is read of a file, written again, is the file's own row."""
    x = x_of(N, *space, 2) if last else x_of(N, 2, *space)
    data = Arrays(path=npy(tmp_path, x), held_out=0.0, channels_last=last)
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2,) * len(space))
    samples = data.open("train")
    view = resolved(Recipe(model=model, codec=Normalize(), view=ArrayView(), data=data), samples).view
    paths = view.write(samples.read(torch.tensor([3, 1])).x, tmp_path)
    for path, row in zip(paths, (3, 1), strict=True):
        assert np.array_equal(np.load(path), x[row])
    said = ArrayView(channels_last=not last)
    assert said.like(samples.facts) == said
