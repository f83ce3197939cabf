"""Representation autoencoders: the encoder is transformers' own and stays as it is, the decoder learns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anydit.codecs import RAE, CodecConfig
from anydit.config import from_json, to_json
from tests.codecs.tiny import Numbers, images, survey

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def encoder(folder: Path, kind: str = "Dinov2", **options: Any) -> Any:
    """A small vision encoder with random weights, saved as transformers saves it."""
    import transformers

    torch.manual_seed(0)
    prefix = f"{kind}Vision" if kind == "Siglip" else kind
    config = getattr(transformers, f"{prefix}Config")(**SMALL, patch_size=4, image_size=16, **options)
    network = getattr(transformers, f"{prefix}Model")(config).eval()
    network.save_pretrained(folder)
    return network


CONFIG = RAE(patch=8, width=16, depth=1, heads=2, noise=0.5)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "Siglip", "ViT"])
def test_latents_are_the_encoders_features_of_each_patch(kind: str, tmp_path: Path):
    network = encoder(tmp_path, kind)
    x = images(6, 3, 16, 24, low=0.0, high=255.0)
    config = replace(CONFIG, path=tmp_path).measured(survey(x, (0.0, 255.0)))
    assert config.latent_size((16, 24)) == (2, 3) and config.data_size((2, 3)) == (16, 24)
    codec = config.untrained()
    z = codec.encode(x)
    assert z.shape == (6, config.latent_channels(3), 2, 3) == (6, 16, 2, 3)
    shown = torch.nn.functional.interpolate(x / 255, (8, 12), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    ask = {} if kind.startswith("Dinov2") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        tokens = network((shown - mean) / std, **ask).last_hidden_state[:, -6:]
    torch.testing.assert_close(z.flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-4)
    assert codec.decode(z).shape == x.shape


def test_images_in_grey_and_other_means(tmp_path: Path):
    encoder(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}), encoding="utf-8"
    )
    x = images(6, 1, 16, 16)
    config = replace(CONFIG, path=tmp_path).measured(survey(x, (0.0, 1.0)))
    assert config.channels == 1 and config.mean == (0.5,) * 3 and config.std == (0.25,) * 3
    codec = config.untrained()
    assert codec.decode(codec.encode(x)).shape == x.shape
    with Numbers() as later:
        codec.encode(x)
    assert later.count == 0, "mean and deviation are on the device by now"
    assert from_json(CodecConfig, json.loads(json.dumps(to_json(config)))) == config


def test_the_decoder_learns_and_the_encoder_does_not(tmp_path: Path):
    encoder(tmp_path)
    x = images(8, 3, 16, 16)
    config = replace(CONFIG, path=tmp_path).measured(survey(x, (0.0, 1.0)))
    codec = config.untrained().train()
    assert not codec.encoder.training
    before = {k: v.clone() for k, v in codec.encoder.state_dict().items()}
    trained = [p for p in codec.parameters() if p.requires_grad]
    assert len(trained) == len(list(codec.decoder.parameters()))
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    y, errors = codec.units.encode(x), list[float]()
    levels = list[torch.Tensor]()

    def draw(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn(8, *shape)
        levels.append(noise) if name == "level" else None
        return noise

    for _ in range(30):
        z, penalty = codec.drawn(y, draw)
        assert penalty is None
        loss = (codec.reconstruction(z) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.5 * errors[0]
    assert levels[0].shape == (8, 1, 1, 1), "each sample has a noise level of its own"
    assert all(torch.equal(v, before[k]) for k, v in codec.encoder.state_dict().items())


def test_what_is_no_encoder_is_refused(tmp_path: Path):
    x = survey(images(4, 3, 16, 16), (0.0, 1.0))
    with pytest.raises(ValueError, match=r"codec\.path: got none, expected the folder of a vision encoder"):
        CONFIG.measured(x)
    with pytest.raises(ValueError, match=r"which has no config\.json"):
        replace(CONFIG, path=tmp_path).measured(x)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 4}), encoding="utf-8")
    with pytest.raises(ValueError, match="got an encoder of the kind 'bert', expected one of dinov2"):
        replace(CONFIG, path=tmp_path).measured(x)


def test_what_does_not_fit_is_refused(tmp_path: Path):
    encoder(tmp_path)
    config = replace(CONFIG, path=tmp_path)
    with pytest.raises(ValueError, match="codec: got data of 2 channels, expected 1 or 3, as RAE has"):
        config.measured(survey(images(4, 2, 16, 16), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"got data of size \(16, 20\), expected multiples of \(8, 8\)"):
        config.measured(survey(images(4, 3, 16, 20), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"set view\.low and view\.high"):
        config.measured(survey(images(4, 3, 16, 16)))
    whole = config.measured(survey(images(4, 3, 16, 16), (0.0, 1.0)))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"which has no model\.safetensors"):
        whole.untrained()
    with pytest.raises(ValueError, match=r"codec\.width: got 18, expected a multiple of 4"):
        replace(CONFIG, width=18)
