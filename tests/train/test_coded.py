"""Fields that are samples themselves: the codec encodes them wherever it encodes samples."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

import anydit
from anydit.codecs import (
    RAE,
    AutoencoderConfig,
    CodecConfig,
    Isotropic,
    KLAutoencoder,
    Latents,
    LogMel,
    Normalize,
    Published,
    Survey,
    Whiten,
)
from anydit.codecs.base import Grouped
from anydit.config import config
from anydit.data import ArrayView, Data, Digits, Facts, Part, Samples
from anydit.inference.config import Sampling
from anydit.inference.rollout import rollout
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig, coded_fields
from anydit.tensors import Batch
from anydit.train.latents import Cached
from anydit.train.loop import train
from anydit.train.optim import AdamW
from anydit.train.recipe import Recipe, TrainConfig
from anydit.train.resolve import resolved
from tests.train.tiny import silent
from tests.train.tiny_codec import tiny_codec, tiny_latent


@dataclass(frozen=True)
class Sums:
    """Samples of two channels, each the mean of two that are known, far from zero."""

    facts: Facts

    def __len__(self) -> int:
        return 256

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        past = torch.stack([torch.randn(4, 8, generator=torch.Generator().manual_seed(i)) for i in ids.tolist()])
        past = past * 3 + torch.tensor([100.0, 50.0, 100.0, 50.0])[:, None]
        return Batch((past[:, :2] + past[:, 2:]) / 2, {"past": past}, ids)


@config
class Means(Data):
    channels: int = 4

    def open(self, part: Part) -> Samples:
        return Sums(Facts(2, (8,), fields={"past": self.channels}))


def recipe() -> Recipe:
    model = DiTConfig(width=32, depth=1, heads=2, patch=(1,), conditions={"past": Field(coded=True)})
    return Recipe(
        model=model, codec=Normalize(), view=ArrayView(), data=Means(), sampling=Sampling(steps=8),
        train=TrainConfig(steps=200, batch=32, optimizer=AdamW(lr=5e-3), ema_decay=0.97, sample_every=10**6,
                          save_every=10**6, log_every=50),
    )  # fmt: skip


def test_the_network_is_told_latents_and_learns_from_them(tmp_path: Path):
    pipe = train(recipe(), tmp_path / "run", "cpu", silent)
    condition = pipe.config.model.conditions["past"]
    assert isinstance(condition, Field)
    assert (condition.channels, condition.mean, condition.std) == (4, (0.0,) * 4, (1.0,) * 4)
    assert coded_fields(pipe.config.model) == {"past": 2}
    batch = Means().open("held_out").read(torch.arange(64) + 1000)
    seen = list[Tensor]()
    hook = pipe.model.register_forward_pre_hook(lambda _, args: seen.append(args[2]["past"]))
    x = pipe.sample(64, {"past": batch.tensor("past")})
    hook.remove()
    assert torch.allclose(seen[0], Grouped(pipe.codec, 2).encode(batch.tensor("past"))), "encoded as in training"
    assert abs(float(seen[0].mean())) < 0.2 and 0.8 < float(seen[0].std()) < 1.8
    error = (x - batch.x).std() / batch.x.std((0, 2)).mean()
    assert error < 0.5, "what is told decides; without it the error is as large as the data vary"
    again = anydit.load(tmp_path / "run")
    assert torch.allclose(again.sample(64, {"past": batch.tensor("past")}), x, atol=1e-3)
    assert rollout(again, batch.tensor("past")[:2], 3).shape == (2, 3, 2, 8)


def test_one_field_for_all_samples_and_what_is_no_sample_is_refused(tmp_path: Path):
    config = resolved(recipe(), Means().open("train"), silent)
    pipe = anydit.Pipeline(config)
    one = torch.randn(4, 8)
    assert torch.equal(pipe.sample(3, {"past": one}), pipe.sample(3, {"past": one.expand(3, 4, 8)}))
    for bad in (torch.zeros(3, 8), torch.zeros(3, 4, 6), torch.zeros(3, 5, 8)):
        with pytest.raises(ValueError, match=r"cond: past: got shape .* expected \[n, channels, 8\]"):
            pipe.sample(3, {"past": bad})
    with pytest.raises(ValueError, match=r"past\.coded: got True for 3 channels, expected those of whole samples: 2"):
        resolved(replace(recipe(), data=Means(3)), Means(3).open("train"), silent)
    with pytest.raises(ValueError, match="got Cached beside past, which each batch encodes; expected Live"):
        train(replace(recipe(), train=replace(recipe().train, latents=Cached())), tmp_path / "run", "cpu", silent)


def test_a_field_may_have_a_codec_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Measured on what the field holds, and kept with the run."""
    own = replace(recipe(), field_codecs={"past": Isotropic()}, train=replace(recipe().train, steps=2))
    train(own, tmp_path / "run", "cpu", silent)
    pipe = anydit.load(tmp_path / "run")
    past = Means().open("train").read(torch.arange(256)).tensor("past")
    each = past.unflatten(1, (2, 2)).flatten(0, 1)
    expected = Isotropic().measured(Survey(lambda _: [each]))
    assert pipe.config.field_codecs == {"past": expected}
    z = pipe.field_codecs["past"].encode(past)
    torch.testing.assert_close(z, Grouped(expected.build(), 2).encode(past))
    monkeypatch.setattr(Isotropic, "measured", lambda self, _: self if self.scale else pytest.fail("measured again"))
    train(replace(own, train=replace(own.train, steps=3)), tmp_path / "run", "cpu", silent)


def test_a_codec_of_other_latents_is_refused():
    codec = LogMel(mels=2, hop=0.25, window=0.5, rate=8)
    with pytest.raises(ValueError, match=r"field_codecs\.past: got latents of shape \(4, .*, expected .*: \(2, 8\)"):
        resolved(replace(recipe(), field_codecs={"past": codec}), Means().open("train"), silent)


def test_a_codec_that_does_not_fit_is_refused_by_its_own_name():
    told = replace(recipe(), field_codecs={"past": LogMel(mels=2, hop=0.25, window=0.5)})
    with pytest.raises(ValueError, match=r"field_codecs\.past: codec\.rate"):
        resolved(told, Means().open("train"), silent)


def test_a_codec_of_what_is_no_coded_field_and_one_with_weights_are_refused():
    with pytest.raises(ValueError, match="field_codecs: got label, expected one of: past, which are coded fields"):
        replace(recipe(), field_codecs={"label": Normalize()})
    for codec in (Latents(Path("codec")), KLAutoencoder(), RAE()):
        with pytest.raises(
            ValueError, match=r"field_codecs\.past: got \w+, which has weights, expected a codec without"
        ):
            replace(recipe(), field_codecs={"past": codec})


def test_a_codec_has_weights_where_it_says_so():
    """Which of all that there are; a new one has to say it."""
    kinds = [*CodecConfig.__subclasses__(), *AutoencoderConfig.__subclasses__()]
    ours = {kind.__name__ for kind in kinds if kind.__module__.startswith("anydit.")}
    assert ours == {"AutoencoderConfig", "Isotropic", "KLAutoencoder", "Latents", "LogMel", "Normalize", "Published",
                    "RAE", "Whiten"}  # fmt: skip
    for codec in (Normalize((0.0,), (1.0,)), Isotropic(scale=1.0), Whiten(0.5, (0.0,), ((1.0,),))):
        assert not codec.has_weights and not codec.build().state_dict()
    mel = LogMel(mels=2, rate=8000, channels=1, shift=(0.0, 0.0), scale=(1.0, 1.0))
    assert not mel.has_weights and not mel.build().state_dict()
    assert Published.has_weights and Latents.has_weights and RAE.has_weights and KLAutoencoder.has_weights


def test_a_field_enters_beside_latents_of_another_size(tmp_path: Path):
    """What was refused: an image told in pixels enters a model in the latents of an autoencoder, in training too."""
    train(tiny_codec(), tmp_path / "codec", "cpu", silent)
    latent = tiny_latent(tmp_path / "codec")
    conditions = {"near": Field(coded=True)}
    data = Near()
    pipe = train(
        replace(latent, model=replace(latent.model, conditions=conditions), data=data), tmp_path / "run", "cpu", silent
    )
    near: Float[Tensor, "2 1 8 8"] = data.open("held_out").read(torch.arange(2)).tensor("near")
    assert pipe.config.model.in_channels == 3 and coded_fields(pipe.config.model) == {"near": 1}
    assert pipe.sample(2, {"near": near}).shape == (2, 1, 8, 8)


@config
class Near(Digits):
    """Each digit told itself."""

    def open(self, part: Part) -> Samples:
        return Told(super().open(part))


@dataclass(frozen=True)
class Told:
    samples: Samples

    @property
    def facts(self) -> Facts:
        return replace(self.samples.facts, fields={"near": 1})

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        batch = self.samples.read(ids)
        return replace(batch, cond={**batch.cond, "near": batch.x})
