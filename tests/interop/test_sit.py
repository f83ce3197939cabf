"""SiT's checkpoints: the published DiT's network, with time and velocity the other way round."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anydit.interop.sit import TIME, from_sit, read, to_sit, turned, write
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.norms import RMSNorm
from anydit.model.time import TimeEmbedding
from tests.interop.references import published_forward, random_state

TIMES = torch.tensor([0.0, 0.25, 0.5, 0.9375, 1.0])
"""SiT's: 0 is noise. Each is exact in float32, and so is what it lacks of 1."""

SHAPES = [  # width, depth, patch, channels, side, rows, out channels, heads
    pytest.param(384, 2, 2, 4, 4, 11, 8, None, id="width of S, twice the channels as published"),
    pytest.param(48, 3, 4, 3, 2, 8, 3, 4, id="own width, once the channels"),
]


@pytest.mark.parametrize(("width", "depth", "patch", "channels", "side", "rows", "out", "heads"), SHAPES)
def test_same_velocity_as_the_published_equations(
    width: int, depth: int, patch: int, channels: int, side: int, rows: int, out: int, heads: int | None
) -> None:
    state = random_state(width, depth, patch, channels, side, rows, out)
    config, tensors = from_sit(state, heads=heads)
    assert not config.learned_variance
    model = DiT(config)
    model.load_state_dict(tensors)
    x = torch.randn(5, channels, side * patch, side * patch, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 1, 2, rows - 2, rows - 1])
    towards_data = published_forward(state, x, TIMES, label, config.heads)[:, :channels]
    with torch.no_grad():
        got = model(x, 1 - TIMES, {"label": label})
        exact = model.double()(x.double(), 1 - TIMES, {"label": label})
    assert got.std() > 0.1
    assert (got + towards_data).norm() / towards_data.norm() <= 1e-5
    double = {name: v.double() for name, v in state.items()}
    towards_data = published_forward(double, x.double(), TIMES, label, config.heads)[:, :channels]
    # Only the float32 of the time's angles and of the stored table is common to both: all else agrees to doubles.
    assert (exact + towards_data).norm() / towards_data.norm() <= 1e-9


def test_each_convention_matters() -> None:
    state = random_state(48, 1, 2, 3, 4, 4, 3)
    config, tensors = from_sit(state, heads=4)
    x, label = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    expected = -published_forward(state, x, TIMES, label, 4)
    up, out = "conditioner.time.up.weight", ("output.linear.weight", "output.linear.bias")
    as_read = dict(zip((up, *out), (state["t_embedder.mlp.0.weight"], *(-tensors[name] for name in out)), strict=True))
    for kept in ((up,), out):
        model = DiT(config)
        model.load_state_dict(tensors | {name: as_read[name] for name in kept})
        with torch.no_grad():
            got = model(x, 1 - TIMES, {"label": label})
        assert (got - expected).norm() / expected.norm() > 1e-3


def test_turned_twice_is_as_before() -> None:
    _, tensors = from_sit(random_state(48, 1, 2, 3, 4, 4, 3), heads=4)
    again = turned(turned(tensors))
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("out", [6, 3])
def test_file_round_trip(tmp_path: Path, out: int) -> None:
    """What is written has twice the channels, the second half zero; all else is what was read."""
    state = random_state(48, 2, 2, 3, 4, 4, out)
    torch.save({"ema": state, "model": {}, "opt": {}}, tmp_path / "a.pt")
    config, tensors = read(tmp_path / "a.pt", heads=4)
    write(config, tensors, tmp_path / "b.pt")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    assert back.keys() == state.keys()
    for name, tensor in back.items():
        if name.startswith("final_layer.linear"):
            first, second = tensor.unflatten(0, (4, 2, 3)).unbind(1)
            assert torch.equal(first, state[name].unflatten(0, (4, -1, 3))[:, 0])
            assert not second.any()
        else:
            assert torch.equal(tensor, state[name])
    again, same = read(tmp_path / "b.pt", heads=4)
    assert again == config
    assert all(torch.equal(same[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"time": TimeEmbedding()}, "time.scale: got 1000.0, expected 1.0"),
        ({"norm": RMSNorm()}, "norm"),
        ({"learned_variance": True}, "learned_variance"),
        ({"size": (8, 12)}, "size"),
    ],
)
def test_refuses_to_write_what_the_format_cannot_hold(change: dict[str, object], field: str) -> None:
    base = DiTConfig(32, 1, 2, (2, 2), channels=3, size=(8, 8), conditions={"label": Label(3)}, time=TIME)
    to_sit(base, DiT(base).state_dict())
    config = replace(base, **change)
    with pytest.raises(ValueError, match=f"SiT's format cannot hold .*{field}"):
        to_sit(config, DiT(config).state_dict())


def test_refuses_what_is_not_the_format() -> None:
    state = random_state(48, 1, 2, 3, 4, 4, 3)
    del state["t_embedder.mlp.0.weight"]
    with pytest.raises(ValueError, match=r"missing t_embedder\.mlp\.0\.weight"):
        from_sit(state, heads=4)
