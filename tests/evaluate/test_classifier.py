"""The classifier trained on the spot: it learns, it is kept, and it takes data of any shape."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anydit.config import config
from anydit.data import ArraySamples, Data, Digits, Facts, Part, Samples
from anydit.evaluate import classifier
from anydit.evaluate.classifier import DIM, Network, augmented, trained
from anydit.evaluate.features import Features, in_parts

CPU = torch.device("cpu")


@config
class Stripes(Data):
    """Samples of any shape, in classes that differ in what is added to them."""

    shape: tuple[int, ...] = (2, 6, 10)
    classes: int = 3
    seed: int = 0

    def open(self, part: Part) -> Samples:
        random = torch.Generator().manual_seed(self.seed)
        label = torch.arange(120) % self.classes
        x = 100 + 5 * torch.randn(120, *self.shape, generator=random)
        x[..., : self.shape[-1] // 2] += label.reshape(-1, *[1] * len(self.shape)) * 20
        facts = Facts(self.shape[0], self.shape[1:], {"label": tuple("abcdefg"[: self.classes])})
        return ArraySamples(x.numpy(), facts, {"label": label})


def made(data: Data) -> classifier.Classifier:
    return trained(data, data.open("train"), "label", CPU)


def test_tells_digits_apart():
    held = Digits().open("held_out")
    real = held.read(torch.arange(len(held)))
    judge = made(Digits())
    assert isinstance(judge, Features)
    assert float((judge.predict(real.x) == real.cond["label"]).float().mean()) >= 0.97
    assert in_parts(judge, real.x).shape == (len(held), DIM)
    noise = torch.rand(300, 1, 8, 8) * 16
    assert float((judge.predict(noise) == torch.arange(300) % 10).float().mean()) < 0.2


def test_features_are_what_the_classes_come_from(quick: Path):
    judge = made(Stripes())
    x = Stripes().open("train").read(torch.arange(9)).x
    logits = judge.network.head(torch.relu(judge(x)))
    assert logits.argmax(1).equal(judge.predict(x))
    torch.testing.assert_close(judge(x)[3:5], judge(x[3:5]))


def test_kept_and_read_again(quick: Path, monkeypatch: pytest.MonkeyPatch):
    x = Stripes().open("train").read(torch.arange(20)).x
    first = made(Stripes())
    assert len(list(quick.rglob("*.safetensors"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "train", None)
        assert made(Stripes())(x).equal(first(x))
        with pytest.raises(TypeError):
            made(Stripes(seed=1))
    made(Stripes(seed=1))
    assert len(list(quick.rglob("*.safetensors"))) == 2


def test_other_content_under_the_same_config_is_noticed(quick: Path):
    samples = Stripes().open("train")
    trained(Stripes(), samples, "label", CPU)
    assert isinstance(samples, ArraySamples)
    trained(Stripes(), replace(samples, x=samples.x + 1), "label", CPU)
    assert len(list(quick.rglob("*.safetensors"))) == 2


def test_training_twice_gives_the_same_bits_and_leaves_random_numbers_alone(quick: Path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    made(Stripes())
    assert torch.rand(4).equal(expected)
    (path,) = quick.rglob("*.safetensors")
    bits = path.read_bytes()
    path.unlink()
    torch.manual_seed(99)
    made(Stripes())
    assert path.read_bytes() == bits


@pytest.mark.parametrize("shape", [(5, 6, 10), (1, 40), (2, 5, 9, 4), (3, 70, 8), (1, 1, 12)])
def test_any_shape(shape: tuple[int, ...], quick: Path):
    data = Stripes(shape=shape)
    real = data.open("train").read(torch.arange(120))
    judge = made(data)
    assert judge.classes == ("a", "b", "c")
    assert float((judge.predict(real.x) == real.cond["label"]).float().mean()) > 0.9
    assert bool(in_parts(judge, real.x).isfinite().all())


def test_constant_channels(quick: Path):
    samples = Stripes().open("train")
    assert isinstance(samples, ArraySamples)
    x = samples.x.copy()
    x[:, 1] = 7
    judge = trained(Stripes(), replace(samples, x=x), "label", CPU)
    assert bool(judge(torch.from_numpy(x)).isfinite().all())


def test_four_axes_are_refused():
    with pytest.raises(ValueError, match="got samples with 4 axes, expected 1 to 3"):
        Network(1, (2, 3, 4, 5), 3)


def test_standardised_by_training_data(quick: Path):
    network = made(Stripes()).network
    x = Stripes().open("train").read(torch.arange(120)).x.double()
    torch.testing.assert_close(network.mean.flatten().double(), x.mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(network.std.flatten().double(), x.std((0, 2, 3), correction=0), rtol=1e-4, atol=0)


def test_augmentation_is_light():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(50, 1, 8, 8)
    random = torch.Generator().manual_seed(0)
    seen = {int(augmented(x, torch.zeros(1), random)[0, 0, 4, 4]) for _ in range(200)}
    assert seen == {36 + 8 * i + j for i in (-1, 0, 1) for j in (-1, 0, 1)}
    noise = augmented(torch.zeros(200, 1, 8, 8), torch.tensor(10.0), random)
    assert 0.3 < float(noise.std()) < 1
    assert float(noise[:100].std()) != float(noise[100:].std())
