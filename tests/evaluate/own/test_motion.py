"""Motion found in videos whose motion is known."""

import pytest
import torch
from torch import Tensor

from anydit.data import MovingDigits
from anydit.data.video.digits import MovingSamples
from anydit.evaluate.own.motion import at_walls, motion, tracks

RATE = 8.0


def real(count: int = 400) -> tuple[Tensor, MovingSamples]:
    samples = MovingDigits(seconds=1.5, size=(20, 20), held_out_count=count).open("held_out")
    assert isinstance(samples, MovingSamples)
    return samples.read(torch.arange(count)).x / 16, samples


def blobs(places: Tensor, sides: tuple[int, int] = (20, 30)) -> Tensor:
    """Soft balls at places `[n t 2]`."""
    down, right = (torch.arange(side, dtype=torch.float32) for side in sides)
    away = (down[:, None] - places[..., 0, None, None]) ** 2 + (right - places[..., 1, None, None]) ** 2
    return (-away / 4).exp()[:, None]


def test_centres_are_found_to_a_part_of_a_pixel():
    places = 6 + 8 * torch.rand(5, 7, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tracks(blobs(places)), places, atol=0.05)
    noisy = blobs(places) + 0.01 * torch.randn(5, 1, 7, 20, 30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tracks(noisy), places, atol=0.1), "what is nearly black does not count"
    assert torch.allclose(tracks(torch.zeros(1, 1, 2, 5, 9)), torch.tensor([2.0, 4.0]))
    three = blobs(places).expand(-1, 3, -1, -1, -1)
    assert torch.allclose(tracks(three), places, atol=0.05)


def test_speed_and_direction_of_real_videos_are_found():
    x, samples = real()
    found, truth = motion(tracks(x), RATE), samples.velocity(torch.arange(len(x)))
    assert (found.speed - truth.norm(dim=1)).abs().mean() < 0.05
    # A turn in the first step hides where the thing came from.
    assert ((found.velocity - truth).norm(dim=1) < 1).float().mean() > 0.9
    assert found.unsteady.mean() < 0.3


def test_turns_of_real_videos_are_at_walls():
    x, samples = real()
    found = motion(tracks(x), RATE)
    start, room = samples.corners(torch.arange(len(x)))[:, 0], x.shape[-1] - 8
    end = start + samples.velocity(torch.arange(len(x))) * (x.shape[2] - 1) / RATE
    turns = ((end / room).floor() - (start / room).floor()).abs().sum(1)
    counted = found.turns.flatten(1).sum(1)
    assert (counted == turns).float().mean() > 0.75
    assert abs(float(counted.float().mean() - turns.mean())) < 0.2
    assert at_walls(found, samples.walls).float().mean() > 0.98
    elsewhere = found._replace(places=found.places - 5 * found.ways)
    assert at_walls(elsewhere, samples.walls).float().mean() < 0.02


def test_a_path_with_one_turn():
    t = torch.arange(9.0)
    down, right = 4 + 1.5 * t, torch.where(t < 5, 3 + 2 * t, 21 - 2 * (t - 4))  # to the right until frame 4 or 5
    found = motion(torch.stack([down, right], 1)[None], RATE)
    assert found.velocity[0].tolist() == pytest.approx([12, 16])
    assert found.direction.tolist() == [1]
    assert found.turns.sum() == 1
    assert found.turns[0].nonzero().tolist() == [[4, 1]] or found.turns[0].nonzero().tolist() == [[5, 1]]
    assert float(found.places[found.turns]) == 19.0 or float(found.places[found.turns]) == 11.0
    assert float(found.unsteady) == pytest.approx(0, abs=1e-5)


def test_what_jumps_is_unsteady_and_what_stands_still_has_no_turns():
    g = torch.Generator().manual_seed(0)
    jumping = motion(4 + 12 * torch.rand(50, 12, 2, generator=g), RATE)
    assert jumping.unsteady.mean() > 10
    still = motion(10 + 0.02 * torch.randn(50, 12, 2, generator=g), RATE)
    assert still.speed.max() < 1
    assert not still.turns.any()


def test_directions_go_round_from_the_right():
    angle = torch.arange(8) * torch.pi / 4
    velocity = torch.stack([angle.sin(), angle.cos()], 1)
    places = 10 + velocity[:, None] * torch.arange(5.0)[:, None]
    assert motion(places, RATE).direction.tolist() == list(range(8))
