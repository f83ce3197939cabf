"""Digits that move: where they should be, to a fraction of a pixel; and what is told of them."""

from dataclasses import replace
from math import pi, sin

import pytest
import torch
from torch import Tensor

from anydit.data import KNOWN, Digits, First, MovingDigits, Videos
from anydit.data.base import Checkable
from anydit.data.video.clips import Filmed, Moving
from anydit.data.video.digits import DIRECTIONS, NUMBERS, PACES, MovingSamples, moved, said

DATA = MovingDigits(size=(20, 26), seconds=1.5, count=400, held_out_count=200)


def opened(part: str = "train") -> MovingSamples:
    samples = DATA.open(part)  # type: ignore[arg-type]
    assert isinstance(samples, MovingSamples)
    return samples


def centres(x: Tensor) -> Tensor:
    """Of brightness, down and right."""
    x = x[:, 0].double()
    down, right = (torch.arange(n, dtype=torch.float64) for n in x.shape[2:])
    total = x.sum((2, 3))
    return torch.stack([(x.sum(3) * down).sum(2) / total, (x.sum(2) * right).sum(2) / total], dim=2)


def test_a_clip_follows_from_its_number():
    samples, ids = opened(), torch.tensor([5, 399, 0])
    batch = samples.read(ids)
    assert batch.x.shape == (3, 1, 12, 20, 26)
    assert samples.facts.size == DATA.space == (12, 20, 26)
    assert samples.facts.view == Videos(rate=8.0)
    alone = opened().read(torch.tensor([399]))
    assert torch.equal(alone.x[0], batch.x[1])
    assert alone.texts["text"][0] == batch.texts["text"][1]
    assert not torch.equal(opened("held_out").read(ids).x, batch.x)


def test_a_digit_is_where_its_speed_brings_it_and_keeps_its_brightness():
    """Reflected step by step, by hand."""
    samples, ids = opened(), torch.arange(200)
    x = samples.read(ids).x
    mass = x.sum((1, 3, 4))
    assert torch.allclose(mass, mass[:, :1].expand_as(mass), rtol=1e-5)
    found = centres(x)
    shift = found - found[:, :1]
    place, velocity = samples.corners(ids)[:, 0].double(), samples.velocity(ids).double()
    begin, room, fine = place.clone(), torch.tensor([12.0, 18.0]), 64
    for frame in range(12):
        assert torch.allclose(shift[:, frame], place - begin, atol=2e-3), frame
        for _ in range(fine):
            place = place + velocity / 8 / fine
            velocity = torch.where((place < 0) | (place > room), -velocity, velocity)
            place = torch.where(place < 0, -place, torch.where(place > room, 2 * room - place, place))


def test_between_pixels_it_is_interpolated():
    digit = torch.zeros(1, 8, 8)
    digit[0, 3, 4] = 1.0
    canvas = moved(digit, torch.tensor([[[2.25, 5.0], [12.0, 0.5]]]), (20, 20))[0]
    assert canvas[0, 5, 9] == 0.75
    assert canvas[0, 6, 9] == 0.25
    assert canvas[1, 15, 4] == canvas[1, 15, 5] == 0.5
    assert torch.allclose(canvas.sum((1, 2)), torch.ones(2))
    whole = moved(digit, torch.tensor([[[3.0, 7.0]]]), (20, 20))[0, 0]
    assert torch.equal(whole[3:11, 7:15], digit[0])


def test_parts_have_different_digits_at_speeds_within_bounds():
    real = {part: Digits().open(part) for part in ("train", "held_out")}
    for part, other in (("train", "held_out"), ("held_out", "train")):
        samples = opened(part)
        ids = torch.arange(100)
        assert torch.allclose(samples.velocity(ids).norm(dim=1).clamp(3, 12), samples.velocity(ids).norm(dim=1))
        corner = torch.zeros(100, 1, 2)
        images = {name: real[name].read(torch.arange(len(real[name]))).x[:, 0] for name in real}
        digit = samples._digit(ids)  # pyright: ignore[reportPrivateUsage]
        own = images[part][digit]
        assert torch.equal(moved(own, corner, (20, 26))[:, 0, :8, :8], own)
        assert float(torch.cdist(own.flatten(1), images[other].flatten(1)).min()) > 1
        first = samples.read(ids)
        assert torch.allclose(first.x[:, 0, 0].sum((1, 2)), own.sum((1, 2)), rtol=1e-5)
        assert torch.equal(first.tensor("label"), real[part].read(digit).tensor("label"))


def test_texts_say_what_is_seen():
    samples, ids = opened(), torch.arange(300)
    batch = samples.read(ids)
    velocity = batch.tensor("velocity")
    aims = {"right": (1, 1), "left": (1, -1), "down": (0, 1), "up": (0, -1)}
    for text, label, v in zip(batch.texts["text"], batch.tensor("label").tolist(), velocity, strict=True):
        assert NUMBERS[label] in text
        words = text.replace(",", "").split()
        for word, (axis, sign) in aims.items():
            share = float(v[axis] * sign / v.norm())
            assert (word in words) == (share > sin(pi / 8)), text
        assert ("fast" in words) == (float(v.norm()) >= 9)
        assert ("slowly" in words) == (float(v.norm()) < 6)
    assert "an eight" in " ".join(batch.texts["text"])
    assert " a eight" not in " ".join(batch.texts["text"])


def test_words_for_velocities():
    v = torch.tensor([[0.0, 4.0], [4.0, 4.0], [8.0, 0.0], [0.1, -12.0], [-7.0, -7.0], [-4.0, 0.1]])
    direction, pace = said(v)
    assert [DIRECTIONS[i] for i in direction] == ["right", "right and down", "down", "left", "left and up", "up"]
    assert [PACES[i] for i in pace] == [", slowly", ", slowly", "", ", fast", ", fast", ", slowly"]


def test_what_can_be_checked():
    samples, ids = opened("held_out"), torch.arange(8)
    assert isinstance(samples, Checkable)
    assert isinstance(samples, Filmed)
    assert isinstance(samples, Moving)
    batch = samples.read(ids)
    cut = samples.cut(batch.x, ids)
    assert torch.equal(cut[:, 0], batch.x[:, :, 0])
    assert torch.equal(cut[:, 1], batch.x[:, :, -1])
    assert torch.equal(samples.shows(ids), batch.tensor("label")[:, None].expand(-1, 2))
    assert samples.walls == ((3.5, 15.5), (3.5, 21.5))
    assert samples.parts.open("train").facts.size == (20, 26)


def test_the_first_frames_are_told():
    samples = replace(DATA, task=First(4)).open("held_out")
    batch = samples.read(torch.arange(3))
    values, flags = batch.tensor(KNOWN).chunk(2, dim=1)
    assert torch.equal(values[:, :, :4], batch.x[:, :, :4])
    assert flags[:, :, :4].all()
    assert not flags[:, :, 4:].any()
    assert float(values[:, :, 4:].min()) == float(values[:, :, 4:].max()) > 0
    assert samples.facts.fields == {KNOWN: 2}


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"size: got \(8, 20\), expected more than the 8 pixels"):
        MovingDigits(size=(8, 20))
    with pytest.raises(ValueError, match=r"seconds: got 1\.3 s at 8 frames per second"):
        MovingDigits(seconds=1.3)
    with pytest.raises(ValueError, match="count: got 0"):
        MovingDigits(count=0)
