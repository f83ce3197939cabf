"""Parity with diffusers' Stable Diffusion 3, and folders that either writes and the other reads."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.interop.sd3 import from_diffusers, read, to_diffusers, write
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import LayerNorm, RMSNorm
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import Learned, Rope, SinCos
from tests.interop.diffusers_text import draw, ours, random_weights, randomised, relative, text

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers' own imports
    from diffusers import SD3Transformer2DModel

T = torch.tensor([0.004, 0.7137, 1.0])
WIDTH, POOLED = 20, 12


def config_of(**changes: Any) -> DiTConfig:
    base = DiTConfig(
        32,
        3,
        2,
        (2, 2),
        channels=3,
        size=(8, 8),
        conditions={"text": Text(WIDTH, POOLED, Joint(), dropout=0.0)},
        position=Learned((6, 6)),
        time=TimeEmbedding(shift=0.0),
    )
    return replace(base, **changes)


def theirs(**options: Any) -> Any:
    small = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "in_channels": 3, "out_channels": 3}
    widths = {"caption_projection_dim": 32, "joint_attention_dim": WIDTH, "pooled_projection_dim": POOLED}
    return randomised(
        SD3Transformer2DModel(**{**small, **widths, "sample_size": 8, "pos_embed_max_size": 6, **options})
    )


def about_of(model: Any) -> dict[str, Any]:
    return {**model.config, "_class_name": "SD3Transformer2DModel"}


@torch.no_grad()
def their_output(model: Any, x: Tensor) -> Tensor:
    values, _, pooled = text(WIDTH, POOLED)
    return model(x, values, pooled, 1000 * T).sample


OPTIONS: list[dict[str, Any]] = [
    {},
    {"qk_norm": "rms_norm"},
    {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    {
        "dual_attention_layers": (0, 1, 2),
        "num_attention_heads": 4,
        "attention_head_dim": 18,
        "caption_projection_dim": 72,
    },
    {"qk_norm": "layer_norm", "num_layers": 1, "patch_size": 4, "pos_embed_max_size": 2},
    {"in_channels": 4, "out_channels": None, "num_layers": 2, "pos_embed_max_size": 9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_network_computes_what_diffusers_computes(options: dict[str, Any]) -> None:
    model = theirs(**options)
    config, tensors = from_diffusers(about_of(model), model.state_dict())
    given = text(WIDTH, POOLED, padded=False)
    for size in {config.size, (8, 4) if options.get("patch_size") != 4 else config.size}:
        x = draw(config, size)
        assert relative(ours(config, tensors, x, T, given), their_output(model, x)) <= 1e-5


@pytest.mark.parametrize("qk_norm", [None, RMSNorm(), LayerNorm()])
@pytest.mark.parametrize("dual", [0, 2])
def test_diffusers_loads_what_we_write_and_we_read_it_back(tmp_path: Path, qk_norm: Any, dual: int) -> None:
    entry = Joint(Pooled(), dual)
    config = config_of(qk_norm=qk_norm, conditions={"text": Text(WIDTH, POOLED, entry, dropout=0.0)})
    tensors = random_weights(config)
    write(config, tensors, tmp_path)
    model, info = SD3Transformer2DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    x, given = draw(config), text(WIDTH, POOLED, padded=False)
    assert relative(ours(config, tensors, x, T, given), their_output(model, x)) <= 1e-5
    back, same = read(tmp_path)
    assert back == config
    assert same.keys() == tensors.keys()
    assert all(torch.equal(same[name], tensors[name]) for name in same)


def test_computed_positions_are_written_out(tmp_path: Path) -> None:
    config = config_of(position=SinCos(interpolate=True, extent=(2, 2)))
    tensors = random_weights(config)
    write(config, tensors, tmp_path)
    model = SD3Transformer2DModel.from_pretrained(tmp_path)
    x, given = draw(config), text(WIDTH, POOLED, padded=False)
    assert relative(ours(config, tensors, x, T, given), their_output(model, x)) <= 1e-5
    assert read(tmp_path)[0].position == Learned((4, 4))


def test_we_read_what_diffusers_writes(tmp_path: Path) -> None:
    model = theirs(qk_norm="rms_norm", dual_attention_layers=(0,))
    config, tensors = from_diffusers(about_of(model), model.state_dict())
    model.save_pretrained(tmp_path / "transformer")
    got, same = read(tmp_path)
    assert got == config
    assert all(torch.equal(same[name], tensors[name]) for name in tensors)
    with torch.device("meta"):
        count = sum(p.numel() for p in DiT(config).parameters())
    left_out = sum(
        v.numel() for n, v in model.state_dict().items() if ".2.attn.add_q" in n or ".2.attn.norm_added_q" in n
    )
    assert left_out > 1000
    assert count == sum(v.numel() for v in model.state_dict().values()) - left_out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption_projection_dim": 64}, "caption_projection_dim: got 64, expected the width 32"),
        ({"out_channels": 6}, "out_channels: got 6, expected those of in_channels 3"),
        ({"dual_attention_layers": [1]}, r"dual_attention_layers: got \[1\], expected the first ones"),
        ({"qk_norm": "rms_norm_across_heads"}, "qk_norm: got 'rms_norm_across_heads', expected one of None, rms_norm"),
        ({"qk_norm": "rms_norm"}, r"missing .*norm_added_k"),
        ({"new_option": 3}, "new_option: got 3, expected none"),
        ({"num_layers": 0}, "num_layers: got 0, expected a positive number"),
        ({"num_layers": 4}, r"missing transformer_blocks\.2\.attn\.to_add_out"),
        ({"pos_embed_max_size": 5}, r"positions: got \(36, 32\) torch.float32, expected \(25, 32\)"),
        ({"pos_embed_max_size": 3}, r"size: got \(4, 4\) patches, expected at most position\.canvas \(3, 3\)"),
        ({"_class_name": "FluxTransformer2DModel"}, "_class_name: .* has 'FluxTransformer2DModel'"),
    ],
)
def test_refuses_what_is_not_ours_or_not_whole(change: dict[str, Any], message: str) -> None:
    model = theirs()
    with pytest.raises(ValueError, match=message):
        from_diffusers({**about_of(model), **change}, model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm": RMSNorm(1e-5)}, "qk_norm"),
        ({"position": Rope()}, r"position\.type: got Rope, expected Learned"),
        ({"position": Learned((6, 7))}, r"position\.canvas"),
        ({"learned_variance": True}, "learned_variance"),
        ({"time": TimeEmbedding()}, r"time\.shift: got -1\.0, expected 0\.0"),
        ({"conditions": {"text": Text(WIDTH, POOLED, Joint())}}, r"conditions\.text\.dropout: got 0\.1, expected 0\.0"),
        ({"conditions": {"text": Text(WIDTH, POOLED, Joint(None), 0.0)}}, r"conditions\.text\.entry\.pooled"),
        ({"conditions": {"text": Text(WIDTH, POOLED, Cross(Pooled()), 0.0)}}, r"conditions\.text\.entry\.type"),
    ],
)
def test_refuses_to_write_what_diffusers_does_not_compute(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = config_of(**change)
    with pytest.raises(ValueError, match=f"diffusers' SD3 cannot hold .*({message})"):
        write(config, random_weights(config), tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_left_out_has_no_influence() -> None:
    config = config_of()
    _, state = to_diffusers(config, random_weights(config))
    queries = "transformer_blocks.2.attn.add_q_proj.weight"
    assert not state[queries].any()
    model = theirs()
    model.load_state_dict(state)
    x = draw(config)
    before = their_output(model, x)
    model.load_state_dict({**state, queries: torch.randn(32, 32)})
    assert torch.equal(their_output(model, x), before)
