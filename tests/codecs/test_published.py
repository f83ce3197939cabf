"""Autoencoders of diffusers as codecs: what they compute there is what the codec computes, on the data's own scale."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anydit.codecs import CodecConfig, Latents, Published
from anydit.codecs.published import KINDS
from anydit.config import from_json, to_json
from anydit.overrides import overridden
from tests.codecs.tiny import OPTIONS, images, saved, survey

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")

SIZES = {
    "AutoencoderKL": ((3, 16, 24), (4, 4, 6)),
    "AutoencoderDC": ((3, 16, 24), (4, 4, 6)),
    "AutoencoderTiny": ((3, 16, 24), (4, 4, 6)),
    "AutoencoderRAE": ((3, 16, 16), (64, 4, 4)),
    "AutoencoderKLWan": ((3, 9, 16, 16), (4, 3, 2, 2)),
    "AutoencoderOobleck": ((2, 64), (4, 8)),
}
"""Of data and of their latents."""


def latents_of(network: object, x: Tensor) -> Tensor:
    """What diffusers says they are."""
    answer = network.encode(x)  # type: ignore[attr-defined]
    return answer.latent_dist.mode() if hasattr(answer, "latent_dist") else next(iter(vars(answer).values()))


def test_every_kind_is_tried():
    assert KINDS.keys() == OPTIONS.keys() == SIZES.keys()


@pytest.mark.parametrize("name", KINDS)
def test_computes_what_diffusers_computes(name: str, tmp_path: Path):
    network = saved(tmp_path, name)
    shape, latent = SIZES[name]
    x = images(10, *shape, low=0.0, high=255.0)
    config = Latents(path=tmp_path).measured(survey(x, (0.0, 255.0)))
    assert config.latent_size(shape[1:]) == latent[1:] and config.data_size(latent[1:]) == shape[1:]
    assert config.latent_channels(shape[0]) == latent[0]
    codec = config.restored()
    low, high = KINDS[name].unit
    with torch.inference_mode():
        theirs = latents_of(network, x / 255 * (high - low) + low)
        z = codec.encode(x)
        shift, scale = (torch.tensor(v).reshape(-1, *(1,) * (len(shape) - 1)) for v in (config.shift, config.scale))
        torch.testing.assert_close(z * scale + shift, theirs, rtol=1e-4, atol=1e-5)
        made = network.decode(theirs).sample
        torch.testing.assert_close(codec.decode(z), (made - low) / (high - low) * 255, rtol=1e-3, atol=0.01)
    axes = (0, *range(2, z.ndim))
    torch.testing.assert_close(z.mean(axes), torch.zeros(latent[0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(axes, correction=0), torch.ones(latent[0]), atol=1e-3, rtol=0)
    assert from_json(CodecConfig, json.loads(json.dumps(to_json(config)))) == config
    assert not any(p.requires_grad for p in codec.parameters())


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("AutoencoderKL", (16, 18), r"got data of size \(16, 18\), expected multiples of \(4, 4\)"),
        ("AutoencoderKL", (16,), "got data with 1 axes, expected 2"),
        ("AutoencoderKLWan", (8, 16, 16), "got data of 8 frames, expected one more than a multiple of 4"),
        ("AutoencoderRAE", (20, 20), r"got data of size \(20, 20\), expected \(16, 16\), as AutoencoderRAE has"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, size: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        Published({**OPTIONS[name], "_class_name": name, "in_channels": 3, "num_channels": 3}).latent_size(size)


def test_channels_that_do_not_fit_are_refused(tmp_path: Path):
    saved(tmp_path)
    with pytest.raises(ValueError, match="codec: got data of 1 channels, expected 3, as AutoencoderTiny has"):
        Latents(path=tmp_path).measured(survey(images(8, 1, 16, 16), (0.0, 1.0)))


def test_data_without_bounds_are_refused(tmp_path: Path):
    saved(tmp_path)
    with pytest.raises(ValueError, match=r"set view\.low and view\.high"):
        Latents(path=tmp_path).measured(survey(images(8, 3, 16, 16)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "got diffusers' class 'UNet2DModel', expected one of AutoencoderKL"),
        ({}, "got diffusers' class None"),
        ({"_class_name": "AutoencoderKL"}, "got AutoencoderKL without 'block_out_channels'"),
        ({"_class_name": "AutoencoderOobleck", "downsampling_ratios": ["2"], "audio_channels": 1}, "Oobleck"),
    ],
)
def test_what_is_no_autoencoder_is_refused(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Published(options)


def test_weights_under_their_older_names_fit(tmp_path: Path):
    """Files of before diffusers 0.17 call the parts of an attention otherwise."""
    from safetensors.torch import load_file, save_file

    network = saved(tmp_path, "AutoencoderKL")
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, old in older.items():
        state = {k.replace(f".{new}.", f".{old}.") if ".attentions." in k else k: v for k, v in state.items()}
    assert "encoder.mid_block.attentions.0.query.weight" in state
    save_file(state, file)
    x = images(4, 3, 16, 16)
    codec = Latents(path=tmp_path).measured(survey(x, (0.0, 1.0))).restored()
    with torch.inference_mode():
        theirs = network.decode(network.encode(2 * x - 1).latent_dist.mode()).sample
        torch.testing.assert_close(codec.decode(codec.encode(x)), (theirs + 1) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_with_it_takes_flags(name: str):
    """Whatever is in the options of diffusers, flags for other fields are read, and for these refused."""
    options = json.loads(json.dumps(OPTIONS[name])) | {"_class_name": name, "in_channels": 3, "num_channels": 3}
    config = Published(options, 0.0, 1.0)
    about = Latents(codec=config, shift=(0.0,), scale=(1.0,), sha256="0")
    assert overridden(about, ["--shift", "2.0"], "test") == replace(about, shift=(2.0,))
    assert overridden(about, ["--codec.options", json.dumps(options)], "test") == about
    with pytest.raises(ValueError, match="options"):
        overridden(about, ["--codec.options", "{"], "test")
