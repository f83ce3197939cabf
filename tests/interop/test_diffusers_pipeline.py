"""A whole folder, exported with an autoencoder, is loaded and run by diffusers' own `DiTPipeline`."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import anydit
from anydit.codecs import Normalize
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.paths import DDPM
from anydit.diffusion.predictions import V
from anydit.diffusion.samplers import DDIM
from anydit.diffusion.times import Even
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.interop.convert import from_diffusers, to_diffusers
from anydit.interop.diffusers import MAX_PERIOD
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.time import TimeEmbedding
from anydit.tensors import Stream
from tests.interop.test_diffusers import randomised

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers' own imports
    from diffusers import (
        AutoencoderKL,
        DiTPipeline,
        DiTTransformer2DModel,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
    )

STEPS, LABELS = 10, [3, 7]
FLOW_SIGMAS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
"""Of a scheduler that `DiTPipeline` can step a flow by, as docs/how-to/convert.md says."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`own`, a model of ours; `theirs`, what it is exported to."""
    root = tmp_path_factory.mktemp("folders")
    torch.manual_seed(0)
    # Of a thousand classes, because `DiTPipeline` takes 1,000 for the null.
    model = DiTConfig(
        32,
        2,
        2,
        (2, 2),
        channels=4,
        size=(8, 8),
        conditions={"label": Label(1000)},
        time=TimeEmbedding(max_period=MAX_PERIOD),
        learned_variance=True,
    )
    pipe = Pipeline(PipelineConfig(model=model, path=DDPM(), prediction=V(), codec=Normalize((0.0,), (1.0,))))
    randomised(pipe.model)
    pipe.save(root / "own")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    autoencoder = AutoencoderKL(block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4, **blocks)
    autoencoder.save_pretrained(root / "autoencoder")
    to_diffusers(root / "own", root / "theirs", vae=root / "autoencoder")
    return root


@torch.no_grad()
def our_images(folders: Path, scale: float, noise: Tensor) -> Tensor:
    """The images of our own network and sampler, decoded by the same autoencoder."""
    pipe = anydit.load(folders / "own", device="cpu")
    denoiser, times = Guidance(scale).wrap(pipe.denoiser()), Even().times(DDPM(), STEPS)
    cond = {"label": torch.tensor(LABELS)}
    *_, last = DDIM().run(denoiser, DDPM(), noise, times, cond, lambda _: torch.zeros_like(noise))
    autoencoder = AutoencoderKL.from_pretrained(folders / "theirs" / "vae")
    images = autoencoder.decode(last.xt / autoencoder.config.scaling_factor).sample
    return (images / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_diffusers_makes_the_images_that_we_make(folders: Path, scale: float) -> None:
    pipeline = DiTPipeline.from_pretrained(folders / "theirs")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(4)
    theirs = pipeline(
        LABELS, guidance_scale=scale, num_inference_steps=STEPS, generator=generator, output_type="np"
    ).images
    ours = our_images(folders, scale, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4)))
    assert ours.std() > 0.05
    torch.testing.assert_close(torch.from_numpy(theirs).permute(0, 3, 1, 2), ours, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' own scheduler
@torch.no_grad()
def test_a_flow_stepped_by_diffusers_ends_where_ours_does(tmp_path: Path) -> None:
    model = DiTConfig(
        32,
        2,
        2,
        (2, 2),
        channels=4,
        size=(8, 8),
        conditions={"label": Label(1000)},
        time=TimeEmbedding(max_period=MAX_PERIOD),
    )
    pipe = Pipeline(PipelineConfig(model=model, codec=Normalize((0.0,), (1.0,))))
    randomised(pipe.model)
    pipe.save(tmp_path / "own")
    to_diffusers(tmp_path / "own", tmp_path / "theirs")
    network = DiTTransformer2DModel.from_pretrained(tmp_path / "theirs" / "transformer")
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "theirs" / "scheduler")
    scheduler.set_timesteps(STEPS)
    from_diffusers(tmp_path / "theirs", tmp_path / "back")
    x = Stream(4, "sample").normal(0, torch.arange(2), (4, 8, 8))
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, timestep=t.expand(2), class_labels=torch.tensor(LABELS)).sample, t, x).prev_sample
    got = anydit.load(tmp_path / "back", "cpu").sample(2, {"label": LABELS}, steps=STEPS, guidance=1.0, seed=4)
    assert (got - x).norm() / x.norm() <= 1e-4
    wrapped = DiTPipeline(network, AutoencoderKL(latent_channels=4), DPMSolverMultistepScheduler(**FLOW_SIGMAS))
    wrapped.set_progress_bar_config(disable=True)
    assert wrapped(LABELS, num_inference_steps=2, output_type="np").images.shape == (2, 8, 8, 3)
