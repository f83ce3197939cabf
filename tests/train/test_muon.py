"""Muon: what it makes of a matrix, which matrices those are, and that it stops, saves and goes on as AdamW does."""

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch
from torch import nn

from anydit.inference.compile import emulates_bf16
from anydit.model.conditioning import Field, Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import RMSNorm, SwiGLU
from anydit.model.text import Cross, Joint, Text
from anydit.train.loop import train
from anydit.train.lora import LoRA
from anydit.train.muon import orthogonal, orthogonal_each
from anydit.train.optim import AdamW, Muon, switches
from tests.train.test_step import copied, step_of
from tests.train.tiny import losses, silent, state_hash, tiny_with

CPU = torch.device("cpu")
MUON = Muon(lr=1e-2)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_all_directions_become_equally_strong(shape: tuple[int, int, int]):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    made = orthogonal(x)
    values = torch.linalg.svdvals(made.float())
    assert float(values.min()) > 0.6 and float(values.max()) < 1.25
    assert float(s.max() / s.min()) > 2, "the control: they were not"
    # The directions are those of the matrix itself: U'(made)V is diagonal, but for rounding, in bfloat16.
    turned = u.mT @ made @ v.mT
    off = turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))
    assert float(off.square().mean().sqrt()) < 0.02
    assert made.dtype == x.dtype and not orthogonal(torch.zeros(shape)).any()


def test_matrices_of_several_shapes_come_back_in_their_order():
    matrices = [torch.randn(shape) for shape in ((4, 6), (6, 4), (4, 6), (5, 5))]
    made = orthogonal_each(matrices, 5)
    for one, x in zip(made, matrices, strict=True):
        torch.testing.assert_close(one, orthogonal(x[None])[0])


def layers(width: int = 16) -> dict[str, nn.Parameter]:
    """Parameters called as those of a block."""
    made = {"attention.qkv": (3 * width, width), "mlp.up": (4 * width, width), "mlp.down": (width, 4 * width)}
    names = {f"blocks.0.{name}.weight": shape for name, shape in made.items()}
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in names.items()} | {
        "embed.weight": nn.Parameter(torch.randn(width, 4)),
        "blocks.0.mlp.up.bias": nn.Parameter(torch.randn(4 * width)),
    }


def moved(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], gradients: list[dict]) -> None:
    for given in gradients:
        for name, p in parameters.items():
            p.grad = given[name].clone()
        optimizer.step()


def test_gradients_are_divided_for_all_of_its_parameters():
    """As clipping asks for; a power of two, so that nothing is rounded."""
    one = layers()
    other = {name: nn.Parameter(p.detach().clone()) for name, p in one.items()}
    gradients = [{name: torch.randn_like(p) for name, p in one.items()} for _ in range(2)]
    optimizer = MUON.build(one)
    switches(optimizer, torch.tensor(4.0), torch.tensor(1.0))
    moved(optimizer, one, gradients)
    moved(MUON.build(other), other, [{name: v / 4 for name, v in given.items()} for given in gradients])
    assert all(torch.equal(p, other[name]) for name, p in one.items())


def test_gradients_are_divided_where_they_lie():
    """A copy of them would be as large as the network."""
    parameters = layers()
    gradients = {name: torch.randn_like(p) for name, p in parameters.items()}
    for name, p in parameters.items():
        p.grad = gradients[name].clone()
    matrices = {n: p.grad for n, p in parameters.items() if p.grad is not None and p.ndim == 2 and "blocks" in n}
    optimizer = MUON.build(parameters)
    switches(optimizer, torch.tensor(4.0), torch.tensor(1.0))
    optimizer.step()
    assert matrices and all(torch.equal(given, gradients[name] / 4) for name, given in matrices.items())


def test_it_moves_as_pytorchs_muon_and_adamw_do():
    """PyTorch's rounds to bfloat16, which is what the two differ by; queries, keys and values are three matrices."""
    ours = layers()
    theirs = {name: nn.Parameter(p.detach().clone()) for name, p in ours.items()}
    begun = {name: p.detach().clone() for name, p in ours.items()}
    gradients = [{name: torch.randn_like(p) for name, p in ours.items()} for _ in range(4)]
    moved(Muon(lr=0.02, weight_decay=0.1).build(ours), ours, gradients)

    hidden = [name for name, p in theirs.items() if name.startswith("blocks.") and p.ndim == 2]
    single = {name: nn.Parameter(part.clone()) for name, part in cut({n: begun[n] for n in hidden}).items()}
    optimizer = torch.optim.Muon(single.values(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    moved(optimizer, single, [cut({n: given[n] for n in hidden}) for given in gradients])
    rest = {name: p for name, p in theirs.items() if name not in hidden}
    moved(AdamW(lr=0.02, weight_decay=0.1).build(rest), rest, gradients)
    for name, expected in single.items():
        made = cut({n: ours[n].detach() for n in hidden})[name]
        off = (made - expected).norm() / (expected - cut({n: begun[n] for n in hidden})[name]).norm()
        assert off.item() < 0.03, name
    for name, p in rest.items():
        assert torch.equal(ours[name], p), name


def cut(matrices: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each matrix by itself, queries, keys and values too."""
    parts = {name: matrix.chunk(3 if "qkv" in name else 1) for name, matrix in matrices.items()}
    return {f"{name}.{i}": part for name, some in parts.items() for i, part in enumerate(some)}


def test_moves_are_as_large_as_adamws():
    parameters = layers()
    gradients = [{name: torch.randn_like(p) for name, p in parameters.items()}]
    before = {name: p.detach().clone() for name, p in parameters.items()}
    moved(Muon(lr=0.01).build(parameters), parameters, gradients)
    for name, p in parameters.items():
        if p.ndim == 2 and name.startswith("blocks."):
            assert (p - before[name]).square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)


MODELS = {
    "plain": {},
    "gated": {"mlp": SwiGLU(), "qk_norm": RMSNorm()},
    "cross": {"conditions": {"text": Text(5, 4, Cross())}},
    "joint": {"conditions": {"text": Text(5, 4, Joint(dual=1))}},
    "field": {"conditions": {"label": Label(3), "low": Field(1, (0.0,), (1.0,))}},
}


@pytest.mark.parametrize("kind", MODELS)
def test_it_moves_the_products_of_blocks_and_nothing_else(kind: str):
    model = DiT(DiTConfig(width=16, depth=2, heads=2, patch=(4, 4), channels=1, size=(8, 8), **MODELS[kind]))
    optimizer = MUON.build(dict(model.named_parameters()))
    names = {p: name for name, p in model.named_parameters()}
    parts = {names[p]: n for g in optimizer.param_groups for p, n in zip(g["params"], g.get("parts", ()), strict=False)}
    inside = {f"{name}.weight" for name, m in model.blocks.named_modules(prefix="blocks") if isinstance(m, nn.Linear)}
    assert parts.keys() == inside
    for name, n in parts.items():
        expected = 3 if "qkv" in name else 2 if "kv" in name or (kind == "gated" and "up" in name) else 1
        assert n == expected, name
    assert {p for g in optimizer.param_groups for p in g["params"]} == set(model.parameters()), "each has its group"


@pytest.mark.parametrize("value", [nan, float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(value: float):
    """T13."""
    step, batch = step_of(optimizer=MUON)
    for earlier in range(3):  # before the third nothing reaches the blocks, whose gates are zero at first
        step(batch, earlier)
    before = copied(step)
    assert any(key.endswith("qkv.weight:momentum") for key in before)
    outcome = step(replace(batch, x=batch.x * value), 3)
    assert float(outcome.applied) == 0
    after = copied(step)
    assert before.keys() == after.keys() and all(torch.equal(v, before[k]) for k, v in after.items())
    assert float(step(batch, 3).applied) == 1
    changed = [k for k, v in copied(step).items() if not torch.equal(v, before[k])]
    assert any("attention.qkv.weight:momentum" in k for k in changed), "the control"


def test_a_run_goes_on_bit_by_bit(tmp_path: Path):
    for steps in (4, 12):
        train(tiny_with(optimizer=MUON, steps=steps), tmp_path / "stopped", "cpu", silent)
    train(tiny_with(optimizer=MUON), tmp_path / "whole", "cpu", silent)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert state_hash(tmp_path / "stopped") == state_hash(tmp_path / "whole")
    train(tiny_with(optimizer=Muon(lr=1e-2, momentum=0.9)), tmp_path / "other", "cpu", silent)
    assert state_hash(tmp_path / "other") != state_hash(tmp_path / "whole"), "the control"


def test_it_is_refused_where_it_has_nothing_to_move():
    with pytest.raises(ValueError, match=r"train\.optimizer: got Muon, expected AdamW"):
        MUON.build({"weight": nn.Parameter(torch.zeros(3, 3))})
    with pytest.raises(ValueError, match=r"train\.optimizer: got Muon beside train\.adapter, expected AdamW"):
        tiny_with(optimizer=MUON, adapter=LoRA())


@pytest.mark.parametrize(
    ("field", "values"),
    [("lr", (0.0, nan)), ("momentum", (-0.1, 1.0, nan)), ("iterations", (0,)), ("weight_decay", (-1.0,))],
)
def test_options_out_of_range_are_refused(field: str, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{field}: got .*, expected"):
            Muon(**{field: value})


@pytest.mark.skipif(emulates_bf16(CPU), reason="this processor has no bfloat16")
def test_products_are_in_bfloat16_where_the_processor_has_it():
    x = torch.randn(1, 16, 16)
    assert (orthogonal(x) - orthogonal(x).bfloat16()).abs().max() == 0
