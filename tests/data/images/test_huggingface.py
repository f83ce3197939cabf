import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.data import Data, FashionMNIST, HuggingFace, ImageFolder, Sizes
from anydit.data.base import Bucketed
from anydit.data.buckets import by_bucket
from anydit.recipes import find
from tests.data.images import pictures

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")

N = 6
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ANYDIT_CACHE", str(cache))
    return cache


def rows(n: int = N, first: int = 0, label: Any = None, **columns: Any) -> Any:
    """Image i has seed i and class i % 3."""
    images = [Image.fromarray(pictures.noise(first + i)) for i in range(n)]
    features = {"photo": datasets.Image(), "kind": label or datasets.ClassLabel(names=NAMES)}
    data = {"photo": images, "kind": columns.pop("kind", [i % 3 for i in range(n)])}
    extra = {name: datasets.Value("int64") for name in columns}
    return datasets.Dataset.from_dict(data | columns, features=datasets.Features(features | extra))


def saved(folder: Path, **splits: Any) -> str:
    whole = datasets.DatasetDict(splits) if set(splits) != {"alone"} else splits["alone"]
    whole.save_to_disk(str(folder))
    return str(folder)


def hub(name: str, **fields: Any) -> HuggingFace:
    return HuggingFace(**{"name": name, "size": (6, 9), "held_out": 0.0} | fields)


def seeds(data: Data, part: Any = "train") -> list[int]:
    samples = data.open(part)
    return (samples.read(torch.arange(len(samples))).x[:, 0, 0, 0] * 255).round().int().tolist()


def refused(data: Data, part: Any = "train") -> str:
    with pytest.raises(ValueError, match=r"^data") as error:
        data.open(part)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_data_set(tmp_path: Path) -> None:
    samples = hub(saved(tmp_path / "set", train=rows())).open("train")
    assert samples.facts.classes == {"label": tuple(NAMES)}
    batch = samples.read(torch.tensor([5, 0, 1]))
    expected = np.stack([pictures.noise(i) for i in (5, 0, 1)]).transpose(0, 3, 1, 2) / 255
    assert torch.allclose(batch.x, torch.from_numpy(expected).float(), atol=1e-7)
    assert batch.cond["label"].tolist() == [2, 0, 1]


def test_a_split_of_its_own_is_held_out(tmp_path: Path) -> None:
    name = saved(tmp_path / "set", train=rows(), test=rows(3, first=50))
    data = hub(name, held_out_split="test")
    assert seeds(data) == list(range(N))
    assert seeds(data, "held_out") == [50, 51, 52]
    by_share = hub(name, held_out=0.5)
    train, held_out = seeds(by_share), seeds(by_share, "held_out")
    assert sorted(train + held_out) == list(range(N))
    assert train
    assert held_out
    assert "split: got 'dev', expected one of train, test" in refused(hub(name, split="dev"))
    assert "held_out_split: got 'dev'" in refused(hub(name, held_out_split="dev"), "held_out")


def test_one_data_set_alone_is_the_split_to_train_on(tmp_path: Path) -> None:
    assert seeds(hub(saved(tmp_path / "set", alone=rows()))) == list(range(N))


def test_decoded_images_are_kept_until_the_data_changes(tmp_path: Path, own_cache: Path) -> None:
    data = hub(saved(tmp_path / "set", train=rows()))
    for _ in range(2):
        seeds(data)
    assert len(list((own_cache / "images").iterdir())) == 1
    other = hub(saved(tmp_path / "other", train=rows(first=1)))
    assert seeds(other) == list(range(1, N + 1))


def test_an_image_folder_is_read_like_ours(tmp_path: Path) -> None:
    pictures.by_class(tmp_path / "set", NAMES, 2)
    theirs, ours = hub(str(tmp_path / "set")).open("train"), ImageFolder(path=tmp_path / "set", size=(6, 9), held_out=0)
    a, b = theirs.read(torch.arange(6)), ours.open("train").read(torch.arange(6))
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.cond["label"], b.cond["label"])
    assert theirs.facts == ours.open("train").facts


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    two = rows(kind=[7, 7, -1, 3, 3, 7], label=datasets.Value("int64"), other=[0, 1] * 3)
    name = saved(tmp_path / "numbers", train=two)
    assert hub(name).open("train").facts.conditions == ()
    samples = hub(name, label="kind").open("train")
    assert samples.facts.classes == {"label": ("-1", "3", "7")}
    names = samples.facts.classes["label"]
    index = samples.read(torch.arange(N)).cond["label"].tolist()
    assert [names[i] for i in index] == ["7", "7", "-1", "3", "3", "7"]
    text = saved(tmp_path / "text", train=rows(kind=list("xyzzyx"), label=datasets.Value("string")))
    assert hub(text, label="kind").open("train").facts.classes == {"label": ("x", "y", "z")}
    assert "label: got 'colour'" in refused(hub(name, label="colour"))
    assert "image: got 'kind', expected one column that holds the image, of: photo (Image)" in refused(
        hub(name, image="kind")
    )
    several = rows().add_column("second", rows()["kind"], feature=datasets.ClassLabel(names=NAMES))
    assert "label: got ['kind', 'second']" in refused(hub(saved(tmp_path / "several", train=several)))
    none = rows().remove_columns("photo")
    assert "columns without an image" in refused(hub(saved(tmp_path / "none", train=none)))


def test_rows_without_label_or_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled = saved(tmp_path / "unlabelled", train=rows(kind=[0, 1, 2, None, 0, 1]))
    assert "label: got None in row 3" in refused(hub(unlabelled))
    bad = [{"bytes": b"no image", "path": None}, None, {"bytes": None, "path": "http://localhost/x.png"}]
    good = rows().cast_column("photo", datasets.Image(decode=False))["photo"]
    data = datasets.Dataset.from_dict({"photo": bad + list(good)}, features=datasets.Features(photo=datasets.Image()))
    (tmp_path / "bad").mkdir()
    parquet.write_table(data.data.table, tmp_path / "bad" / "train.parquet")
    assert seeds(hub(str(tmp_path / "bad"))) == list(range(N))
    said = capsys.readouterr().err
    assert "Skipped 3 unreadable of 9 images (0: not an image" in said
    assert "; 1, 2: no image in the row" in said


def test_what_is_not_there_says_how_to_do_without_the_hub(tmp_path: Path) -> None:
    assert "got ''" in refused(hub(""))
    assert "which is not a folder" in refused(hub(str(tmp_path / "none")))
    assert "save_to_disk" in refused(hub("nobody/nothing"))
    (tmp_path / "empty").mkdir()
    assert "cannot be read as a data set" in refused(hub(str(tmp_path / "empty")))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'anydit[datasets]'" in refused(hub("cifar10"))


@pytest.mark.parametrize(("name", "kind"), [("images", ImageFolder), ("huggingface", HuggingFace)])
def test_recipes_of_own_images(name: str, kind: type) -> None:
    assert isinstance(find(name)().data, kind)


def clothes(folder: Path, classes: int = 10) -> tuple[str, dict[str, np.ndarray]]:
    """Fashion-MNIST as it is on the hub, but few and random."""
    pixels = {
        s: np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8) for s, n in (("train", 20), ("test", 10))
    }
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(num_classes=classes))
    splits = {
        split: datasets.Dataset.from_dict(
            {"image": [Image.fromarray(p) for p in x], "label": [(3 * i) % classes for i in range(len(x))]},
            features=features,
        )
        for split, x in pixels.items()
    }
    return saved(folder, **splits), pixels


def test_fashion_by_name_is_what_it_is_from_idx_files(tmp_path: Path) -> None:
    name, pixels = clothes(tmp_path / "fashion")
    for part, split in (("train", "train"), ("held_out", "test")):
        samples = FashionMNIST(name=name).open(part)
        batch = samples.read(torch.arange(len(samples)))
        assert torch.equal(batch.x, torch.from_numpy(pixels[split]).float()[:, None])
        assert batch.cond["label"].tolist() == [(3 * i) % 10 for i in range(len(samples))]
        assert samples.facts.classes["label"][9] == "ankle boot"
        assert (samples.facts.channels, samples.facts.size) == (1, (28, 28))


def test_fashion_by_name_refuses_what_is_not_fashion(tmp_path: Path) -> None:
    assert "with 7 classes, expected the 10 of Fashion-MNIST" in refused(
        FashionMNIST(name=clothes(tmp_path / "seven", 7)[0])
    )
    assert "held_out_split: got 'test'" in refused(
        FashionMNIST(name=saved(tmp_path / "no test", train=rows())), "held_out"
    )
    assert "save_to_disk" in refused(FashionMNIST(name="zalando-datasets/fashion_mnist"))


def test_images_of_several_sizes(tmp_path: Path) -> None:
    """With a split of its own held out: every image of both goes to its size."""
    shapes = [(6, 9), (9, 6)]
    images = [Image.fromarray(pictures.noise(i, shapes[i % 2])) for i in range(8)]
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES)})
    whole = datasets.Dataset.from_dict({"photo": images, "kind": [i % 3 for i in range(8)]}, features=features)
    name = saved(tmp_path / "set", train=whole.select(range(5)), test=whole.select(range(5, 8)))
    data = hub(name, held_out_split="test", buckets=Sizes(((9, 6),)))
    for part, first, n in (("train", 0, 5), ("held_out", 5, 3)):
        samples = data.open(part)  # type: ignore[arg-type]
        assert isinstance(samples, Bucketed) and len(samples) == n
        found = dict[int, tuple[int, ...]]()
        for ids in by_bucket(samples, torch.arange(n), 2):
            batch = samples.read(ids)
            kinds = batch.tensor("label").tolist()
            for x, kind in zip(batch.x, kinds, strict=True):
                seed = round(float(x[0, 0, 0]) * 255)
                found[seed] = tuple(x.shape[1:])
                assert kind == seed % 3
        assert found == {i: shapes[i % 2] for i in range(first, first + n)}
