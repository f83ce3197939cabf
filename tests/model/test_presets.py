"""The published sizes, counted on the meta device, where they take no memory."""

from typing import Any

import pytest
import torch

from anydit.model.conditioning import Label
from anydit.model.dit import DiT
from anydit.model.modulation import PerBlock
from anydit.model.norms import GELU, LayerNorm
from anydit.model.presets import SIZES, preset
from anydit.model.tokens import SinCos

PUBLISHED: dict[str, Any] = {
    "channels": 4,
    "size": (32, 32),
    "conditions": {"label": Label(1000)},
    "learned_variance": True,
}


def formula(depth: int, w: int, patch: int) -> int:
    """Parameters of the published network, layer by layer, without its table of positions, which is not learned."""
    block = (3 * w * w + 3 * w) + (w * w + w) + (8 * w * w + 5 * w) + (6 * w * w + 6 * w)
    embed = (4 * patch**2 * w + w) + (256 * w + w) + (w * w + w) + 1001 * w
    final = (2 * w * w + 2 * w) + (w * 8 * patch**2 + 8 * patch**2)
    return depth * block + embed + final


@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize(("name", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_parameters_are_the_published_ones(name: str, millions: int, patch: int) -> None:
    with torch.device("meta"):
        model = DiT(preset(name, patch, **PUBLISHED))
    got = sum(p.numel() for p in model.parameters())
    depth, width, _ = SIZES[name]
    assert got == formula(depth, width, patch)
    if patch == 2:
        assert got / 1e6 == pytest.approx(millions, rel=0.012)
    assert all(p.device.type == "meta" for p in model.parameters())


def test_a_preset_has_the_published_options() -> None:
    config = preset("XL", 2, **PUBLISHED)
    assert (config.depth, config.width, config.heads, config.patch) == (28, 1152, 16, (2, 2))
    assert (config.norm, config.mlp, config.modulation) == (LayerNorm(1e-6), GELU(4.0), PerBlock())
    assert (config.position, config.qk_norm, config.mlp_norm) == (SinCos(10_000.0), None, None)
    assert (config.time.scale, config.time.shift, config.time.frequencies) == (1000, -1, 256)


def test_other_axes_and_patches() -> None:
    assert preset("S", 2, axes=3).patch == (2, 2, 2)
    assert preset("S", (1, 4)).patch == (1, 4)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="preset: got 'M', expected one of S, B, L, XL"):
        preset("M", 2)
    with pytest.raises(ValueError, match="widht"):
        preset("S", 2, widht=3)
