import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anydit.codecs import Normalize
from anydit.config import from_json, to_json
from anydit.data import Crop, Data, ImageFolder, Images, Pad, Part, Samples, Stretch
from anydit.data.outside import rows_of
from anydit.inference.conditions import prepared
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from tests.data.images import pictures


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def folder(path: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(**{"path": path, "size": (6, 9), "held_out": 0.0} | fields)


def everything(samples: Samples) -> tuple[torch.Tensor, list[int]]:
    """All samples, and for each the seed in its first pixel."""
    x = samples.read(torch.arange(len(samples))).x
    return x, (x[:, 0, 0, 0] * 255).round().int().tolist()


def refused(data: Data, part: Part = "train") -> str:
    with pytest.raises(ValueError, match=r"^data") as error:
        data.open(part)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_are_the_sorted_folders(tmp_path: Path) -> None:
    pictures.by_class(tmp_path, ("zebra", "Ant", "bee"), 3)
    samples = folder(tmp_path).open("train")
    assert samples.facts.classes == {"label": ("Ant", "bee", "zebra")}
    assert (samples.facts.channels, samples.facts.size) == (3, (6, 9))
    batch = samples.read(torch.tensor([8, 0, 4]))
    assert batch.cond["label"].tolist() == [2, 0, 1]
    assert batch.ids.tolist() == [8, 0, 4]
    assert everything(samples)[1] == [3, 4, 5, 6, 7, 8, 0, 1, 2]


def test_values_are_exact_and_from_0_to_1(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pictures.write(tmp_path / "ramp.png", ramp)
    x = folder(tmp_path, size=(16, 16), channels=1).open("train").read(torch.tensor([0])).x
    assert (x.dtype, float(x.min()), float(x.max())) == (torch.float32, 0, 1)
    assert torch.allclose(x[0, 0], torch.from_numpy(ramp / 255).float(), atol=1e-7)
    assert np.array_equal(Images(0, 1).pixels(x)[0, :, :, 0], ramp)  # what comes out is what came in


def test_a_flat_folder_has_no_condition(tmp_path: Path) -> None:
    pictures.flat(tmp_path, 4)
    (tmp_path / "README.txt").write_text("not an image, and not counted", encoding="utf-8")
    (tmp_path / ".hidden.png").write_bytes(b"")
    samples = folder(tmp_path).open("train")
    assert len(samples) == 4
    assert samples.facts.conditions == ()
    assert samples.read(torch.arange(2)).cond == {}


def test_images_lie_at_any_depth_of_a_class(tmp_path: Path) -> None:
    pictures.write(tmp_path / "a" / "2020" / "may" / "x.PNG", pictures.noise(1))
    pictures.write(tmp_path / "a" / "y.png", pictures.noise(2))
    pictures.write(tmp_path / "b" / "y.png", pictures.noise(3))
    pictures.write(tmp_path / "a" / ".thumbs" / "y.png", pictures.noise(4))
    assert everything(folder(tmp_path).open("train"))[1] == [1, 2, 3]


def test_folders_that_make_no_data_set_say_so_in_a_sentence(tmp_path: Path) -> None:
    assert "which is not a folder" in refused(folder(tmp_path / "none"))
    empty = tmp_path / "empty"
    (empty / "a").mkdir(parents=True)
    assert "without images" in refused(folder(empty))
    pictures.by_class(tmp_path / "gap", ("a", "c"), 1)
    (tmp_path / "gap" / "b").mkdir()
    assert "no images in b" in refused(folder(tmp_path / "gap"))
    pictures.by_class(tmp_path / "mix", ("a", "b"), 1)
    pictures.flat(tmp_path / "mix", 2)
    assert "2 images of its own beside the folders a, b" in refused(folder(tmp_path / "mix"))
    for i, parts in enumerate((("train", "Test"), ("train",))):
        pictures.by_class(tmp_path / f"parts{i}", parts, 1)
        assert "parts, not classes" in refused(folder(tmp_path / f"parts{i}"))
    pictures.by_class(tmp_path / "rail", ("train", "tram"), 1)
    assert len(folder(tmp_path / "rail").open("train")) == 2


def test_what_is_passed_over_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures.by_class(tmp_path, ("a", "b"), 2)
    for name in ("a/1.HEIC", "a/2.heic", "b/notes.txt", "b/LICENSE", "labels.csv", "a/.DS_Store", ".x/1.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    pictures.write(tmp_path / "__MACOSX" / "a.png", pictures.noise(7))
    assert len(folder(tmp_path).open("train")) == 4
    said = capsys.readouterr().err
    assert said.startswith("Passed over files that are not named like images: 2 with .heic, ")
    for kind in ("1 with .txt", "1 with .csv", "1 with no suffix"):
        assert kind in said


def test_links_to_files_and_classes_are_followed(tmp_path: Path) -> None:
    pictures.flat(tmp_path / "elsewhere", 3)
    root = tmp_path / "root"
    pictures.write(root / "a" / "y.png", pictures.noise(50))
    (root / "a" / "z.png").symlink_to(tmp_path / "elsewhere" / "002.png")
    (root / "a" / "round").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    assert everything(folder(root).open("train"))[1] == [50, 2, 0, 1, 2]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    for i, name in enumerate((f"{latin}/{latin}.png", "two\nlines/a.png")):
        try:
            pictures.write(tmp_path / name, pictures.noise(i))
        except OSError:
            pytest.skip("this file system has no such names")
    samples = folder(tmp_path).open("train")
    assert everything(samples)[1] == [0, 1]
    assert samples.facts.classes["label"] == ("caf\ufffd", "two lines")


def test_adding_files_moves_nobody_between_parts(tmp_path: Path) -> None:
    pictures.flat(tmp_path, 40)
    data = folder(tmp_path, held_out=0.3)

    def parts() -> tuple[set[int], set[int]]:
        train, held_out = (set(everything(data.open(part))[1]) for part in ("train", "held_out"))
        return train, held_out

    train, held_out = parts()
    assert train | held_out == set(range(40))
    assert not train & held_out
    assert 4 <= len(held_out) <= 20
    for i in range(40, 60):
        pictures.write(tmp_path / f"{99 - i:03d}-.png", pictures.noise(i))  # between the others
    more_train, more_held_out = parts()
    assert more_train & set(range(40)) == train
    assert more_held_out & set(range(40)) == held_out


def test_the_share_held_out() -> None:
    names = [f"{i}.png" for i in range(5000)]
    assert abs(len(rows_of(names, 0.2, "held_out")) / 5000 - 0.2) < 0.02
    assert len(rows_of(names, 0.0, "held_out")) == 0
    assert len(rows_of(names, 0.0, "train")) == 5000


def test_a_part_without_images_says_so(tmp_path: Path) -> None:
    pictures.flat(tmp_path, 3)
    assert "held_out: got 0.0, which leaves none of 3 images in the part held_out" in refused(
        folder(tmp_path), "held_out"
    )


def test_mirrored_images_have_ids_of_their_own(tmp_path: Path) -> None:
    pictures.by_class(tmp_path, ("a", "b"), 3)
    once, twice = folder(tmp_path).open("train"), folder(tmp_path, flip=True).open("train")
    assert (len(once), len(twice)) == (6, 12)
    assert twice.facts == once.facts
    x = once.read(torch.arange(6))
    ids = torch.tensor([11, 0, 6, 5])
    both = twice.read(ids)
    assert torch.equal(both.x, torch.stack([x.x[5].flip(-1), x.x[0], x.x[0].flip(-1), x.x[5]]))
    assert both.cond["label"].tolist() == [1, 0, 0, 1]
    assert torch.equal(both.ids, ids)
    held_out = folder(tmp_path, flip=True, held_out=0.4)
    assert len(held_out.open("train")) + 2 * len(held_out.open("held_out")) == 12


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": (0, 4)}, "size: got"),
        ({"channels": 2}, "channels"),
        ({"held_out": 1.0}, "held_out: got 1"),
        ({"bad_limit": -0.1}, "bad_limit: got"),
        ({"fit": "crop"}, "fit"),
        ({"sizes": (4, 4)}, "sizes"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageFolder(**fields)


def test_comes_back_from_json(tmp_path: Path) -> None:
    data = folder(tmp_path, fit=Pad(level=1.0), cache=tmp_path)
    assert from_json(Data, to_json(data)) == data


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_skipped(tmp_path: Path) -> None:
    pictures.flat(tmp_path, 3)
    (tmp_path / "001.png").chmod(0)
    assert everything(folder(tmp_path).open("train"))[1] == [0, 2]
    (tmp_path / "001.png").chmod(0o600)
    assert everything(folder(tmp_path).open("train"))[1] == [0, 1, 2]


def test_what_is_not_a_file_is_skipped_without_being_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures.flat(tmp_path, 3)
    os.mkfifo(tmp_path / "pipe.png")  # to open one waits for ever
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert everything(folder(tmp_path).open("train"))[1] == [0, 1, 2]
    assert "Skipped 2 unreadable of 5 images (gone.png: a link to" in capsys.readouterr().err


def recipe(data: ImageFolder, patch: tuple[int, int]) -> Recipe:
    model = DiTConfig(width=16, depth=1, heads=2, patch=patch, conditions={"label": Label()})
    return Recipe(model=model, codec=Normalize.to_unit(0, 1), view=Images(0, 1), data=data)


@pytest.mark.parametrize(("classes", "channels"), [(7, 1), (7, 4), (3, 3)])
def test_any_number_of_classes_and_channels_makes_a_model(tmp_path: Path, classes: int, channels: int) -> None:
    names = tuple(f"kind {i}" for i in range(classes))
    pictures.by_class(tmp_path, names, 3, (20, 30), channels)
    samples = folder(tmp_path, size=(12, 20), channels=channels).open("train")
    whole = resolved(recipe(folder(tmp_path, size=(12, 20), channels=channels), (4, 4)), samples)
    assert (whole.model.channels, whole.model.size) == (channels, (12, 20))
    label = whole.model.conditions["label"]
    assert isinstance(label, Label)
    assert (label.classes, label.names) == (classes, names)
    model = DiT(whole.model)
    assert model.conditioner.vectors["label"].table.weight.shape[0] == classes + 1  # the null is the last row
    batch = samples.read(torch.arange(4))
    given = prepared({"label": [names[-1]] * 4}, whole.model.conditions, 4, (12, 20))
    for cond in (batch.cond, given, {}):
        assert model(batch.x, torch.full((4,), 0.5), cond).shape == batch.x.shape
    with pytest.raises(ValueError, match=f"got {classes}, expected a class from 0 to {classes - 1}"):
        prepared({"label": classes}, whole.model.conditions, 1, (12, 20))


def test_a_flat_folder_makes_an_unconditional_model(tmp_path: Path) -> None:
    pictures.flat(tmp_path, 3)
    notes = list[str]()
    data = folder(tmp_path, size=(8, 8))
    whole = resolved(recipe(data, (4, 4)), data.open("train"), notes.append)
    assert whole.model.conditions == {}
    assert notes == ["The model is not conditioned on label: the data has none."]


def test_a_size_that_no_patch_divides_is_refused_before_the_data_is_looked_for() -> None:
    with pytest.raises(ValueError, match=r"size.*10, 12"):
        recipe(folder(Path("nowhere"), size=(10, 12)), (4, 4))


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        (Crop(), "at most 50% of an image's area is cut (--data.fit Crop)"),
        (Pad(), "at most 50% of a sample is bars (--data.fit Pad)"),
        (Stretch(), "an image is stretched to at most 2.00 times its aspect (--data.fit Stretch)"),
    ],
)
def test_what_another_aspect_costs_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fit: Any, said: str
) -> None:
    pictures.flat(tmp_path, 20)
    data = folder(tmp_path, fit=fit, held_out=0.4)
    data.open("train")
    assert not capsys.readouterr().err.strip(), "all are of the size's own aspect"
    pictures.write(tmp_path / "high.png", pictures.noise(30, (12, 9)))
    data.open("held_out")
    assert not capsys.readouterr().err.strip()
    data.open("train")
    expected = f"Some images have another aspect than 6x9: {said}; --data.buckets Aspects has several sizes."
    assert capsys.readouterr().err.strip() == expected


def test_an_aspect_that_is_off_by_rounding_alone_is_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures.flat(tmp_path, 3, (427, 640))  # 2 by 3, as sides in whole pixels have it
    folder(tmp_path).open("train")
    assert not capsys.readouterr().err.strip()
