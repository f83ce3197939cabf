"""Parity with diffusers' own model and scheduler, and folders that diffusers writes and reads."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.diffusion.paths import DDPM, Cosine, Linear
from anydit.diffusion.predictions import X0, Noise, V, Velocity
from anydit.diffusion.samplers import DDIM
from anydit.diffusion.times import Trailing
from anydit.interop import dit as published
from anydit.interop.diffusers import MAX_PERIOD, from_diffusers, read, read_schedule, to_diffusers, write
from anydit.interop.diffusers_schedulers import Schedule
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import LayerNorm, RMSNorm
from anydit.model.time import TimeEmbedding

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers' own imports
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel


def config_of(**changes: Any) -> DiTConfig:
    base = DiTConfig(
        32,
        2,
        2,
        (2, 2),
        channels=3,
        size=(8, 8),
        conditions={"label": Label(5)},
        time=TimeEmbedding(max_period=MAX_PERIOD),
        learned_variance=True,
    )
    return replace(base, **changes)


def randomised(model: torch.nn.Module) -> None:
    """Every weight random: both models start with zeros that would hide faults."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and "table" not in name else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=g) * scale)


def random_weights(config: DiTConfig) -> dict[str, Tensor]:
    model = DiT(config)
    randomised(model)
    return model.state_dict()


def inputs(config: DiTConfig) -> tuple[Tensor, Tensor, Tensor]:
    assert config.size is not None
    g = torch.Generator().manual_seed(1)
    index = torch.tensor([0, 1, 371, 998, 999])
    label = torch.tensor([0, 1, 2, 3, 5])  # the last is the null
    return torch.randn(5, config.in_channels, *config.size, generator=g), index, label


@torch.no_grad()
def outputs(config: DiTConfig, tensors: dict[str, Tensor], theirs: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    model = DiT(config)
    model.load_state_dict(tensors)
    x, index, label = inputs(config)
    got = model.to(dtype)(x.to(dtype), (index + 1) / 1000, {"label": label})
    return got, theirs.eval().to(dtype)(x.to(dtype), timestep=index, class_labels=label).sample


def relative(got: Tensor, expected: Tensor) -> float:
    assert expected.std() > 0.1
    return float((got - expected).norm() / expected.norm())


SIZES = [
    pytest.param({"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 3}, id="width of S"),
    pytest.param({"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 5, "patch_size": 4}, id="patch 4"),
    pytest.param(
        {"num_attention_heads": 3, "attention_head_dim": 16, "out_channels": 4, "sample_size": 6}, id="no variance"
    ),
    pytest.param(
        {"num_attention_heads": 1, "attention_head_dim": 20, "in_channels": 1, "out_channels": 2}, id="one channel"
    ),
]


@pytest.mark.parametrize("norm_eps", [1e-5, 1e-6])
@pytest.mark.parametrize("options", SIZES)
def test_network_computes_what_diffusers_computes(options: dict[str, int], norm_eps: float) -> None:
    about: dict[str, Any] = {"in_channels": 4, "out_channels": 8, "num_layers": 2, "sample_size": 8, **options}
    theirs = DiTTransformer2DModel(num_embeds_ada_norm=5, norm_eps=norm_eps, **about)
    randomised(theirs)
    state = theirs.state_dict()
    for name in state:
        if ".emb." in name:  # equal in all blocks, as in published weights
            state[name].copy_(state[name.replace(name.split(".")[1], "0", 1)])
    config, tensors = from_diffusers({"_class_name": "DiTTransformer2DModel", **dict(theirs.config)}, state)
    assert relative(*outputs(config, tensors, theirs, torch.float32)) <= 1e-5


def test_the_differences_to_the_published_network_are_the_ones_we_name() -> None:
    """With diffusers' epsilon and frequencies the output is the same; with the published ones it is another."""
    config = config_of(mlp_norm=LayerNorm(1e-2))
    about, state = to_diffusers(config, random_weights(config))
    theirs = DiTTransformer2DModel.from_config(about)
    theirs.load_state_dict(state)
    tensors = random_weights(config)
    exact = outputs(config, tensors, theirs, torch.float64)
    assert relative(*exact) <= 1e-5  # the time's angles are float32 in both, from formulas that round apart
    for other in (replace(config, mlp_norm=None), replace(config, time=TimeEmbedding())):
        assert relative(*outputs(other, tensors, theirs, torch.float64)) > 1e-3


def test_diffusers_loads_what_we_write_and_we_read_it_back(tmp_path: Path) -> None:
    config = config_of()
    tensors = random_weights(config)
    write(config, tensors, tmp_path, path=DDPM(), prediction=Noise())
    theirs, info = DiTTransformer2DModel.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(info.values())
    assert relative(*outputs(config, tensors, theirs, torch.float32)) <= 1e-5
    back, same = read(tmp_path)
    assert back == config
    assert same.keys() == tensors.keys()
    assert all(torch.equal(same[name], tensors[name]) for name in same)


def test_we_read_what_diffusers_writes(tmp_path: Path) -> None:
    config = config_of()
    about, state = to_diffusers(config, random_weights(config))
    theirs = DiTTransformer2DModel.from_config(about)
    theirs.load_state_dict(state)
    theirs.save_pretrained(tmp_path)
    got, tensors = read(tmp_path)
    assert got == config
    assert relative(*outputs(got, tensors, theirs, torch.float32)) <= 1e-5
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    assert all(torch.equal(v, tensors[name]) for name, v in read(tmp_path)[1].items())


def test_reads_the_older_class_with_its_unset_options(tmp_path: Path) -> None:
    config = config_of(mlp_norm=LayerNorm(1e-5))
    write(config, random_weights(config), tmp_path, path=DDPM(), prediction=Noise())
    file = tmp_path / "transformer" / "config.json"
    about = json.loads(file.read_text())
    del about["norm_eps"]
    older = {"cross_attention_dim": None, "double_self_attention": False, "num_vector_embeds": None}
    file.write_text(json.dumps({**about, **older, "_class_name": "Transformer2DModel", "_diffusers_version": "0.12.0"}))
    assert read(tmp_path)[0] == config


def test_pipeline_folder_with_scheduler_and_class_names(tmp_path: Path) -> None:
    config = config_of(conditions={"label": Label(5, names=("cat", "dog", "axolotl, mudpuppy", "emu", "yak"))})
    path, prediction = DDPM(steps=1000, beta_start=2e-4, beta_end=1e-2), V()
    write(config, random_weights(config), tmp_path, path=path, prediction=prediction)
    assert read(tmp_path)[0] == config
    assert read_schedule(tmp_path) == Schedule(path, prediction, DDIM(), Trailing())
    pipeline = DiTPipeline.from_pretrained(tmp_path, vae=None)
    assert pipeline.labels["mudpuppy"] == 2
    assert pipeline.transformer.config.num_embeds_ada_norm == 5
    scheduler = DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(path.alpha(t) ** 2, scheduler.alphas_cumprod.double(), rtol=1e-5, atol=0)
    assert scheduler.config.prediction_type == "v_prediction"


def test_a_vae_folder_goes_along(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    config = config_of()
    write(config, random_weights(config), tmp_path / "out", path=DDPM(), prediction=X0(), vae=tmp_path / "vae")
    assert (tmp_path / "out" / "vae" / "config.json").read_text() == "{}"
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["vae"] == ["diffusers", "AutoencoderKL"]


def test_published_weights_need_consent_to_other_time_frequencies(tmp_path: Path) -> None:
    config = config_of(time=TimeEmbedding())
    tensors = random_weights(config)
    with pytest.raises(ValueError, match=r"time\.max_period: got 10000\.0, .*round_time"):
        write(config, tensors, tmp_path, path=DDPM(), prediction=Noise())
    assert not any(tmp_path.iterdir())
    write(config, tensors, tmp_path, path=DDPM(), prediction=Noise(), round_time=True)
    assert read(tmp_path)[0] == config_of()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": RMSNorm()}, "norm"),
        ({"mlp_norm": RMSNorm()}, "mlp_norm"),
        ({"size": (8, 12)}, "size"),
        ({"conditions": {"label": Label(5, dropout=0)}}, r"conditions\.label\.dropout: got 0\.0, expected 0\.1"),
        ({"conditions": {}}, r"conditions\.label"),
        ({"time": TimeEmbedding(shift=0, max_period=MAX_PERIOD)}, r"time\.shift"),
    ],
)
def test_refuses_to_write_what_diffusers_does_not_compute(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = config_of(**change)
    with pytest.raises(ValueError, match=f"diffusers cannot hold .*{message}"):
        write(config, random_weights(config), tmp_path, path=DDPM(), prediction=Noise())
    assert not any(tmp_path.iterdir())


def test_refuses_other_paths_and_predictions(tmp_path: Path) -> None:
    config = config_of()
    with pytest.raises(ValueError, match="path: got Cosine, expected DDPM or Linear for diffusers"):
        write(config, random_weights(config), tmp_path, path=Cosine(), prediction=V())
    with pytest.raises(ValueError, match="prediction: got V on a linear path, expected Velocity"):
        write(config, random_weights(config), tmp_path, path=Linear(), prediction=V())
    with pytest.raises(ValueError, match="prediction: got Velocity"):
        write(config, random_weights(config), tmp_path, path=DDPM(), prediction=Velocity())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_fn": "geglu"}, "activation_fn: got 'geglu'"),
        ({"_class_name": "UNet2DModel"}, "_class_name"),
        ({"caption_channels": 4096}, "caption_channels: got 4096, expected none"),
        ({"num_layers": None}, "num_layers: got None, expected a positive number"),
        ({"num_layers": 3}, r"missing transformer_blocks\.2\."),
        ({"num_embeds_ada_norm": 7}, "num_embeds_ada_norm: .* says 7, but its weights are of 5"),
        ({"in_channels": 4}, "in_channels: .* says 4"),
        ({"out_channels": None}, "out_channels: .* says 3, but its weights are of 6"),
        ({"sample_size": 9}, "sample_size: got 9, expected a multiple"),
        ({"num_attention_heads": 4}, "pos_embed"),
    ],
)
def test_refuses_a_model_that_is_no_dit_or_not_whole(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = config_of()
    about, state = to_diffusers(config, random_weights(config))
    with pytest.raises(ValueError, match=message):
        from_diffusers({**about, **change}, state, tmp_path)


def test_refuses_blocks_whose_embeddings_differ() -> None:
    about, state = to_diffusers(config_of(), random_weights(config_of()))
    state["transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight"] += 1e-3
    with pytest.raises(ValueError, match=r"transformer_blocks\.1\..*differs from transformer_blocks\.0"):
        from_diffusers(about, state)


def test_refuses_folders_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        read(tmp_path)
    config = config_of()
    write(config, random_weights(config), tmp_path, path=DDPM(), prediction=Noise())
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"id2label": {"0": "cat"}}))
    with pytest.raises(ValueError, match="id2label: got 1 names, expected one for each of 5"):
        read(tmp_path)
    index.write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        read(tmp_path)
    index.unlink()
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="safetensors"):
        read(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.bin, which does not exist"):
        read(tmp_path)


def test_published_to_diffusers_and_back_is_the_published_model(tmp_path: Path) -> None:
    """The way of the published weights: a checkpoint, diffusers' folder, and a checkpoint again."""
    config = config_of(time=TimeEmbedding())
    tensors = random_weights(config)
    published.write(config, tensors, tmp_path / "a.pt")
    state = published.read(tmp_path / "a.pt", heads=2)
    write(*state, tmp_path / "folder", path=DDPM(), prediction=Noise(), round_time=True)
    read_config, read_tensors = read(tmp_path / "folder")
    published.write(replace(read_config, time=TimeEmbedding()), read_tensors, tmp_path / "b.pt")
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert all(torch.equal(first[name], second[name]) for name in first)
