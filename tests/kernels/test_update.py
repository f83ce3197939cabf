"""Clipping, AdamW and average in one pass, beside PyTorch's operations one after the other."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anydit.data import Arrays
from anydit.train.ema import EMA
from anydit.train.kernels import Kernels
from anydit.train.loop import train
from anydit.train.optim import AdamW, Muon, switches
from anydit.train.recipe import TrainConfig
from tests.train.test_step import copied, step_of
from tests.train.tiny import tiny_with

pytest.importorskip("triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Both:
    """One network, its optimizer and average, moved by either way."""

    def __init__(self, module: nn.Module, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.trained, self.ema = dict(module.named_parameters()), EMA(module, 0.9)
        self.optimizer = AdamW(lr=1e-2, betas=betas, weight_decay=0.1).build(self.trained)
        self.one_pass = Kernels().one_pass(self.optimizer, self.trained, self.ema.own)

    def given(self, gradients: list[Tensor | None]) -> None:
        for p, gradient in zip(self.trained.values(), gradients, strict=True):
            p.grad = None if gradient is None else gradient.clone()

    def state(self) -> dict[str, Tensor]:
        own = {f"{name}.p": p.detach() for name, p in self.trained.items()}
        own |= {f"{name}.e": e for name, e in self.ema.own.items()}
        moments = {name: self.optimizer.state[p].items() for name, p in self.trained.items()}
        return own | {f"{name}.{key}": v for name, each in moments.items() for key, v in each}


def test_one_pass_does_what_the_passes_do():
    """Tensors aligned and not, of one block and several; one without a gradient at first; a step that is skipped."""
    module = nn.Sequential(nn.Linear(40, 64), nn.Linear(64, 3), nn.Linear(3, 3)).to(DEVICE)
    ours, theirs = Both(module), Both(deepcopy(module))
    g = torch.Generator().manual_seed(0)
    for step in range(4):
        gradients = [torch.randn(p.shape, generator=g).to(DEVICE) for p in module.parameters()]
        gradients[0][0] = float("nan") if step == 2 else 1.0
        given = [*gradients[:-1], None if step == 0 else gradients[-1]]
        applied, divisor = torch.tensor(float(step != 2), device=DEVICE), torch.tensor(1.5, device=DEVICE)
        ours.given(given), theirs.given(given)
        assert ours.one_pass is not None
        with np.errstate(all="ignore"):
            ours.one_pass(divisor, applied, applied * (1 - ours.ema.stays(step)))
        switches(theirs.optimizer, divisor, applied)
        theirs.optimizer.step()
        theirs.ema.update(step, applied)
        got, expected = ours.state(), theirs.state()
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=2e-6, atol=1e-7, msg=f"{step} {name}")


@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.9, 0.0)])
def test_one_pass_without_memory_and_without_gradients(betas: tuple[float, float]):
    """At first no parameter has a gradient."""
    module = nn.Linear(3, 2).to(DEVICE)
    ours, theirs = Both(module, betas), Both(deepcopy(module), betas)
    applied = torch.tensor(1.0, device=DEVICE)
    assert ours.one_pass is not None
    for step in range(3):
        given = [None if step == 0 else torch.randn_like(p) for p in module.parameters()]
        ours.given(given), theirs.given(given)
        with np.errstate(all="ignore"):
            ours.one_pass(applied, applied, applied * (1 - ours.ema.stays(step)))
        theirs.optimizer.step()
        theirs.ema.update(step, applied)
        got, expected = ours.state(), theirs.state()
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=2e-6, atol=1e-7, msg=f"{step} {name}")


def test_a_training_step_in_one_pass_goes_on_from_one_in_several():
    """Its state is that of the other: each takes up what the other left."""
    (plain, batch), (fused, _) = step_of(clip=0.1), step_of(clip=0.1, kernels=Kernels(tokens=False))
    with np.errstate(all="ignore"):
        for step in range(3):
            plain(batch, step), fused(batch, step)
        assert fused.one_pass is not None
        expected, got = copied(plain), copied(fused)
        assert expected.keys() <= got.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6, msg=name)
        fused.load_state(deepcopy(plain.state()), "here")
        plain(batch, 3), fused(batch, 3)
    expected, got = copied(plain), copied(fused)
    assert all(torch.allclose(got[name], value, rtol=1e-4, atol=1e-6) for name, value in expected.items())


def test_without_a_gpu_a_training_is_refused_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    recipe = replace(tiny_with(kernels=Kernels()), data=Arrays(path=tmp_path / "none.npy"))
    with pytest.raises(ValueError, match="kernels: got some on cpu, expected a GPU"):
        train(recipe, tmp_path / "run", "cpu")


def test_muon_is_refused_beside_it():
    with pytest.raises(ValueError, match=r"train.kernels.update: got True beside Muon, expected False"):
        TrainConfig(optimizer=Muon(), kernels=Kernels())
    TrainConfig(optimizer=Muon(), kernels=Kernels(update=False))
