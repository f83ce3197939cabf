"""Latents of trained autoencoders: found where they are said to be, brought to scale, refused where they changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from anydit.codecs import KLAutoencoder, Latents, Normalize, load
from anydit.config import to_json
from anydit.weights import save_tensors, write_config
from tests.codecs.tiny import images, saved, survey

SMALL = KLAutoencoder(widths=(4, 8), groups=2, blocks=1, latent=3)


def run_of(folder: Path, config: object, state: dict[str, torch.Tensor], id: str = "a") -> Path:
    """A folder such as training leaves."""
    folder.mkdir(exist_ok=True)
    write_config(folder / "recipe.json", {"type": "CodecRecipe", "codec": to_json(config)}, id)
    save_tensors(folder / "codec.safetensors", state, id)
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """The folder of an autoencoder, and its data."""
    x = images(40, 2, 8, 12, low=3.0, high=9.0)
    config = SMALL.measured(survey(x))
    return run_of(tmp_path / "codec", config, config.build().state_dict()), x


def test_a_run_is_opened_and_brought_to_scale(trained: tuple[Path, torch.Tensor]):
    folder, x = trained
    own = load(folder)
    config = Latents(path=folder).measured(survey(x))
    codec = config.restored()
    z = codec.encode(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.decode(z), own.decode(own.encode(x)), rtol=1e-4, atol=1e-4)
    assert not own.training and not any(p.requires_grad for p in own.parameters())


def test_a_complete_config_needs_its_source_for_weights_alone(trained: tuple[Path, torch.Tensor]):
    folder, x = trained
    config = Latents(path=folder).measured(survey(x))
    state = config.restored().state_dict()
    for file in folder.iterdir():
        file.unlink()
    assert config.measured(survey(x[:0])) is config
    built = config.build()
    built.load_state_dict(state)
    assert built.encode(x[:2]).shape == (2, 3, 4, 6)
    with pytest.raises(ValueError, match=r"which has no recipe\.json, pipeline\.json or config\.json"):
        config.restored()


def test_the_latents_of_a_run_in_latents_are_those_of_its_autoencoder(trained: tuple[Path, torch.Tensor]):
    folder, x = trained
    first = Latents(path=folder).measured(survey(x))
    again = run_of(folder.parent / "model", first, first.restored().state_dict())
    second = Latents(path=again).measured(survey(x[:10]))
    assert second.codec == first.codec and second.sha256 == first.sha256
    assert second.shift != first.shift, "measured on these data"
    own, codec = load(folder), second.restored()
    torch.testing.assert_close(codec.decode(codec.encode(x)), own.decode(own.encode(x)), rtol=1e-4, atol=1e-4)


def test_weights_that_changed_are_refused(trained: tuple[Path, torch.Tensor]):
    folder, x = trained
    config = Latents(path=folder).measured(survey(x))
    state = load_file(folder / "codec.safetensors")
    save_tensors(folder / "codec.safetensors", {k: v + 1 for k, v in state.items()}, "a")
    with pytest.raises(ValueError, match=r"has weights of sha256 .* with which latents were measured; put them back"):
        config.restored()


def test_weights_of_another_run_are_refused(trained: tuple[Path, torch.Tensor]):
    folder, x = trained
    save_tensors(folder / "codec.safetensors", load_file(folder / "codec.safetensors"), "b")
    with pytest.raises(ValueError, match="of the id b, expected a"):
        Latents(path=folder).measured(survey(x))


def test_what_does_not_fit_the_data_is_refused(trained: tuple[Path, torch.Tensor]):
    folder, _ = trained
    with pytest.raises(ValueError, match="got data of 3 channels, expected 2, as KLAutoencoder has"):
        Latents(path=folder).measured(survey(images(4, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"got data of size \(8, 9\), expected multiples of \(2, 2\)"):
        Latents(path=folder).measured(survey(images(4, 2, 8, 9)))


def test_where_there_is_none_is_said(tmp_path: Path):
    data = survey(images(4, 2, 8, 8))
    with pytest.raises(ValueError, match=r"codec\.path: got none, expected the folder"):
        Latents().measured(data)
    with pytest.raises(ValueError, match="nowhere, which is not a folder"):
        Latents(path=tmp_path / "nowhere").measured(data)
    write_config(tmp_path / "recipe.json", {"codec": to_json(Normalize.to_unit(0, 1))}, "a")
    with pytest.raises(ValueError, match="whose codec is Normalize without weights"):
        Latents(path=tmp_path).measured(data)
    with pytest.raises(ValueError, match="expected an autoencoder: resolve the recipe"):
        Latents(path=tmp_path).build()


def test_pickles_are_not_read(tmp_path: Path):
    saved(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), tmp_path / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ValueError, match=r"\(its diffusion_pytorch_model\.bin may hold code, and is not read\)"):
        Latents(path=tmp_path).measured(survey(images(4, 3, 16, 16), (0.0, 1.0)))


def test_files_that_are_not_whole_are_refused(tmp_path: Path):
    saved(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state.pop(next(iter(state)))
    save_file(state, weights)
    with pytest.raises(ValueError, match="does not fit the model: missing network"):
        Latents(path=tmp_path).measured(survey(images(4, 3, 16, 16), (0.0, 1.0)))
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        Latents(path=tmp_path).measured(survey(images(4, 3, 16, 16), (0.0, 1.0)))
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="which is no config of diffusers"):
        Latents(path=tmp_path).measured(survey(images(4, 3, 16, 16), (0.0, 1.0)))


def test_a_pipelines_autoencoder_is_its_vae(tmp_path: Path):
    saved(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline"}), encoding="utf-8")
    assert Latents(path=tmp_path).measured(survey(images(4, 3, 16, 16), (0.0, 1.0))).complete


def test_a_name_on_the_hub_is_asked_for_there_alone():
    """No network is at hand here: the sentence says how to do without."""
    with pytest.raises(
        ValueError, match=r"codec\.hub: got a/b, which is not to be had .*; a copy .* --codec\.path FOLDER"
    ):
        Latents(hub="a/b").measured(survey(images(4, 3, 16, 16), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"codec\.hub: got 'b', expected ORGANISATION/NAME"):
        Latents(hub="b").measured(survey(images(4, 3, 16, 16), (0.0, 1.0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": Path("a"), "hub": "a/b"}, "expected one of them"),
        ({"shift": (0.0,), "scale": (1.0,)}, "got only some of them, expected all or none"),
    ],
)
def test_half_a_config_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Latents(**options)
