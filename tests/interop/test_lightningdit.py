"""LightningDiT's checkpoints, with each of its options, against its equations."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anydit.interop.lightningdit import from_lightningdit, read, to_lightningdit, write
from anydit.interop.sit import TIME
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import GELU, LayerNorm, RMSNorm, SwiGLU
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import Rope, SinCos, SinCosRope
from tests.interop.references import lightning_forward, random_lightning_state

HEAD, HEADS, WIDTH = 12, 2, 24
TIMES = torch.tensor([0.0, 0.25, 0.5, 0.9375, 1.0])
LABEL = torch.tensor([0, 1, 2, 5, 6])


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def without(option: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` of a model built without one of the options."""
    blocks = range(2)
    if option == "rope":
        return {name: v for name, v in state.items() if "feat_rope" not in name}
    if option == "qk_norm":
        return {name: v for name, v in state.items() if "q_norm" not in name and "k_norm" not in name}
    if option == "rms":
        state = {name: v for name, v in state.items() if ".norm1." not in name and ".norm2." not in name}
        del state["final_layer.norm_final.weight"]
        return state | {f"blocks.{n}.attn.{a}_norm.bias": 0.1 * drawn(HEAD) for n in blocks for a in "qk"}
    if option == "shift":
        for n in blocks:
            for kind in ("weight", "bias"):
                name = f"blocks.{n}.adaLN_modulation.1.{kind}"
                parts = state[name].unflatten(0, (6, WIDTH))
                state[name] = parts[[1, 2, 4, 5]].flatten(0, 1)
        return state
    assert option == "swiglu"
    state = {name: v for name, v in state.items() if ".mlp.w" not in name}
    for n in blocks:
        for name, rows, columns in (("fc1", 4 * WIDTH, WIDTH), ("fc2", WIDTH, 4 * WIDTH)):
            state[f"blocks.{n}.mlp.{name}.weight"] = drawn(rows, columns) / columns**0.5
            state[f"blocks.{n}.mlp.{name}.bias"] = drawn(rows) * 0.1
    return state


def state_of(*left_out: str, **shape: int) -> dict[str, Tensor]:
    state = random_lightning_state(head=HEAD, heads=HEADS, **shape)
    for option in left_out:
        state = without(option, state)
    return state


@torch.no_grad()
def difference(state: dict[str, Tensor], config: DiTConfig, tensors: dict[str, Tensor], dtype: torch.dtype) -> float:
    """How far our velocity is from the reference's, which points the other way."""
    model = DiT(config)
    model.load_state_dict(tensors)
    assert config.size is not None
    x = drawn(5, config.in_channels, *config.size).to(dtype)
    theirs = {name: v.to(dtype) for name, v in state.items()}
    expected = -lightning_forward(theirs, x, TIMES, LABEL, HEAD)
    got = model.to(dtype)(x, 1 - TIMES, {"label": LABEL})
    assert got.std() > 0.1
    return float((got - expected).norm() / expected.norm())


VARIANTS = [(), ("qk_norm",), ("rope",), ("rms",), ("shift",), ("swiglu",), ("rope", "rms", "qk_norm", "swiglu")]
"""The second is the published one; the last one is a SiT."""


@pytest.mark.parametrize("left_out", VARIANTS, ids=lambda v: "without " + ", ".join(v) if v else "all")
def test_same_velocity_as_the_equations(left_out: tuple[str, ...]) -> None:
    state = state_of(*left_out)
    config, tensors = from_lightningdit(state, heads=HEADS)
    assert difference(state, config, tensors, torch.float32) <= 1e-5
    # The weights of norms go into the modulation, which is kept in float32: no closer than its rounding.
    assert difference(state, config, tensors, torch.float64) <= 1e-6


def test_other_patches_and_channels() -> None:
    state = state_of(patch=2, channels=4, side=4, depth=2)
    config, tensors = from_lightningdit(state)
    assert (config.patch, config.size, config.channels) == ((2, 2), (8, 8), 4)
    assert difference(state, config, tensors, torch.float32) <= 1e-5


def test_config_follows_from_the_keys() -> None:
    expected = DiTConfig(
        WIDTH,
        2,
        HEADS,
        (1, 1),
        channels=5,
        size=(3, 3),
        conditions={"label": Label(6)},
        position=SinCosRope(),
        norm=RMSNorm(),
        qk_norm=RMSNorm(),
        mlp=SwiGLU(int(8 / 3 * WIDTH) / WIDTH),
        time=TIME,
    )
    assert from_lightningdit(state_of())[0] == expected
    plain = replace(expected, position=SinCos(), norm=LayerNorm(), qk_norm=None, mlp=GELU(4.0))
    assert from_lightningdit(state_of("rope", "rms", "qk_norm", "swiglu"), heads=HEADS)[0] == plain
    assert from_lightningdit(state_of("rms"))[0] == replace(expected, norm=LayerNorm(), qk_norm=LayerNorm(1e-5))


@pytest.mark.parametrize("left_out", VARIANTS, ids=lambda v: "without " + ", ".join(v) if v else "all")
def test_what_is_written_computes_the_same_and_is_read_back(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    state = state_of(*left_out)
    torch.save({"ema": {f"module.{name}": v for name, v in state.items()}}, tmp_path / "a.pt")
    config, tensors = read(tmp_path / "a.pt", heads=HEADS)
    write(config, tensors, tmp_path / "b.pt")
    written = torch.load(tmp_path / "b.pt", weights_only=True)["ema"]
    assert written.keys() == state.keys()
    assert difference(written, config, tensors, torch.float32) <= 1e-5
    again, same = read(tmp_path / "b.pt", heads=HEADS)
    assert again == config
    for name in tensors:
        torch.testing.assert_close(same[name], tensors[name], rtol=0, atol=1e-6)
    back = to_lightningdit(again, same)
    for name in state.keys() - {n for n in state if "norm" in n or "adaLN" in n}:
        torch.testing.assert_close(back[name], state[name], rtol=0, atol=1e-6)


def test_a_second_output_is_left_out() -> None:
    state = state_of()
    doubled = dict(state)
    for kind in ("weight", "bias"):
        rows = state[f"final_layer.linear.{kind}"]
        doubled[f"final_layer.linear.{kind}"] = torch.cat([rows, rows + 1])
    (config, tensors), (same, others) = (from_lightningdit(s) for s in (state, doubled))
    assert config == same
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feat_rope.freqs_cos": torch.ones(9, HEAD)}, r"freqs_cos: differs by \d"),
        ({"feat_rope.freqs_sin": torch.ones(4, HEAD)}, r"freqs_sin: got shape \(4, 12\), expected \(9, 12\)"),
        ({"blocks.1.norm2.weight": None}, r"missing blocks\.1\.norm2\.weight"),
        ({"blocks.1.mlp.w3.bias": None}, r"missing blocks\.1\.mlp\.w3\.bias"),
        ({"y_embedder.proj.weight": torch.ones(1)}, r"unknown y_embedder\.proj\.weight"),
        ({"blocks.0.adaLN_modulation.1.weight": torch.ones(5 * WIDTH, WIDTH)}, r"expected \(96, 24\) or \(144, 24\)"),
        ({"pos_embed": torch.ones(1, 9, WIDTH)}, "pos_embed: differs"),
    ],
)
def test_refuses_what_is_not_the_format(changes: dict[str, Tensor | None], message: str) -> None:
    state: dict[str, Tensor | None] = {**state_of(), **changes}
    with pytest.raises(ValueError, match=message):
        from_lightningdit({name: v for name, v in state.items() if v is not None})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"position": Rope()}, "position"),
        ({"position": SinCosRope(SinCos(), Rope(100.0))}, r"position\.rope\.max_period"),
        ({"norm": RMSNorm(1e-5)}, r"norm\.eps"),
        ({"qk_norm": LayerNorm()}, "qk_norm"),
        ({"time": TimeEmbedding()}, r"time\.scale"),
        ({"size": (4, 6)}, "size"),
    ],
)
def test_refuses_to_write_what_the_format_cannot_hold(change: dict[str, object], field: str) -> None:
    config, _ = from_lightningdit(state_of())
    config = replace(config, **change)
    with pytest.raises(ValueError, match=f"LightningDiT's format cannot hold .*{field}"):
        to_lightningdit(config, DiT(config).state_dict())
