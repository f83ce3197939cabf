"""Pipelines whose samples are decoded from latents: sizes, parts, tiles, and edits that keep places of data."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from anydit.codecs import Codec, KLAutoencoder, Normalize, Published, Tiles, base
from anydit.data import Images
from anydit.inference.coding import decoded, encoded, kept
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.overrides import overridden
from tests.codecs.tiny import OPTIONS

CPU = torch.device("cpu")
KL = KLAutoencoder(widths=(4, 8), groups=2, blocks=1, latent=3, channels=1, axes=2, units=Normalize.to_unit(0, 255))
TAESD = Published({**OPTIONS["AutoencoderTiny"], "_class_name": "AutoencoderTiny", "in_channels": 3}, low=0, high=1)


def pipeline(codec: KLAutoencoder | Published = KL, channels: int = 3) -> Pipeline:
    torch.manual_seed(0)
    model = DiTConfig(
        width=16, depth=1, heads=2, patch=(2, 2), channels=channels, size=(4, 6), conditions={"label": Label(3)}
    )
    return Pipeline(PipelineConfig(model=model, codec=codec, sampling=Sampling(steps=3), view=Images(0, 255)))


def test_sizes_are_those_of_data():
    pipe = pipeline()
    assert pipe.sample(2, {"label": 1}).shape == (2, 1, 8, 12)
    assert pipe.sample(1, {"label": 1}, size=(16, 8)).shape == (1, 1, 16, 8)
    with pytest.raises(ValueError, match=r"got data of size \(15, 8\), expected multiples of \(2, 2\)"):
        pipe.sample(1, {"label": 1}, size=(15, 8))
    assert not any(p.requires_grad for p in pipe.codec.parameters())


class Counted(Codec):
    """Halves an axis, and tells how many samples it got at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def encode(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x[..., ::2]

    def decode(self, z: Tensor) -> Tensor:
        self.seen.append(len(z))
        return z.repeat_interleave(2, -1)


def test_so_many_samples_at_a_time_as_memory_allows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "PLACES_AT_ONCE", 100)
    x, codec = torch.randn(7, 1, 5, 8), Counted()
    z = encoded(codec, x, CPU)
    assert torch.equal(z, x[..., ::2]) and codec.seen == [2, 2, 2, 1]
    codec.seen.clear()
    assert decoded(codec, z, (5, 8), CPU).shape == (7, 1, 5, 8)
    assert codec.seen == [2, 2, 2, 1], "by the places of data, not of latents"


def test_tiles_from_the_command_line():
    """For an autoencoder of bounded sight samples are the same, to rounding."""
    pipe = pipeline(TAESD, channels=4)
    tiled = overridden(
        pipe.config.sampling, ["--tiles", "Tiles", "--tiles.size", "24", "--tiles.overlap", "12"], "test"
    )
    assert tiled.tiles == Tiles(24, 12)
    size, cond = (192, 128), {"label": 2}
    whole, parts = pipe.sample(2, cond, size=size), pipe.sample(2, cond, size=size, sampling=tiled)
    assert parts.shape == (2, 3, 192, 128)
    # Twelve latents of overlap leave out three to each side; what lies beyond these weighs little in this network.
    assert float((parts - whole).abs().max()) < 0.02 * float(whole.abs().max())
    careless = replace(tiled, tiles=Tiles(24, 0))
    rough = pipe.sample(2, cond, size=size, sampling=careless)
    assert float((parts - whole).abs().max()) < 0.2 * float((rough - whole).abs().max())


def test_edits_keep_places_of_data():
    pipe = pipeline()
    x = 255 * torch.rand(2, 1, 8, 12)
    keep = torch.zeros(2, 1, 8, 12, dtype=torch.bool)
    keep[..., :5] = True
    edited = pipe.edit(x, {"label": 0}, keep=keep)
    assert torch.equal(edited[keep], x[keep]) and not torch.equal(edited[~keep], x[~keep])


def test_a_latent_is_kept_where_all_its_places_are():
    keep = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    keep[..., :3] = True
    assert kept(keep, 1, (4, 6), (2, 3)).tolist() == [[[[True, False, False]] * 2]]
    assert kept(keep, 1, (4, 6), (4, 6)) is keep
    with pytest.raises(ValueError, match=r"keep: got shape \(1, 1, 4, 6\), expected \(1, 1, 8, 12\), as x has"):
        kept(keep, 1, (8, 12), (4, 6))
