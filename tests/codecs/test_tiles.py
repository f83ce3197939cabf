"""Decoding in tiles: what it gives untiled, where the codec sees less than the tiles share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anydit.codecs.tiles import Tiles, _spans, decode
from tests.codecs.tiny import autoencoder


@pytest.mark.parametrize("latents", [17, 24, 25, 40, 41, 63])
@pytest.mark.parametrize(("size", "overlap"), [(16, 8), (16, 0), (16, 5), (12, 6), (1, 0)])
def test_tiles_cover_every_place_once(latents: int, size: int, overlap: int):
    """Weights sum to one at every place, and are 0 within a quarter of the overlap of an edge between tiles."""
    factor = 4
    total = torch.zeros(latents * factor)
    for span in _spans(latents, latents * factor, Tiles(size, overlap)):
        total[span.data] += span.weight
        assert span.latents.stop - span.latents.start == size
        margin = factor * overlap // 4
        if span.latents.start:
            assert not span.weight[:margin].any()
        if span.latents.stop < latents:
            assert not span.weight[len(span.weight) - margin :].any()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_codec_of_bounded_sight_gives_what_it_gives_untiled():
    """To rounding, 1e-5 of the largest value: a TAESD of three levels sees less than 6 latents to each side."""
    network = autoencoder()
    z = torch.randn(1, 4, 72, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = network.decode(z).sample
        tiled = decode(lambda part: network.decode(part).sample, z, (288, 192), Tiles(size=40, overlap=20))
        careless = decode(lambda part: network.decode(part).sample, z, (288, 192), Tiles(size=24, overlap=0))
    limit = 1e-5 * float(whole.abs().max())
    assert float((tiled - whole).abs().max()) <= limit
    assert float((careless - whole).abs().max()) > 100 * limit, "without an overlap, the edges show"


class Upsampled(nn.Module):
    """A convolution of three latents after each is repeated, on any number of axes."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, z: Tensor) -> Tensor:
        for axis in range(2, 2 + self.axes):
            z = z.repeat_interleave(2, axis)
            z = z + 0.5 * z.roll(1, axis) * (torch.arange(z.shape[axis]) > 0).reshape(-1, *(1,) * (z.ndim - 1 - axis))
        return z


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_on_any_number_of_axes(axes: int):
    z = torch.randn(2, 3, *(21, 13, 9)[:axes], generator=torch.Generator().manual_seed(0))
    network = Upsampled(axes)
    size = tuple(2 * s for s in z.shape[2:])
    torch.testing.assert_close(decode(network, z, size, Tiles(8, 4)), network(z))


def test_an_axis_of_another_length_than_a_multiple_stays_whole():
    """As the frames of a video are, of which the first stands for itself."""

    def code(z: Tensor) -> Tensor:
        assert z.shape[2] == 5, "all frames at once"
        return z.repeat_interleave(4, 2)[:, :, :17].repeat_interleave(2, 3)

    z = torch.randn(1, 1, 5, 40)
    torch.testing.assert_close(decode(code, z, (17, 80), Tiles(2, 1)), code(z))


def test_into_a_file(tmp_path: Path):
    """What is larger than memory is mapped from a file."""
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(1, 2, 40))
    z = torch.randn(1, 2, 20)
    network = Upsampled(1)
    decode(network, z, (40,), Tiles(8, 4), torch.from_numpy(mapped))
    mapped.flush()
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), network(z))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((8, 5), "tiles.size: got 8, expected at least twice"),
        ((0, 0), "tiles.size"),
        ((8, -4), "tiles.overlap: got -4"),
    ],
)
def test_bad_tiles_are_refused(options: tuple[int, int], message: str):
    with pytest.raises(ValueError, match=message):
        Tiles(*options)
