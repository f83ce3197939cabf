"""Text encoders: the published models' own numbers, texts that are too long, and what is refused."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel

from anydit.codecs.text import MINILM_PACKAGE, Own, TextEncoder, opened
from tests.codecs.tiny_text import save_encoder

TEXTS = ["a three above the nine", "nine", "", "the seven left of it", "nine"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {family: save_encoder(root / family, family) for family in ("bert", "t5", "clip", "clip-projected")}


def encoder(folder: Path, **changes: Any) -> TextEncoder:
    return TextEncoder(str(folder), **{"max_tokens": 12, **changes})


@pytest.mark.parametrize("family", ["bert", "t5", "clip", "clip-projected"])
def test_tokens_are_those_of_the_model_alone(folders: dict[str, Path], family: str):
    """Whatever other texts are beside one, and although nothing is padded and masked."""
    made = opened(encoder(folders[family]))(TEXTS)
    kind: Any = {"t5": T5EncoderModel, "clip-projected": CLIPTextModelWithProjection}.get(family, AutoModel)
    model, tokenizer = kind.from_pretrained(folders[family]), AutoTokenizer.from_pretrained(folders[family])
    assert made.pooled is not None and made.values.dtype == torch.float32
    for i, text in enumerate(TEXTS):
        with torch.no_grad():
            alone = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
        assert made.exists[i].tolist() == [n < len(alone) for n in range(made.values.shape[1])]
        torch.testing.assert_close(made.values[i, : len(alone)], alone, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(made.pooled[i], alone.mean(0), rtol=1e-5, atol=1e-6)
        assert (made.values[i, len(alone) :] == 0).all()


@pytest.mark.parametrize(("family", "width"), [("clip", 16), ("clip-projected", 8)])
def test_own_vectors(folders: dict[str, Path], family: str, width: int):
    config = encoder(folders[family], pooling=Own()).measured()
    made = opened(config)(TEXTS[:2])
    assert (config.width, config.pooled) == (16, width)
    kind: Any = CLIPTextModelWithProjection if width == 8 else AutoModel
    model, tokenizer = kind.from_pretrained(folders[family]), AutoTokenizer.from_pretrained(folders[family])
    with torch.no_grad():
        out = model(**tokenizer(TEXTS[1], return_tensors="pt", return_token_type_ids=False))
    assert made.pooled is not None
    torch.testing.assert_close(made.pooled[1], (out.text_embeds if width == 8 else out.pooler_output)[0])


def test_an_inner_layer(folders: dict[str, Path]):
    """The last but one, as Stable Diffusion 3 takes it, and not under the last norm."""
    last, before = (opened(encoder(folders["clip"], layer=layer))(["a nine"]) for layer in (-1, -2))
    model, tokenizer = AutoModel.from_pretrained(folders["clip"]), AutoTokenizer.from_pretrained(folders["clip"])
    with torch.no_grad():
        told = tokenizer("a nine", return_tensors="pt", return_token_type_ids=False)
        out = model(**told, output_hidden_states=True)
    torch.testing.assert_close(before.values, out.hidden_states[-2])
    assert not torch.allclose(last.values, before.values)


def test_padding_that_counts(folders: dict[str, Path]):
    made = opened(encoder(folders["t5"], padded=True))(["a nine", "the seven left of it"])
    assert made.values.shape == (2, 12, 16) and made.exists.all()
    assert not torch.allclose(made.values[0, -1], torch.zeros(16))


def test_too_long(folders: dict[str, Path]):
    encode = opened(encoder(folders["bert"], max_tokens=5))
    with pytest.warns(
        UserWarning, match=r"got 7 tokens in 'a three above the nine', expected at most 5; dropped 'the "
    ):
        made = encode(["a three above the nine", "a nine"])
    with pytest.warns(UserWarning, match="and in 1 other texts"):
        encode(["a three above the nine", "the seven left of it"])
    short = encode(["a three above"])
    torch.testing.assert_close(made.values[0], short.values[0])


def test_measured(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    whole = encoder(folders["bert"]).measured()
    assert (whole.width, whole.pooled, whole.complete) == (16, 16, True) and whole.sha256 is not None
    monkeypatch.chdir(folders["bert"].parent)
    assert encoder(Path("bert")).measured() == whole, "a folder is kept from the root on"
    assert replace(whole, source="/nowhere").measured().width == 16, "nothing is opened where nothing is missing"


def test_another_encoder(folders: dict[str, Path], tmp_path: Path):
    whole = encoder(folders["bert"]).measured()
    wide, other = save_encoder(tmp_path / "wide", "bert", width=32), save_encoder(tmp_path / "other", "bert", seed=1)
    with pytest.raises(ValueError, match=r"source: got .*wide, whose tokens have width 32, expected 16"):
        opened(replace(whole, source=str(wide)))
    with pytest.raises(
        ValueError, match=r"source: got .*other \(sha256 .*\), expected the encoder that was trained with"
    ):
        opened(replace(whole, source=str(other)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_tokens": 20}, r"max_tokens: got 20, expected at most the 12"),
        ({"layer": -4}, r"layer: got -4, expected -3 to -1"),
        ({"max_tokens": 0}, r"max_tokens: got 0, expected at least 1"),
        ({"layer": 1}, r"layer: got 1, expected -1"),
        ({"source": "/nowhere"}, r"source: got /nowhere, which is not a folder"),
    ],
)
def test_refused(folders: dict[str, Path], changes: dict[str, Any], expected: str):
    with pytest.raises(ValueError, match=expected):
        opened(TextEncoder(**{"source": str(folders["bert"]), "max_tokens": 12, **changes}))


def test_own_of_one_that_has_none(folders: dict[str, Path]):
    with pytest.raises(ValueError, match=r"pooling: got Own, but .* expected Mean"):
        opened(encoder(folders["t5"], pooling=Own()))


def test_a_folder_that_holds_no_encoder(tmp_path: Path):
    with pytest.raises(ValueError, match=r"source: got .*, expected the folder of a text encoder"):
        opened(TextEncoder(str(tmp_path)))


def test_pickles_are_not_read(folders: dict[str, Path], tmp_path: Path):
    for file in folders["bert"].iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(AutoModel.from_pretrained(folders["bert"]).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"with safetensors"):
        opened(TextEncoder(str(tmp_path), max_tokens=12))


def test_weights_that_are_missing(folders: dict[str, Path], tmp_path: Path):
    from safetensors.torch import load_file, save_file

    for file in folders["bert"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"without the weights encoder.layer.1.output.dense.weight"):
        opened(TextEncoder(str(tmp_path), max_tokens=12))


def test_a_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch):
    """Its failure says how to use a folder."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"which is not to be had from the hub; .*--local-dir FOLDER"):
        opened(TextEncoder("nobody/no-such-encoder"))


@pytest.mark.skipif(find_spec(MINILM_PACKAGE) is None, reason="the extra minilm is not installed")
def test_minilm_knows_what_texts_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()  # a folder of that name is another thing, to be had as ./minilm
    pooled = opened(TextEncoder("minilm"))(
        ["a three above a nine", "a nine below a three", "the weather in June"]
    ).pooled
    assert pooled is not None
    near, far = (torch.cosine_similarity(pooled[0], pooled[i], dim=0) for i in (1, 2))
    assert near > 0.8 and far < 0.3
    assert TextEncoder("minilm").measured().source == "minilm"
