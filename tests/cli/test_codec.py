"""The commands on a codec: it is trained and evaluated like a model, and then a model is trained in its latents."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anydit.cli import main
from anydit.evaluate import classifier
from tests.codecs.tiny import saved
from tests.train import tiny, tiny_codec

CODEC, MODEL = f"{tiny_codec.__file__}:tiny_codec", f"{tiny.__file__}:tiny"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(classifier, "LEAST_SEEN", 1000)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_an_autoencoder_to_samples_in_its_latents(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", CODEC, "--train.steps", "2", "--codec.latent", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "Look at runs/tiny_codec/reconstructions.png, then: anydit evaluate runs/tiny_codec" in said
    words = [
        "--codec",
        "Latents",
        "--codec.path",
        "runs/tiny_codec",
        "--model.patch",
        "2",
        "2",
        "--train.latents",
        "Cached",
    ]
    assert main(["train", MODEL, "--train.steps", "2", "--device", "cpu", *words]) == 0
    shutil.rmtree("runs/tiny_codec")
    assert main(["sample", "runs/tiny", "--label", "3", "-n", "2", "--out", "two.png"]) == 0
    assert Path("two.png").is_file()
    recipe = json.loads(Path("runs/tiny/recipe.json").read_text(encoding="utf-8"))
    assert len(recipe["codec"]["shift"]) == 2 and recipe["train"]["latents"]["type"] == "Cached"


def test_evaluate(codec: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(codec), "--out", "report", "--samples", "100"]) == 0
    out = capsys.readouterr().out
    for words in ("PSNR, dB", "SSIM", "Fréchet distance", "100 reconstructions", "report.html"):
        assert words in out, words
    content = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
    assert content["figures"]["ssim"]["samples"] < 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ["evaluate", "CODEC", "--steps", "5"],
            "--steps: CODEC holds a codec, whose reconstructions it does not change",
        ),
        (["evaluate", "CODEC", "--sampler", "Heun"], "--sampler: CODEC holds a codec"),
        (["sample", "CODEC"], "path: got CODEC, in which a codec was trained, expected the run of a model"),
        (["profile", "CODEC"], "got CODEC, which trains a codec, expected one that trains a model"),
        (["profile", "fashion-codec"], "got fashion-codec, which trains a codec, expected one that trains a model"),
        (
            ["train", "digits", "--codec", "Latents"],
            "codec.path: got none, expected the folder of an autoencoder's run",
        ),
        (
            ["train", "digits", "--codec", "Latents", "--codec.path", "gone"],
            "codec.path: got gone, which is not a folder",
        ),
        (
            ["train", "digits", "--codec", "KLAutoencoder", "--model.patch", "1", "1"],
            "codec: got KLAutoencoder, which has no trained",
        ),
        (
            ["train", "fashion-codec", "--codec.widths", "5"],
            "codec.widths: got (5,), expected multiples of codec.groups",
        ),
    ],
)
def test_refused(words: list[str], named: str, codec: Path, capsys: pytest.CaptureFixture[str]):
    assert main([word.replace("CODEC", str(codec)) for word in words]) == 2
    err = capsys.readouterr().err
    assert named.replace("CODEC", str(codec)) in err and "Traceback" not in err
    assert not list(Path().glob("runs/*/checkpoints/*"))


def test_help_lists_the_fields_of_a_codec(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "fashion-codec", "--help"]) == 0
    page = capsys.readouterr().out
    for words in (
        "--codec.latent INT  [2]",
        "--train.error Absolute|Squared  [Absolute]",
        "--train.steps INT  [1000]  in all.",
    ):
        assert words in page, words


GREY = {"in_channels": 1, "out_channels": 1}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")  # of diffusers' own
@pytest.mark.parametrize(
    ("name", "options", "key", "named"),
    [
        ("AutoencoderTiny", {}, None, "codec: got data of 1 channels, expected 3, as AutoencoderTiny has"),
        (
            "AutoencoderOobleck",
            {"audio_channels": 1},
            None,
            "codec: got data with 2 axes, expected 1, as AutoencoderOobleck has",
        ),
        ("AutoencoderKLWan", GREY, None, "codec: got data with 2 axes, expected 3, as AutoencoderKLWan has"),
        ("AutoencoderTiny", GREY, "extra", "does not fit the model: unexpected network.extra (2,)"),
        ("AutoencoderTiny", GREY, "decoder.layers.0.bias", "decoder.layers.0.bias: got (2,) torch.float32, expected"),
    ],
)
def test_an_autoencoder_that_does_not_fit_is_refused_before_work_starts(
    name: str, options: dict[str, int], key: str | None, named: str, here: Path, capsys: pytest.CaptureFixture[str]
):
    saved(here / "published", name, **options)
    if key is not None:
        file = here / "published" / "diffusion_pytorch_model.safetensors"
        save_file(load_file(file) | {key: torch.zeros(2)}, file)
    assert main(["train", MODEL, "--device", "cpu", "--codec", "Latents", "--codec.path", "published"]) == 2
    assert named in capsys.readouterr().err.splitlines()[-1], "one sentence, whatever diffusers said before it"
    assert not list(Path("runs").rglob("*.safetensors")) and not list(Path("runs").rglob("recipe.json"))
