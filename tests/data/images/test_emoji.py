"""Emoji: what the package's index says of each picture, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.data import ArraySamples, Emoji
from anydit.data.base import digest
from anydit.data.images.emoji import INDEX, PICTURES, TONES

INSTALLED = Emoji().path


def entry(name: str, tones: tuple[str, ...] = (), category: str = "Animals") -> dict[str, Any]:
    code = name.encode().hex()
    variations = {tone: {"image": f"{code}-{tone.lower()}.png", "has_img_google": True} for tone in tones}
    return {
        "name": name,
        "unified": code,
        "image": f"{code}.png",
        "category": category,
        "has_img_google": True,
        **({"skin_variations": variations} if tones else {}),
    }


def package(folder: Path, entries: list[dict[str, Any]]) -> Path:
    """A package of these emoji, each picture a disc of a colour of its own on nothing."""
    (folder / PICTURES).mkdir(parents=True)
    (folder / INDEX).write_text(json.dumps(entries), encoding="utf-8")
    random = np.random.default_rng(0)
    for each in entries:
        for image in [each["image"], *(v["image"] for v in each.get("skin_variations", {}).values())]:
            pixels = np.zeros((64, 64, 4), np.uint8)
            pixels[16:48, 16:48] = [*random.integers(0, 200, 3), 255]
            Image.fromarray(pixels).save(folder / PICTURES / image)
    return folder


def all_of(path: Path, part: str = "train", **fields: Any) -> ArraySamples:
    samples = Emoji(path=path, **fields).open(part)  # pyright: ignore[reportArgumentType]
    assert isinstance(samples, ArraySamples)
    return samples


def test_texts_are_names_and_tones(tmp_path: Path) -> None:
    hand = entry("WAVING HAND SIGN", ("1F3FB", "1F3FF", "1F3FB-1F3FE"), "People")
    root = package(tmp_path, [entry("FOX  FACE"), hand, {**entry("NO PICTURE"), "has_img_google": False}])
    samples = all_of(root, held_out=0, size=(16, 16))
    batch = samples.read(torch.arange(len(samples)))
    assert batch.texts["text"] == [
        "fox face",
        "waving hand sign",
        "waving hand sign, light skin tone",
        "waving hand sign, dark skin tone",
        "waving hand sign, light and medium dark skin tone",
    ]
    assert samples.facts.classes == {"label": ("Animals", "People")}
    assert samples.facts.conditions == ("label", "text")
    assert batch.tensor("label").tolist() == [0, 1, 1, 1, 1]
    assert batch.x.shape == (5, 3, 16, 16)
    assert bool((batch.x[:, :, 0] == 1).all()), "what is transparent is white"
    with Image.open(root / PICTURES / hand["skin_variations"]["1F3FF"]["image"]) as image:
        colour = torch.tensor(image.getpixel((32, 32))[:3]) / 255
    torch.testing.assert_close(batch.x[3, :, 8, 8], colour)
    assert samples.read(torch.tensor([4, 0])).texts["text"] == [batch.texts["text"][4], "fox face"]


def test_tones_of_one_emoji_are_in_one_part(tmp_path: Path) -> None:
    entries = [entry(f"HAND {i}", tuple(TONES)) for i in range(40)]
    root = package(tmp_path, [*entries, {**entry("HAND 3"), "image": "same.png"}])
    parts = [
        {text.split(",")[0] for text in part.read(torch.arange(len(part))).texts["text"]}
        for part in (all_of(root, "train", held_out=0.3), all_of(root, "held_out", held_out=0.3))
    ]
    assert not parts[0] & parts[1], "not even under the same name twice"
    assert len(parts[0] | parts[1]) == 40
    assert 4 < len(parts[1]) < 20


def test_another_text_is_other_data(tmp_path: Path) -> None:
    one = package(tmp_path / "one", [entry(f"FOX {i}") for i in range(3)])
    listed = json.loads((one / INDEX).read_text())
    before = digest(all_of(one, held_out=0))
    listed[1]["name"] = "BADGER"
    (one / INDEX).write_text(json.dumps(listed))
    assert digest(all_of(one, held_out=0)) != before


def test_it_says_how_to_get_the_package(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.path: got .*none, which has no emoji\.json; .*npm install emoji-data"):
        Emoji(path=tmp_path / "none").open("train")


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("[", "JSONDecodeError"),
        ("{}", "names no picture"),
        ('[{"name": "A"}]', "KeyError: 'has_img_google'"),
        ("[3]", "TypeError"),
        (json.dumps([{**entry("A"), "name": None}]), "AttributeError"),
        (json.dumps([{**entry("A"), "name": " "}]), "no name for"),
        (json.dumps([{**entry("A"), "image": "../a.png"}]), "is no file's name"),
        (json.dumps([entry("A", ("1F600",))]), "KeyError: '1F600'"),
    ],
)
def test_an_index_of_another_kind_is_refused(tmp_path: Path, index: str, said: str) -> None:
    (tmp_path / INDEX).write_text(index, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^data\.path: got ") as error:
        Emoji(path=tmp_path).open("train")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_pictures_that_are_missing_are_counted(tmp_path: Path) -> None:
    root = package(tmp_path, [entry(f"FOX {i}") for i in range(30)])
    for picture in sorted((root / PICTURES).iterdir())[:6]:
        picture.unlink()
    with pytest.raises(ValueError, match=r"data\.bad_limit: got 6 unreadable .*not in the package"):
        all_of(root)


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="needs the npm package emoji-datasource-google")
def test_the_package_as_it_is() -> None:
    train, held_out = all_of(INSTALLED), all_of(INSTALLED, "held_out")
    assert len(train) + len(held_out) > 3500
    texts = train.texts["text"]
    assert {"grinning face", "rocket", "waving hand sign, dark skin tone"} <= set(texts)
