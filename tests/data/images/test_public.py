import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from anydit.data import Data, Digits, FashionMNIST

DEBIAN = FashionMNIST().path


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


def write(folder: Path, train: int = 30, held_out: int = 20) -> dict[str, np.ndarray]:
    """A folder as published, the training part gzipped and the other plain."""
    rng = np.random.default_rng(0)
    arrays = dict[str, np.ndarray]()
    for stem, n in (("train", train), ("t10k", held_out)):
        arrays[f"{stem}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{stem}-labels-idx1-ubyte"] = rng.integers(0, 10, n, np.uint8)
    for name, values in arrays.items():
        if name.startswith("train"):
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
        else:
            (folder / name).write_bytes(idx(values))
    return arrays


def refused(data: Data, part: str = "train") -> str:
    with pytest.raises(ValueError, match=r"^data\.") as error:
        data.open(part)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("part", "stem"), [("train", "train"), ("held_out", "t10k")])
def test_fashion_is_what_the_files_hold(tmp_path: Path, part: str, stem: str) -> None:
    arrays = write(tmp_path)
    samples = FashionMNIST(path=tmp_path).open(part)  # pyright: ignore[reportArgumentType]
    images, labels = arrays[f"{stem}-images-idx3-ubyte"], arrays[f"{stem}-labels-idx1-ubyte"]
    assert len(samples) == len(images)
    ids = torch.tensor([7, 2, 7])
    batch = samples.read(ids)
    assert torch.equal(batch.x, torch.from_numpy(images).float()[ids][:, None])
    assert torch.equal(batch.cond["label"], torch.from_numpy(labels).long()[ids])
    assert torch.equal(batch.ids, ids)
    assert (samples.facts.channels, samples.facts.size) == (1, (28, 28))
    assert len(samples.facts.classes["label"]) == 10
    assert samples.facts.conditions == ("label",)


def test_fashion_says_how_to_get_it(tmp_path: Path) -> None:
    said = refused(FashionMNIST(path=tmp_path / "none"))
    assert "apt-get install dataset-fashion-mnist" in said
    assert "--data.path" in said


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:9],
        lambda data: b"",
        lambda data: data.replace(b"\0\0\x08", b"\0\0\x0d", 1),
        lambda data: data[:4] + b"\xff" * 12 + data[16:],
    ],
    ids=["cut", "longer", "half a header", "empty", "floats", "huge"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_fashion_refuses_what_is_no_idx_file(tmp_path: Path, damage, packed: bool) -> None:
    arrays = write(tmp_path)
    name = "train-images-idx3-ubyte"
    data = damage(idx(arrays[name]))
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
    if not packed:
        (tmp_path / name).write_bytes(data)
    assert name in refused(FashionMNIST(path=tmp_path))


def test_fashion_refuses_a_cut_gzip_file(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    assert file.name in refused(FashionMNIST(path=tmp_path))


def test_fashion_refuses_parts_that_do_not_fit(tmp_path: Path) -> None:
    arrays = write(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx(arrays[labels.name][:-1]))
    assert re.search("20 t10k images and 19 labels", refused(FashionMNIST(path=tmp_path), "held_out"))
    labels.write_bytes(idx(np.full(20, 10, np.uint8)))
    assert "label 10" in refused(FashionMNIST(path=tmp_path), "held_out")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_fashion_as_debian_ships_it() -> None:
    train, held_out = FashionMNIST().open("train"), FashionMNIST().open("held_out")
    assert (len(train), len(held_out)) == (60_000, 10_000)
    batch = train.read(torch.arange(len(train)))
    assert torch.bincount(batch.cond["label"]).tolist() == [6000] * 10
    assert (float(batch.x.min()), float(batch.x.max())) == (0, 255)
    assert abs(float(batch.x.mean()) / 255 - 0.2860) < 1e-4  # the mean that everybody normalises it by
    assert train.facts.classes["label"][int(batch.cond["label"][0])] == "ankle boot"


def test_digits_are_split_once_and_for_all() -> None:
    train, held_out = Digits().open("train"), Digits().open("held_out")
    assert len(train) + len(held_out) == 1797
    assert abs(len(held_out) / 1797 - 0.2) < 0.03
    a = train.read(torch.arange(len(train)))
    assert a.x.shape[1:] == (1, 8, 8)
    assert (float(a.x.min()), float(a.x.max())) == (0, 16)
    assert torch.equal(a.cond["label"].unique(), torch.arange(10))


def test_digits_are_those_that_scikit_learn_reads() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    both = [Digits().open(part) for part in ("train", "held_out")]
    found = [part.read(torch.arange(len(part))) for part in both]
    ours = [
        (int(label), *x)
        for one in found
        for x, label in zip(one.x.flatten(1).tolist(), one.tensor("label"), strict=True)
    ]
    assert sorted(ours) == sorted((int(label), *x) for x, label in zip(images.tolist(), labels, strict=True))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anydit.data.images.public.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'anydit\[digits\]'"):
        Digits().open("train")
