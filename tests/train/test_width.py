"""One learning rate for all widths: how wide models begin, how fast each weight learns, and that outputs stay alike."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.train.loop import train
from anydit.train.lora import LoRA
from anydit.train.optim import AdamW, Muon
from anydit.train.width import Width
from tests.train.tiny import losses, silent, tiny, tiny_with

WIDTH = Width(base=32)


def model_of(width: int) -> DiT:
    conditions = {"label": Label(3)}
    return DiT(DiTConfig(width=width, depth=2, heads=width // 16, patch=(4, 4), channels=1, size=(8, 8),
                         conditions=conditions))  # fmt: skip


def test_what_has_more_inputs_learns_more_slowly():
    model = model_of(128)
    shares = WIDTH.shares(model)
    grown = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert shares == dict.fromkeys(grown - {"embed.weight", "conditioner.time.up.weight"}, 0.25)
    assert WIDTH.shares(model_of(32)) == {}


def test_a_model_begins_with_the_sizes_of_the_base():
    base, model, plain = model_of(32), model_of(512), model_of(512)
    WIDTH.begin(model, 0)
    own, old = dict(model.named_parameters()), dict(base.named_parameters())
    for name, share in {"embed": 1, "conditioner.time.up": 1, "conditioner.time.down": 1 / 16,
                        "blocks.0.attention.qkv": 1 / 16, "blocks.1.mlp.down": 1 / 16}.items():  # fmt: skip
        expected = old[f"{name}.weight"].std().item() * share**0.5
        assert own[f"{name}.weight"].std().item() == pytest.approx(expected, rel=0.01), name
    assert not model.modulation.linear.weight.any() and not model.output.linear.weight.any()
    assert plain.embed.weight.std() < 0.5 * model.embed.weight.std(), "the control: as published it shrinks"


@pytest.mark.parametrize("optimizer", [AdamW(lr=0.01), Muon(lr=0.01)])
def test_shares_reach_the_optimizer(optimizer: AdamW | Muon):
    model = model_of(128)
    names = {p: name for name, p in model.named_parameters()}
    groups = (
        replace(optimizer, weight_decay=0.1).build(dict(model.named_parameters()), WIDTH.shares(model)).param_groups
    )
    given = {names[p]: (group["share"], group["weight_decay"]) for group in groups for p in group["params"]}
    # A whole matrix moves by the root.
    hidden = 0.5 if isinstance(optimizer, Muon) else 0.25
    assert given["blocks.0.mlp.up.weight"] == (hidden, 0.1 / hidden), "as much decay as ever"
    assert given["modulation.linear.weight"] == (0.25, 0.1 / 0.25)
    assert given["embed.weight"] == (1, 0.1) and given["blocks.0.mlp.up.bias"] == (1, 0)


def change(width: int, train_width: Width | None, optimizer: AdamW | Muon) -> float:
    """How far a few updates of one learning rate move the output of a block, with gradients that do not cancel."""
    model = model_of(width)
    if train_width is not None:
        train_width.begin(model, 0)
    shares = {} if train_width is None else train_width.shares(model)
    steps = optimizer.build(dict(model.named_parameters()), shares)
    g = torch.Generator().manual_seed(0)
    x, aim = torch.randn(16, 1, 8, 8, generator=g), torch.randn(16, 1, 8, 8, generator=g)
    seen = list[torch.Tensor]()
    hook = model.blocks[1].mlp.register_forward_hook(lambda _, given, made: seen.append(made.detach()))
    for _ in range(6):
        loss = (model(x, torch.full((16,), 0.5), {"label": torch.zeros(16, dtype=torch.long)}) - aim).square().mean()
        loss.backward()
        for group in steps.param_groups:
            group["lr"] = optimizer.lr * group["share"]
        steps.step()
        steps.zero_grad()
    hook.remove()
    return float((seen[-1] - seen[0]).square().mean().sqrt())


@pytest.mark.parametrize("optimizer", [AdamW(lr=0.01), Muon(lr=0.01)])
def test_outputs_move_alike_at_all_widths(optimizer: AdamW | Muon):
    """Yang 2022, section 5: in the published form a wide model's features move further at one learning rate."""
    plain = change(256, None, optimizer) / change(32, None, optimizer)
    ours = change(256, WIDTH, optimizer) / change(32, WIDTH, optimizer)
    assert 0.4 < ours < 2.5 and plain > 1.5 * ours


def test_at_its_base_it_changes_nothing(tmp_path: Path):
    """The tiny recipe is 16 wide."""
    for name, width in (("with", Width(16)), ("without", None), ("other", Width(8))):
        train(tiny_with(width=width, steps=4), tmp_path / name, "cpu", silent)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert losses(tmp_path / "other") != losses(tmp_path / "without"), "the control"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"train\.width\.base: got 12, expected a multiple of 8"):
        tiny_with(width=Width(12)).refuse_unbuildable()
    with pytest.raises(ValueError, match=r"train\.width\.base: got 0, expected at least 1"):
        Width(0)
    with pytest.raises(ValueError, match=r"train\.width: got .* beside train\.adapter, expected None"):
        replace(tiny().train, width=Width(8), adapter=LoRA())
