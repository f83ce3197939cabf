"""Parity with diffusers' PixArt, and folders that either writes and the other reads."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.interop.pixart import from_diffusers, read, to_diffusers, write
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.modulation import PerBlock, Shared
from anydit.model.norms import RMSNorm
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import Rope, SinCos
from tests.interop.diffusers_text import draw, ours, random_weights, randomised, relative, text

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers' own imports
    from diffusers import PixArtTransformer2DModel

INDEX = torch.tensor([0, 371, 999])
WIDTH = 20
"""Of the texts' tokens."""


def config_of(**changes: Any) -> DiTConfig:
    base = DiTConfig(
        32,
        2,
        2,
        (2, 2),
        channels=3,
        size=(8, 8),
        conditions={"text": Text(WIDTH, entry=Cross(), dropout=0.0)},
        position=SinCos(interpolate=True),
        modulation=Shared(),
        learned_variance=True,
    )
    return replace(base, **changes)


def theirs(**options: Any) -> Any:
    small = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "in_channels": 3, "out_channels": 6}
    about = {**small, "cross_attention_dim": 32, "sample_size": 8, "caption_channels": WIDTH, **options}
    return randomised(PixArtTransformer2DModel(**about))


def about_of(model: Any) -> dict[str, Any]:
    return {**model.config, "_class_name": "PixArtTransformer2DModel"}


@torch.no_grad()
def their_output(model: Any, x: Tensor) -> Tensor:
    values, exists, _ = text(WIDTH)
    sized = {"resolution": None, "aspect_ratio": None}
    return model(x, values, timestep=INDEX, added_cond_kwargs=sized, encoder_attention_mask=exists.long()).sample


OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3, "out_channels": None, "patch_size": 4, "num_attention_heads": 1, "attention_head_dim": 32},
    {"sample_size": 12, "interpolation_scale": 2, "in_channels": 4, "out_channels": 8},
    {"num_attention_heads": 4, "attention_head_dim": 18, "cross_attention_dim": 72, "interpolation_scale": 4},
    {"sample_size": 128, "patch_size": 16, "use_additional_conditions": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_network_computes_what_diffusers_computes(options: dict[str, Any]) -> None:
    model = theirs(**options)
    config, tensors = from_diffusers(about_of(model), model.state_dict())
    x = draw(config)
    assert relative(ours(config, tensors, x, (INDEX + 1) / 1000, text(WIDTH)), their_output(model, x)) <= 1e-5
    # The mask counts, and padding has no influence on either.
    assert (
        relative(ours(config, tensors, x, (INDEX + 1) / 1000, text(WIDTH, padded=False)), their_output(model, x)) > 1e-3
    )


@pytest.mark.parametrize("size", [(16, 8), (4, 12)])
def test_at_other_sizes_positions_are_stretched_as_in_diffusers(size: tuple[int, int]) -> None:
    model = theirs(interpolation_scale=2)
    config, tensors = from_diffusers(about_of(model), model.state_dict())
    x = draw(config, size)
    assert relative(ours(config, tensors, x, (INDEX + 1) / 1000, text(WIDTH)), their_output(model, x)) <= 1e-5


@pytest.mark.parametrize("position", [SinCos(interpolate=True), SinCos(interpolate=True, extent=(3, 3))])
def test_diffusers_loads_what_we_write_and_we_read_it_back(tmp_path: Path, position: SinCos) -> None:
    config = config_of(position=position)
    tensors = random_weights(config)
    write(config, tensors, tmp_path)
    model, info = PixArtTransformer2DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    x = draw(config)
    assert relative(ours(config, tensors, x, (INDEX + 1) / 1000, text(WIDTH)), their_output(model, x)) <= 1e-5
    back, same = read(tmp_path)
    assert back == config
    assert same.keys() == tensors.keys()
    assert all(torch.equal(same[name], tensors[name]) for name in same)


def test_we_read_what_diffusers_writes_in_one_file_or_in_several(tmp_path: Path) -> None:
    model = theirs()
    config, tensors = from_diffusers(about_of(model), model.state_dict())
    for folder, options in (("one", {}), ("several", {"max_shard_size": "20KB"})):
        model.save_pretrained(tmp_path / folder / "transformer", **options)
        got, same = read(tmp_path / folder)
        assert got == config
        assert all(torch.equal(same[name], tensors[name]) for name in tensors)
    index = tmp_path / "several" / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    assert len(set(listed.values())) > 2
    for wrong in ({"a": "../../one/x"}, {"a": 1}, ["a"]):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(ValueError, match="weight_map: "):
            read(tmp_path / "several")
    next((tmp_path / "several" / "transformer").glob("*-00002-*")).unlink()
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(ValueError, match=r"-00002-.* does not exist"):
        read(tmp_path / "several")


def test_reads_the_older_class_with_its_unset_options_and_unused_weight() -> None:
    model = theirs()
    older = {"double_self_attention": False, "num_vector_embeds": None, "_class_name": "Transformer2DModel"}
    published = {**model.state_dict(), "caption_projection.y_embedding": torch.ones(120, WIDTH)}
    config, tensors = from_diffusers({**about_of(model), **older}, published)
    expected, same = from_diffusers(about_of(model), model.state_dict())
    assert config == expected
    assert tensors.keys() == same.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_additional_conditions": True}, "use_additional_conditions: got True"),
        ({"sample_size": 128}, "use_additional_conditions: got None at size 128, which means True"),
        ({"caption_channels": None}, "caption_channels: got None, expected a positive number"),
        ({"cross_attention_dim": 64}, "cross_attention_dim: got 64, expected the width 32"),
        ({"interpolation_scale": 3}, "interpolation_scale: got 3, expected one that divides 4 patches"),
        ({"out_channels": 5}, "out_channels: got 5, expected 3, or 6"),
        ({"activation_fn": "geglu"}, "activation_fn: got 'geglu', expected 'gelu-approximate'"),
        ({"attention_type": "gated"}, "attention_type: got 'gated'"),
        ({"norm_eps": 1e-5}, "norm_eps: got 1e-05"),
        ({"norm_type": "ada_norm_zero"}, "norm_type: got 'ada_norm_zero'"),
        ({"new_option": 3}, "new_option: got 3, expected none"),
        ({"_class_name": "DiTTransformer2DModel"}, "_class_name: .* has 'DiTTransformer2DModel'"),
        ({"num_layers": 3}, r"missing transformer_blocks\.2\."),
        ({"num_layers": 1}, r"unknown transformer_blocks\.1\."),
        ({"caption_channels": 24}, r"conditioner\.texts\.text\.up\.weight: got"),
    ],
)
def test_refuses_what_is_not_ours_or_not_whole(change: dict[str, Any], message: str) -> None:
    model = theirs()
    with pytest.raises(ValueError, match=message):
        from_diffusers({**about_of(model), **change}, model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modulation": PerBlock()}, "modulation"),
        ({"qk_norm": RMSNorm()}, "qk_norm"),
        ({"position": Rope()}, r"position\.interpolate|position\.type"),
        ({"position": SinCos()}, r"position\.interpolate: got False, expected True"),
        ({"size": (8, 12)}, "size"),
        ({"time": TimeEmbedding(shift=0)}, r"time\.shift"),
        ({"conditions": {"text": Text(WIDTH, entry=Cross())}}, r"conditions\.text\.dropout: got 0\.1, expected 0\.0"),
        ({"conditions": {"text": Text(WIDTH, 7, Cross(Pooled()), 0.0)}}, r"conditions\.text\.entry\.pooled"),
        ({"conditions": {"text": Text(WIDTH, 7, Joint(None), 0.0)}}, r"conditions\.text\.entry\.type"),
        (
            {"conditions": {"text": Text(WIDTH, entry=Cross(), dropout=0.0), "label": Label(3)}},
            r"conditions\.label",
        ),
    ],
)
def test_refuses_to_write_what_diffusers_does_not_compute(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = config_of(**change)
    with pytest.raises(ValueError, match=f"diffusers' PixArt cannot hold .*({message})"):
        write(config, random_weights(config), tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_width_of_a_vector_that_does_not_enter_does_not_matter() -> None:
    config = config_of(conditions={"text": Text(WIDTH, 7, Cross(), dropout=0.0)})
    assert to_diffusers(config, random_weights(config))[0] == to_diffusers(config_of(), random_weights(config_of()))[0]
