"""Whole PixArts and Stable Diffusion 3s of diffusers: they sample as there, and what goes back its pipelines run."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import anydit
from anydit.codecs import Normalize
from anydit.data import Images
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.multistep import DPMSolverPP
from anydit.diffusion.paths import DDPM, Cosine, Linear
from anydit.diffusion.predictions import Noise, V, Velocity
from anydit.diffusion.samplers import Euler
from anydit.diffusion.times import FlowMatching, Linspace
from anydit.inference.config import PipelineConfig, Sampling, load_config
from anydit.inference.pipeline import Pipeline
from anydit.interop import source
from anydit.interop.convert import from_diffusers, from_pixart, from_sd3, to_diffusers, to_pixart, to_sd3
from anydit.interop.folders import WEIGHTS
from anydit.model.time import TimeEmbedding
from anydit.tensors import Stream, Tokens
from anydit.weights import load_tensors
from tests.interop import test_pixart, test_sd3
from tests.interop.diffusers_text import randomised, text

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers' own imports
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        PixArtSigmaPipeline,
        StableDiffusion3Pipeline,
    )

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of its schedulers
SEED = 5


def autoencoder(**options: Any) -> Any:
    """Eight times smaller, three channels to three."""
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (4,) * 4, "latent_channels": 3, "norm_num_groups": 2}
    return AutoencoderKL(**sizes, **kinds, scaling_factor=0.5, **options)


@pytest.fixture(scope="module")
def pixart_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline as published, less its text encoder; its weights are random and tiny."""
    folder = tmp_path_factory.mktemp("published") / "pixart"
    vae, network = autoencoder(), test_pixart.theirs()
    PixArtSigmaPipeline(None, None, vae, network, DPMSolverMultistepScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sd3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "sd3"
    scheduler, network = FlowMatchEulerDiscreteScheduler(shift=3.0), test_sd3.theirs(qk_norm="rms_norm")
    StableDiffusion3Pipeline(network, scheduler, autoencoder(shift_factor=0.25), *[None] * 6).save_pretrained(folder)
    return folder


def start() -> Tensor:
    return Stream(SEED, "sample").normal(0, torch.arange(3), (3, 8, 8))


def opened(kind: Any, folder: Path) -> Any:
    """A pipeline without its encoders, which Stable Diffusion 3's wants to be told."""
    said = [f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")]
    return kind.from_pretrained(folder, **(dict.fromkeys(said) if kind is StableDiffusion3Pipeline else {}))


def run(pipeline: Any, told: dict[str, Any], **options: Any) -> Any:
    """What diffusers' pipeline makes of the same noise and the same text, without guidance."""
    pipeline.set_progress_bar_config(disable=True)
    said = {"guidance_scale": 1.0, "latents": start(), "output_type": "latent", **options}
    return pipeline(**told, **said).images


def pixart_told(given: Tokens) -> dict[str, Any]:
    mask = {"prompt_attention_mask": given.exists, "use_resolution_binning": False}
    return {"prompt_embeds": given.values, **mask, "negative_prompt": None}


def sd3_told(given: Tokens) -> dict[str, Any]:
    return {"prompt_embeds": given.values, "pooled_prompt_embeds": given.pooled}


def test_a_pixart_samples_as_in_diffusers(pixart_folder: Path, tmp_path: Path) -> None:
    config = from_pixart(pixart_folder, tmp_path / "own")
    assert (config.path, config.prediction, config.codec) == (DDPM(), Noise(), Normalize((0.0,), (2.0,)))
    assert config.sampling == Sampling(DPMSolverPP(), 20, Linspace(), Guidance())
    given = text(test_pixart.WIDTH)
    expected = run(opened(PixArtSigmaPipeline, pixart_folder), pixart_told(given), num_inference_steps=20)
    got = 0.5 * anydit.load(tmp_path / "own", "cpu").sample(3, {"text": given}, seed=SEED)
    assert expected.std() > 0.1
    # Both start from the same noise, theirs with deviation 1 and ours with sigma(t), of 0.99998.
    assert (got - expected).norm() / expected.norm() <= 1e-4
    unmasked = given._replace(exists=torch.ones_like(given.exists))
    other = 0.5 * anydit.load(tmp_path / "own", "cpu").sample(3, {"text": unmasked}, seed=SEED)
    assert (other - expected).norm() / expected.norm() > 1e-3


def test_a_stable_diffusion_3_samples_as_in_diffusers(sd3_folder: Path, tmp_path: Path) -> None:
    config = from_sd3(sd3_folder, tmp_path / "own")
    assert (config.path, config.prediction) == (Linear(), Velocity())
    assert config.sampling == Sampling(Euler(), 28, FlowMatching(shift=3.0), Guidance())
    given = text(test_sd3.WIDTH, test_sd3.POOLED, padded=False)
    expected = run(opened(StableDiffusion3Pipeline, sd3_folder), sd3_told(given), num_inference_steps=28)
    got = 0.5 * (anydit.load(tmp_path / "own", "cpu").sample(3, {"text": given}, seed=SEED) - 0.25)
    assert expected.std() > 0.1
    assert (got - expected).norm() / expected.norm() <= 1e-4


@pytest.mark.parametrize("family", ["pixart", "sd3"])
def test_with_its_autoencoder_samples_are_images(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(f"{family}_folder")
    there, kind, told, given = {
        "pixart": (from_pixart, PixArtSigmaPipeline, pixart_told, text(test_pixart.WIDTH)),
        "sd3": (from_sd3, StableDiffusion3Pipeline, sd3_told, text(20, test_sd3.POOLED, padded=False)),
    }[family]
    vae = folder if family == "sd3" else folder / "vae"  # a pipeline's folder will do
    steps = there(folder, tmp_path / "own", vae=vae).sampling.steps
    pipe = anydit.load(tmp_path / "own", "cpu")
    assert pipe.config.view == Images(low=0, high=255)
    options = {"num_inference_steps": steps, "output_type": "np"}
    expected = 255 * torch.from_numpy(run(opened(kind, folder), told(given), **options)).movedim(-1, 1)
    got = pipe.sample(3, {"text": given}, seed=SEED).clamp(0, 255)
    assert expected.std() > 5
    assert got.shape == (3, 3, 64, 64)
    assert (got - expected).abs().max() < 0.5


@pytest.mark.parametrize("family", ["pixart", "sd3"])
def test_what_goes_back_is_run_by_diffusers(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(f"{family}_folder")
    there, back, kind, told, given = {
        "pixart": (from_pixart, to_pixart, PixArtSigmaPipeline, pixart_told, text(test_pixart.WIDTH)),
        "sd3": (from_sd3, to_sd3, StableDiffusion3Pipeline, sd3_told, text(20, test_sd3.POOLED, padded=False)),
    }[family]
    there(folder, tmp_path / "own")
    back(tmp_path / "own", tmp_path / "again", parts=folder)
    before, after = (load_tensors(f / "transformer" / WEIGHTS) for f in (folder, tmp_path / "again"))
    unread = {name for name in before if ".2.attn.add_q" in name or ".2.attn.norm_added_q" in name}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before.keys() - unread)
    images = run(opened(kind, tmp_path / "again"), told(given), num_inference_steps=4, output_type="np")
    assert images.shape == (3, 64, 64, 3)
    assert images.std() > 0.01
    back(tmp_path / "own", tmp_path / "bare")
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"transformer", "scheduler", "model_index.json"}
    index = json.loads((tmp_path / "bare" / "model_index.json").read_text())
    assert index["vae"] == index["tokenizer"] == [None, None]


def own(folder: Path, model: Any, **changes: Any) -> PipelineConfig:
    """A model of our own in a folder, with random weights."""
    fields = {"model": model, "path": DDPM(), "prediction": V(), "codec": Normalize((0.0,), (1.0,)), **changes}
    config = PipelineConfig(**fields)
    pipe = Pipeline(config)
    randomised(pipe.model)
    pipe.save(folder)
    return config


@pytest.mark.parametrize(
    ("there", "back", "config"),
    [(from_pixart, to_pixart, test_pixart.config_of), (from_sd3, to_sd3, test_sd3.config_of)],
)
@pytest.mark.parametrize("path", [Linear(), DDPM()])
def test_time_is_told_as_the_scheduler_tells_it(there: Any, back: Any, config: Any, path: Any, tmp_path: Path) -> None:
    """Whatever time a network was trained to be told, diffusers' is told its scheduler's."""
    prediction = Velocity() if isinstance(path, Linear) else V()
    own(tmp_path / "own", config(time=TimeEmbedding()), path=path, prediction=prediction)
    back(tmp_path / "own", tmp_path / "theirs")
    got = there(tmp_path / "theirs", tmp_path / "back")
    assert (got.path, got.prediction) == (path, prediction)
    assert got.model.time.shift == (0.0 if isinstance(path, Linear) else -1.0)
    before, after = (anydit.load(tmp_path / name, "cpu").model for name in ("own", "back"))
    x, t = start(), torch.tensor([0.001, 0.456, 1.0])
    given = {"text": text(20, test_sd3.POOLED, padded=False)}
    with torch.no_grad():
        expected, same = before(x, t, given), after(x, t, given)
        mistold = after(x, t - 0.001, given)
    assert (same - expected).norm() / expected.norm() <= 1e-5
    assert (mistold - expected).norm() / expected.norm() > 1e-4


def test_what_does_not_go_is_refused(pixart_folder: Path, sd3_folder: Path, tmp_path: Path) -> None:
    """And nothing is written then."""
    with pytest.raises(ValueError, match=r"_class_name: .* has 'SD3Transformer2DModel', expected 'PixArtT"):
        from_pixart(sd3_folder, tmp_path / "to")
    with pytest.raises(ValueError, match=r"_class_name: .* has 'PixArtTransformer2DModel', expected 'SD3T"):
        from_sd3(pixart_folder, tmp_path / "to")
    with pytest.raises(ValueError, match=r"_class_name: .* has 'PixArtTransformer2DModel', expected 'DiTT"):
        from_diffusers(pixart_folder, tmp_path / "to")
    with pytest.raises(ValueError, match=r"has no scheduler_config\.json"):
        from_pixart(pixart_folder / "transformer", tmp_path / "to")
    own(tmp_path / "own", test_pixart.config_of(), path=Cosine())
    with pytest.raises(ValueError, match="path: got Cosine, expected DDPM or Linear for diffusers"):
        to_pixart(tmp_path / "own", tmp_path / "to")
    from_pixart(pixart_folder, tmp_path / "pixart")
    with pytest.raises(ValueError, match=r"diffusers' SD3 cannot hold .*conditions\.text\.entry\.type"):
        to_sd3(tmp_path / "pixart", tmp_path / "to")
    with pytest.raises(ValueError, match=r"cannot hold .*conditions"):
        to_diffusers(tmp_path / "pixart", tmp_path / "to")
    with pytest.raises(ValueError, match=r"has no model_index\.json"):
        to_pixart(tmp_path / "pixart", tmp_path / "to", parts=tmp_path)
    (tmp_path / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKL"], "tokenizer": [null, null]}')
    with pytest.raises(ValueError, match="vae: expected a folder of that name beside it"):
        to_pixart(tmp_path / "pixart", tmp_path / "to", parts=tmp_path)
    assert not (tmp_path / "to").exists()


def test_a_source_is_read_by_its_class(pixart_folder: Path, sd3_folder: Path, tmp_path: Path) -> None:
    for folder, convert in ((pixart_folder, from_pixart), (sd3_folder, from_sd3)):
        convert(folder, tmp_path / folder.name)
        config, found = load_config(tmp_path / folder.name), source.read(folder)
        assert (found.model, found.path, found.prediction) == (config.model, config.path, config.prediction)
        bare = source.read(folder / "transformer")
        assert (bare.model, bare.path, bare.prediction) == (found.model, None, None)
