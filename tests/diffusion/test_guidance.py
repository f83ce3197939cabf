"""Guidance against its formulas, and what it does not call."""

import pytest
import torch

from anydit.diffusion.guidance import Guidance, Guided, Inpaint
from anydit.diffusion.paths import DDPM
from anydit.diffusion.predictions import Noise
from anydit.tensors import Cond, Denoised, known


class Recorder:
    """x0 is 10 where the label is known, 1 where it is null; remembers how large its batches were."""

    def __init__(self, variance: bool = False) -> None:
        self.batches: list[int] = []
        self.variance = variance

    def denoise(self, xt: torch.Tensor, t: torch.Tensor, cond: Cond) -> Denoised:
        self.batches.append(len(xt))
        present = torch.zeros(len(xt), dtype=torch.bool)
        if "label" in cond:
            flags = known(cond["label"])[1]
            present = torch.ones(len(xt), dtype=torch.bool) if flags is None else flags
        value = torch.where(present, 10.0, 1.0)[:, None, None].expand_as(xt)
        return Denoised(value, value / 20 if self.variance else None)


XT, COND = torch.zeros(3, 4, 2), {"label": torch.tensor([0, 1, 2])}


def at(*t: float) -> torch.Tensor:
    return torch.tensor(t)


def test_classifier_free_in_one_call():
    recorder = Recorder(variance=True)
    answer = Guidance(scale=3.0).wrap(recorder).denoise(XT, at(0.1, 0.5, 0.9), COND)
    assert recorder.batches == [6]
    torch.testing.assert_close(answer.x0, torch.full_like(XT, 1 + 3 * 9.0))
    assert answer.variance is not None and (answer.variance == 0.5).all(), "the conditional variance"


def test_scale_one_is_the_denoiser_itself():
    recorder = Recorder()
    assert Guidance(scale=1.0).wrap(recorder) is recorder


def test_scale_zero_is_the_null():
    assert (Guidance(scale=0.0).wrap(Recorder()).denoise(XT, at(0.1, 0.5, 0.9), COND).x0 == 1).all()


def test_interval_is_per_sample_and_saves_the_call():
    recorder = Recorder()
    guided = Guidance(scale=2.0, interval=(0.3, 0.7)).wrap(recorder)
    x0 = guided.denoise(XT, at(0.1, 0.5, 0.9), COND).x0
    assert x0[:, 0, 0].tolist() == [10.0, 19.0, 10.0] and recorder.batches == [6]
    assert (guided.denoise(XT, at(0.1, 0.2, 0.9), COND).x0 == 10).all() and recorder.batches == [6, 3]


def test_autoguidance():
    class Weak(Recorder):
        def denoise(self, xt, t, cond):
            assert "label" in cond
            self.batches.append(len(xt))
            return Denoised(torch.full_like(xt, 4.0))

    strong, weak = Recorder(), Weak()
    x0 = Guidance(scale=2.0).wrap(strong, weak).denoise(XT, at(0.1, 0.5, 0.9), COND).x0
    assert (x0 == 4 + 2 * 6).all() and strong.batches == weak.batches == [3]


def test_legacy_channels_are_the_published_rule():
    """sample.py guides the noise of the first three channels; here the same on x0, by linearity."""
    generator = torch.Generator().manual_seed(0)
    xt, conditional, unconditional = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    path, t = DDPM(), torch.tensor([0.3, 0.6])

    class Model:
        def denoise(self, xt2, t2, cond):
            noise = torch.cat([conditional, unconditional])
            return Denoised(Noise().x0(path, xt2, noise, t2))

    ours = Guided(Model(), Guidance(scale=4.0, legacy_channels=3)).denoise(xt, t, {"label": torch.tensor([1, 2])}).x0
    half = unconditional + 4.0 * (conditional - unconditional)
    published = torch.cat([half[:, :3], conditional[:, 3:]], dim=1)
    torch.testing.assert_close(ours, Noise().x0(path, xt, published, t), rtol=1e-4, atol=1e-5)


def test_more_legacy_channels_than_channels_are_refused():
    guided = Guidance(scale=2.0, legacy_channels=5).wrap(Recorder())
    with pytest.raises(ValueError, match="legacy_channels: got 5, expected at most the samples' 4"):
        guided.denoise(XT, at(0.1, 0.5, 0.9), COND)


def test_the_interval_is_closed_and_the_whole_asks_nothing_of_the_device():
    guided = Guidance(scale=2.0, interval=(0.25, 0.75)).wrap(Recorder())
    assert guided.denoise(XT, at(0.25, 0.75, 0.76), COND).x0[:, 0, 0].tolist() == [19.0, 19.0, 10.0]

    class Plain:
        def denoise(self, xt, t, cond):
            return Denoised(2 * xt)

    xt, t = XT.to("meta"), at(0.1, 0.5, 0.9).to("meta")  # tensors without values: none can be read
    assert Guidance(scale=2.0).wrap(Plain()).denoise(xt, t, {}).x0.shape == XT.shape
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        Guidance(scale=2.0, interval=(0.25, 0.75)).wrap(Plain()).denoise(xt, t, {})


def test_each_sample_is_guided_as_if_alone():
    class Varied(Recorder):
        def denoise(self, xt, t, cond):
            return Denoised(super().denoise(xt, t, cond).x0 * (1 + t[:, None, None]) + xt.sin())

    generator = torch.Generator().manual_seed(0)
    xt, t = torch.randn(3, 4, 2, generator=generator), at(0.1, 0.5, 0.9)
    guided = Guidance(scale=2.5, interval=(0.3, 0.7)).wrap(Varied())
    whole = guided.denoise(xt, t, COND).x0
    for i in range(3):
        one = guided.denoise(xt[i : i + 1], t[i : i + 1], {"label": torch.tensor([i])}).x0
        torch.testing.assert_close(whole[i : i + 1], one)


def test_a_condition_without_a_null_is_given_to_both_halves():
    class Needs(Recorder):
        def denoise(self, xt, t, cond):
            guide, present = known(cond["guide"])
            assert present is None and guide.shape == (6, 1, 2)
            return super().denoise(xt, t, cond)

    cond = {**COND, "guide": torch.ones(3, 1, 2)}
    x0 = Guidance(scale=3.0).wrap(Needs(), always={"guide"}).denoise(XT, at(0.1, 0.5, 0.9), cond).x0
    torch.testing.assert_close(x0, torch.full_like(XT, 1 + 3 * 9.0))


def test_inpainting_keeps_what_is_known():
    keep = torch.zeros(3, 1, 2, dtype=torch.bool)
    keep[:, :, 0] = True
    x0 = Inpaint(Recorder(), torch.full_like(XT, 7.0), keep).denoise(XT, at(0.1, 0.5, 0.9), COND).x0
    assert (x0[:, :, 0] == 7).all() and (x0[:, :, 1] == 10).all()


@pytest.mark.parametrize(
    "options",
    [
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"interval": (float("nan"), 1.0)},
        {"interval": (0.5, 0.5)},
        {"scale": -1.0},
        {"interval": (0.7, 0.3)},
        {"interval": (0.0, 1.5)},
        {"legacy_channels": 0},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        Guidance(**options)


class Sum:
    """x0 is the sum of the numbers that are known, and 1; remembers how many samples it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def denoise(self, xt: torch.Tensor, t: torch.Tensor, cond: Cond) -> Denoised:
        self.asked += len(xt)
        total = torch.ones(len(xt))
        for condition in cond.values():
            value, present = known(condition)
            assert isinstance(value, torch.Tensor)
            total = total + (value if present is None else torch.where(present, value, torch.zeros_like(value)))
        return Denoised(total[:, None, None].expand_as(xt))


NUMBERS = {name: torch.full((3,), value) for name, value in (("a", 10.0), ("b", 100.0), ("c", 1000.0))}


@pytest.mark.parametrize(
    ("scale", "scales", "expected", "calls"),
    [
        (1.0, {"a": 3.0}, 1 + 30 + 1100, 3),
        (2.0, {"a": 3.0, "c": 0.5}, 1 + 30 + 500 + 200, 4),
        (2.0, {"a": 2.0}, 1 + 2 * 1110, 2),
        (3.0, {"b": 1.0}, 1 + 100 + 3 * 1010, 2),
        (1.0, {"z": 7.0, "b": 0.0}, 1 + 1010, 3),
    ],
)
def test_each_condition_has_its_scale(scale: float, scales: dict[str, float], expected: float, calls: int):
    """As many samples go through the network as there are differences to take, in one call."""
    model = Sum()
    x0 = Guidance(scale=scale, scales=scales).wrap(model).denoise(XT, at(0.1, 0.5, 0.9), NUMBERS).x0
    torch.testing.assert_close(x0, torch.full_like(XT, expected))
    assert model.asked == 3 * calls


def test_a_negative_is_in_place_of_the_null():
    model, instead = Sum(), {"b": torch.full((3,), -5.0)}
    guided = Guidance(scale=2.0, scales={"a": 3.0}).wrap(model, negative=instead)
    x0 = guided.denoise(XT, at(0.1, 0.5, 0.9), {name: NUMBERS[name] for name in "ab"}).x0
    torch.testing.assert_close(x0, torch.full_like(XT, 1 - 5 + 3 * 10 + 2 * 105))
    x0 = guided.denoise(XT, at(0.1, 0.5, 0.9), {"a": NUMBERS["a"]}).x0
    torch.testing.assert_close(x0, torch.full_like(XT, 1 - 5 + 3 * 10 + 2 * 5)), "away from it, with nothing to go to"


def test_scales_act_inside_the_interval_alone():
    guided = Guidance(interval=(0.3, 0.7), scales={"a": 3.0}).wrap(Sum())
    x0 = guided.denoise(XT, at(0.1, 0.5, 0.9), {"a": NUMBERS["a"]}).x0
    assert x0[:, 0, 0].tolist() == [11.0, 31.0, 11.0]


def test_all_scales_at_one_are_no_guidance():
    model = Sum()
    assert Guidance(scales={"a": 1.0}).wrap(model) is model
    with pytest.raises(ValueError, match=r"scales.a: got -1"):
        Guidance(scales={"a": -1.0})
