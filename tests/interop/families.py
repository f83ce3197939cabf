"""A row for each published family: its own output against anydit's, on tiny random weights in its format.

`benchmarks/parity.py` prints the table that `test_families.py` checks; a new family needs a row here and nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anydit.interop import diffusers, dit, lightningdit, pixart, sd3, sit
from anydit.model.dit import DiT, DiTConfig
from tests.interop.diffusers_text import draw, ours, text
from tests.interop.references import lightning_forward, published_forward, random_lightning_state, random_state

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Family:
    """What the format is called, what stands for the original, and how both outputs come about.

    `outputs`: anydit's and the original's, of what was read from the format. `again`: the same for what was written to
    the format again, by the original; None where anydit does not write it.
    """

    form: str
    reference: str
    outputs: Callable[[], Pair]
    again: Callable[[], Pair] | None = None


def relative(pair: Pair) -> float:
    """How far the outputs are apart, as a share of the original's."""
    got, expected = pair
    assert expected.std() > 0.1, "an output without size proves nothing"
    return float((got - expected).norm() / expected.norm())


@torch.no_grad()
def run(config: DiTConfig, tensors: Mapping[str, Tensor], x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """Anydit's network."""
    model = DiT(config)
    model.load_state_dict(dict(tensors))
    return model(x, t, {"label": label})


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


INDEX = torch.tensor([0, 1, 371, 998, 999])
TIMES = torch.tensor([0.0, 0.25, 0.5, 0.9375, 1.0])


def _dit(write: bool) -> Pair:
    state, label = random_state(384, 2, 2, 4, 4, 11, 8), torch.tensor([0, 1, 2, 9, 10])
    config, tensors = dit.from_published(state)
    state, x = dit.to_published(config, tensors) if write else state, drawn(5, 4, 8, 8)
    return run(config, tensors, x, (INDEX + 1) / 1000, label), published_forward(state, x, INDEX, label, 6)


def _sit(write: bool) -> Pair:
    state, label = random_state(384, 2, 2, 4, 4, 11, 8), torch.tensor([0, 1, 2, 9, 10])
    config, tensors = sit.from_sit(state)
    state, x = sit.to_sit(config, tensors) if write else state, drawn(5, 4, 8, 8)
    theirs = published_forward(state, x, TIMES, label, 6)[:, :4]
    return run(config, tensors, x, 1 - TIMES, label), -theirs


def _lightningdit(write: bool) -> Pair:
    state, label = random_lightning_state(), torch.tensor([0, 1, 2, 5, 6])
    config, tensors = lightningdit.from_lightningdit(state)
    state, x = lightningdit.to_lightningdit(config, tensors) if write else state, drawn(5, 5, 3, 3)
    return run(config, tensors, x, 1 - TIMES, label), -lightning_forward(state, x, TIMES, label, 12)


def _diffusers(write: bool) -> Pair:
    from tests.interop.test_diffusers import DiTTransformer2DModel, config_of, outputs, random_weights

    about, state = diffusers.to_diffusers(config_of(), random_weights(config_of()))
    config, tensors = diffusers.from_diffusers(about, state)
    if write:
        about, state = diffusers.to_diffusers(config, tensors)
    theirs = DiTTransformer2DModel.from_config(about)
    theirs.load_state_dict(state)
    return outputs(config, dict(tensors), theirs, torch.float32)


def _pixart(write: bool) -> Pair:
    from tests.interop import test_pixart as there

    theirs = there.theirs(interpolation_scale=2)
    config, tensors = pixart.from_diffusers(there.about_of(theirs), theirs.state_dict())
    if write:
        about, state = pixart.to_diffusers(config, tensors)
        theirs = there.PixArtTransformer2DModel.from_config(about)
        theirs.load_state_dict(state)
    x = draw(config)
    return ours(config, tensors, x, (there.INDEX + 1) / 1000, text(there.WIDTH)), there.their_output(theirs, x)


def _sd3(write: bool) -> Pair:
    from tests.interop import test_sd3 as there

    theirs = there.theirs(qk_norm="rms_norm", dual_attention_layers=(0,))
    config, tensors = sd3.from_diffusers(there.about_of(theirs), theirs.state_dict())
    if write:
        about, state = sd3.to_diffusers(config, tensors)
        theirs = there.SD3Transformer2DModel.from_config(about)
        theirs.load_state_dict(state)
    x, given = draw(config), text(there.WIDTH, there.POOLED, padded=False)
    return ours(config, tensors, x, there.T, given), there.their_output(theirs, x)


FAMILIES = {
    "DiT": Family("facebookresearch/DiT, .pt", "its equations", lambda: _dit(False), lambda: _dit(True)),
    "SiT": Family("willisma/SiT, .pt", "its equations", lambda: _sit(False), lambda: _sit(True)),
    "LightningDiT": Family(
        "hustvl/LightningDiT, .pt", "its equations", lambda: _lightningdit(False), lambda: _lightningdit(True)
    ),
    "DiT in diffusers": Family(
        "DiTTransformer2DModel, folder", "diffusers", lambda: _diffusers(False), lambda: _diffusers(True)
    ),
    "PixArt in diffusers": Family(
        "PixArtTransformer2DModel, folder", "diffusers", lambda: _pixart(False), lambda: _pixart(True)
    ),
    "Stable Diffusion 3.5 in diffusers": Family(
        "SD3Transformer2DModel, folder", "diffusers", lambda: _sd3(False), lambda: _sd3(True)
    ),
}
