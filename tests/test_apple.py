"""Apple's GPUs have no doubles. None is at hand: tensors that only claim to be on one show what would be made there."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anydit import tensors
from anydit.diffusion.losses import VariationalBound, bound
from anydit.diffusion.paths import DDPM, Cosine, Linear, LinearBeta, Path, _ddpm_log_alpha
from anydit.diffusion.posterior import posterior
from anydit.diffusion.predictions import X0, Noise, Prediction, V, Velocity
from anydit.diffusion.times import LogitNormal
from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiT, DiTConfig
from anydit.model.tokens import Rope, SinCos
from anydit.tensors import Stream, doubles
from anydit.train import loop
from tests.train.tiny import tiny

MPS, GPU = torch.device("mps", 0), torch.device("cuda", 0)
"""PyTorch can pretend more of NVIDIA's GPUs, which so have to play the part of Apple's."""


class NoDoubles(TorchDispatchMode):
    """Refuses what Apple's GPUs would refuse."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.device.type in {"mps", "cuda"} and leaf.dtype == torch.float64:
                raise TypeError(f"{func} makes doubles on an Apple GPU")
        return out


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors that are not there, on a GPU that is taken for one of Apple's."""
    exact = tensors._exact
    monkeypatch.setattr(tensors, "_exact", lambda device: exact(MPS if device == GPU else device))
    _ddpm_log_alpha.cache_clear()
    with FakeTensorMode(), NoDoubles():
        yield
    _ddpm_log_alpha.cache_clear()


def at(*shape: int, device: torch.device = GPU) -> Tensor:
    return torch.empty(shape, device=device)


@pytest.mark.parametrize("device", [MPS, GPU], ids=str)
def test_doubles_would_be_noticed(apple: None, device: torch.device):
    with pytest.raises(TypeError, match="doubles on an Apple GPU"):
        at(3, device=device).double()
    made = doubles(at(3, device=device))
    assert (made.device.type, made.dtype) == ("cpu", torch.float64)
    assert made.type_as(at(3, device=device)).device == device


def test_random_numbers_come_to_where_their_positions_are(apple: None):
    stream, positions = Stream(0, "noise"), torch.arange(3, device=GPU)
    for made in (
        stream.normal(1, positions, (2, 5)),
        stream.uniform(1, positions),
        stream.integers(1, positions, 9),
        LogitNormal().at(stream.uniform(1, positions)),
    ):
        assert made.device == GPU


@pytest.mark.parametrize("path", [Linear(), Cosine(), LinearBeta(), DDPM()], ids=str)
@pytest.mark.parametrize("prediction", [X0(), Noise(), V(), Velocity()], ids=str)
def test_a_network_is_read_and_scored(apple: None, path: Path, prediction: Prediction):
    x, t = at(3, 1, 4, 4), at(3)
    xt = path.noised(x, x, t)
    made = (xt, prediction.x0(path, xt, x, t), prediction.target(path, x, x, t), prediction.sensitivity(path, t))
    assert {tensor.device for tensor in made} == {GPU}
    assert posterior(path, t, t).lower.device.type == "cpu"
    assert bound(VariationalBound(), path, x, xt, x, x, t).device == GPU


@pytest.mark.parametrize("position", [SinCos(), Rope()], ids=str)
def test_the_network(request: pytest.FixtureRequest, position: SinCos | Rope):
    conditions = {
        "label": Label(3),
        "numbers": Numbers(("a",), (0.1,), (2.0,)),
        "field": Field(1, (0.0,), (1.0,), dropout=0.1),
    }
    config = DiTConfig(8, 1, 1, (2, 2), channels=1, size=(4, 4), conditions=conditions, position=position)
    model = DiT(config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    request.getfixturevalue("apple")
    weights = {name: at(*shape) for name, shape in shapes.items()}
    cond: dict[str, Any] = {"label": at(3).long(), "numbers": at(3, 1), "field": at(3, 1, 4, 4)}
    assert functional_call(model, weights, (at(3, 1, 4, 4), at(3), cond)).device == GPU


def test_training_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    find: Callable[[Any], torch.device] = lambda name: MPS  # noqa: E731
    monkeypatch.setattr(loop, "find_device", find)
    with pytest.raises(ValueError, match="device: got mps, expected cpu or cuda: PyTorch's fused AdamW"):
        loop.train(tiny(), tmp_path / "run", "mps")
    assert not (tmp_path / "run").exists()
