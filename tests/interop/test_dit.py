"""The published checkpoint format, against an implementation of the published equations written for this test alone."""

import argparse
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anydit.interop.dit import from_published, read, to_published, write
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import RMSNorm
from anydit.model.presets import preset
from anydit.model.tokens import Rope, SinCos
from tests.interop.references import published_forward, published_table, random_state

SHAPES = [  # width, depth, patch, channels, side, rows, out channels, heads
    pytest.param(384, 2, 2, 4, 4, 11, 8, None, id="width of S, learned variance"),
    pytest.param(48, 3, 4, 3, 2, 8, 3, 4, id="own width, no learned variance"),
    pytest.param(64, 1, 8, 1, 3, 3, 2, 2, id="one channel, patch 8"),
]


@pytest.mark.parametrize(("width", "depth", "patch", "channels", "side", "rows", "out", "heads"), SHAPES)
def test_same_output_as_the_published_equations(
    width: int, depth: int, patch: int, channels: int, side: int, rows: int, out: int, heads: int | None
) -> None:
    state = random_state(width, depth, patch, channels, side, rows, out)
    config, tensors = from_published(state, heads=heads)
    model = DiT(config)
    model.load_state_dict(tensors)
    x = torch.randn(5, channels, side * patch, side * patch, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([0, 1, 500, 998, 999])
    label = torch.tensor([0, 1, 2, rows - 2, rows - 1])
    expected = published_forward(state, x, index, label, config.heads)
    t = (index + 1) / 1000
    with torch.no_grad():
        got = model(x, t, {"label": label})
    assert (got - expected).norm() / expected.norm() <= 1e-5
    assert got.std() > 0.1
    double = {name: v.double() for name, v in state.items()}
    exact = published_forward(double, x.double(), index, label, config.heads)
    with torch.no_grad():
        got = model.double()(x.double(), t, {"label": label})
    # Only the float32 of the time's angles and of the stored table is common to both: all else agrees to doubles.
    assert (got - exact).norm() / exact.norm() <= 1e-9


def test_config_follows_from_the_shapes() -> None:
    config, _ = from_published(random_state(384, 2, 2, 4, 4, 11, 8))
    label = Label(10)
    expected = preset("S", 2, channels=4, size=(8, 8), conditions={"label": label}, learned_variance=True)
    assert config == replace(expected, depth=2)


def test_a_table_without_a_null_row() -> None:
    config, _ = from_published(random_state(384, 1, 2, 4, 4, 11, 8), classes=11)
    assert config.conditions == {"label": Label(11, dropout=0.0)}


@pytest.mark.parametrize("kept", ["plain", "ema", "model"])
def test_file_round_trip(tmp_path: Path, kept: str) -> None:
    state = random_state(48, 2, 2, 3, 4, 4, 6)
    other = {name: v + 1 for name, v in state.items()}
    args = argparse.Namespace(model="DiT-S/2", lr=1e-4)
    training = {"opt": {"state": {}, "lr": 1e-4}, "args": args}
    torch.save(state if kept == "plain" else {"ema": other, "model": other, kept: state, **training}, tmp_path / "a.pt")
    config, tensors = read(tmp_path / "a.pt", heads=4, ema=kept != "model")
    write(config, tensors, tmp_path / "b.pt")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert read(tmp_path / "b.pt", heads=4)[0] == config


def test_modulation_rows_are_the_blocks_in_order() -> None:
    state = random_state(48, 2, 2, 3, 4, 4, 6)
    _, tensors = from_published(state, heads=4)
    rows = tensors["modulation.linear.weight"].split([6 * 48, 6 * 48, 2 * 48])
    names = ["blocks.0.adaLN_modulation.1", "blocks.1.adaLN_modulation.1", "final_layer.adaLN_modulation.1"]
    assert all(torch.equal(row, state[f"{name}.weight"]) for row, name in zip(rows, names, strict=True))


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state = random_state(48, 2, 2, 3, 4, 4, 6)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks__1__attn__qkv__bias": None}, r"missing blocks\.1\.attn\.qkv\.bias"),
        ({"blocks__1__attn__q_norm__weight": torch.ones(12)}, r"unknown blocks\.1\.attn\.q_norm\.weight"),
        ({"pos_embed": None}, "missing pos_embed"),
        ({"pos_embed": published_table(48, 4) + 1e-3}, "pos_embed: differs by 0.001"),
        ({"pos_embed": published_table(48, 4) * math.nan}, "pos_embed: differs by nan"),
        ({"pos_embed": published_table(48, 4)[:, :12]}, "pos_embed: got 12 places"),
        ({"blocks__0__mlp__fc2__weight": torch.ones(48, 48)}, r"blocks\.0\.mlp\.down\.weight: got \(48, 48\)"),
        ({"x_embedder__proj__weight": torch.ones(48, 12)}, r"got shape \(48, 12\)"),
        ({"final_layer__linear__bias": torch.ones(7)}, r"output\.linear\.bias: got \(7,\)"),
    ],
)
def test_refuses_what_is_not_the_format(changes: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_published(changed(**changes), heads=4)


def test_refuses_an_unknown_width_without_heads() -> None:
    with pytest.raises(ValueError, match="heads: got None, expected a number, because width 48"):
        from_published(changed())


def test_refuses_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"ema": Hostile()}, tmp_path / "hostile.pt")
    torch.save(changed(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    for name in ("hostile", "cut", "text", "empty", "list", "other", "absent"):
        with pytest.raises(ValueError, match=r"path: got .*" + name) as error:
            read(tmp_path / f"{name}.pt", heads=4)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"position": Rope()}, "position"),
        ({"position": SinCos(interpolate=True)}, "position.interpolate"),
        ({"norm": RMSNorm()}, "norm"),
        ({"qk_norm": RMSNorm()}, "qk_norm"),
        ({"size": (8, 12)}, "size"),
        ({"conditions": {}}, "conditions.label"),
        ({"conditions": {"kind": Label(3)}}, "conditions.kind"),
    ],
)
def test_refuses_to_write_what_the_format_cannot_hold(change: dict[str, object], field: str) -> None:
    base = DiTConfig(32, 1, 2, (2, 2), channels=3, size=(8, 8), conditions={"label": Label(3)})
    config = replace(base, **change)
    with pytest.raises(ValueError, match=f"cannot hold .*{field}"):
        to_published(config, DiT(config).state_dict())


def test_refuses_to_write_the_tensors_of_another_model() -> None:
    config = DiTConfig(32, 1, 2, (2, 2), channels=3, size=(8, 8), conditions={"label": Label(3)})
    with pytest.raises(ValueError, match="does not fit"):
        to_published(replace(config, depth=2), DiT(config).state_dict())
