"""The count of operations, against PyTorch's own counter and the published figures."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiT, DiTConfig
from anydit.model.flops import cost
from anydit.model.modulation import Shared
from anydit.model.norms import GELU, LayerNorm, RMSNorm, SwiGLU
from anydit.model.points import Points
from anydit.model.presets import preset
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.model.tokens import Learned, Rope
from anydit.tensors import Tokens

BASE = DiTConfig(24, 3, 2, (2, 2), channels=3, size=(6, 8))
NUMBERS = Numbers(("temperature", "pressure"), mean=(0.0, 0.0), std=(1.0, 1.0))

OPTIONS: list[dict[str, Any]] = [
    {},
    {"conditions": {"label": Label(5), "numbers": NUMBERS, "near": Field(2, (0.0, 0.0), (1.0, 1.0), dropout=0.1)}},
    {"mlp": SwiGLU(), "norm": RMSNorm(), "qk_norm": RMSNorm(), "position": Rope()},
    {"mlp": GELU(ratio=1.3), "modulation": Shared(), "qk_norm": LayerNorm(), "position": None},
    {"learned_variance": True, "conditions": {"near": Field(1, (0.0,), (1.0,))}},
    {"conditions": {"text": Text(7, 5, Pooled()), "label": Label(5)}},
    {"conditions": {"text": Text(7, 5, Cross(Pooled())), "other": Text(3, None, Cross())}, "modulation": Shared()},
    {"conditions": {"text": Text(7, 5, Joint(dual=2)), "other": Text(3, None, Joint(None, 2))}, "mlp": SwiGLU()},
    {"conditions": {"text": Text(7, 5, Joint())}, "position": Learned((3, 4)), "modulation": Shared()},
    {"patch": (1,), "size": (7,), "channels": 1},
    {"patch": (1,), "size": (7,), "channels": 5, "position": Points(axes=2, bands=5)},
    {"patch": (1, 2, 2), "size": (3, 4, 4), "channels": 2, "learned_variance": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "published")
def test_equals_pytorchs_counter(options: dict[str, Any]) -> None:
    config = replace(BASE, **options)
    assert config.size is not None
    given: dict[str, Any] = {"label": torch.zeros(1, dtype=torch.long), "numbers": torch.zeros(1, 2)}
    for name, condition in config.conditions.items():
        if isinstance(condition, Field):
            given[name] = torch.zeros(1, condition.channels or 0, *config.size)
        elif isinstance(condition, Text):
            values, pooled = torch.zeros(1, 9, condition.width or 1), torch.zeros(1, condition.pooled or 1)
            given[name] = Tokens(values, torch.ones(1, 9, dtype=torch.bool), pooled)
    cond = {name: given[name] for name in config.conditions}
    model = DiT(config)
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):  # it does not see the CPU's own kernel
        model(torch.zeros(1, config.in_channels, *config.size), torch.zeros(1), cond)
    counts = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    got = cost(config, text_tokens=dict.fromkeys(config.conditions, 9))
    assert got.forward == counter.get_total_flops()
    assert got.embedding == counts["DiT.embed"]
    assert got.output == counts["DiT.output"]
    once = re.compile(r"DiT\.(modulation|conditioner\.(time|vectors\.\w+|texts\.\w+))")
    assert got.conditioning == sum(count for name, count in counts.items() if once.fullmatch(name))
    if not isinstance(config.position, Points):  # their distances go through products with weights, pair by pair
        assert got.attention == counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    assert got.parameters == sum(p.numel() for p in model.parameters())


def test_training_is_three_forwards() -> None:
    model = DiT(BASE)
    x, t = torch.zeros(1, 3, 6, 8, requires_grad=True), torch.zeros(1, requires_grad=True)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(x, t).sum().backward()
    assert counter.get_total_flops() == cost(BASE).training


def test_another_size_than_trained_on() -> None:
    assert cost(BASE, (12, 8)) == cost(replace(BASE, size=(12, 8)))
    assert cost(BASE, (12, 8)).attention == 4 * cost(BASE).attention
    with pytest.raises(ValueError, match=r"size: got \(7, 8\)"):
        cost(BASE, (7, 8))


def published(name: str, patch: int) -> DiTConfig:
    return preset(name, patch, channels=4, size=(32, 32), conditions={"label": Label(1000)}, learned_variance=True)


@pytest.mark.parametrize(
    ("name", "patch", "gigas"),  # Peebles & Xie 2022, table 4: "GFLOPs", which are multiply-adds
    [
        ("S", 8, 0.36),
        ("S", 4, 1.41),
        ("S", 2, 6.06),
        ("B", 8, 1.42),
        ("B", 4, 5.56),
        ("B", 2, 23.01),
        ("L", 8, 5.01),
        ("L", 4, 19.70),
        ("L", 2, 80.71),
        ("XL", 8, 7.39),
        ("XL", 4, 29.05),
        ("XL", 2, 118.64),
    ],
)
def test_published_figures(name: str, patch: int, gigas: float) -> None:
    # The paper's counter also sees a little that is no matrix product: 19 million of XL/2's 118,640 million.
    got = cost(published(name, patch)).multiply_adds / 1e9
    assert gigas - 2e-4 * gigas - 0.006 <= got <= gigas + 0.006


def test_xl_2_in_flops() -> None:
    xl = cost(published("XL", 2))
    assert xl.forward / 1e9 == pytest.approx(237.2, abs=0.1)
    assert xl.training == 3 * xl.forward
    assert xl.tokens == 256
    assert xl.attention / xl.forward == pytest.approx(4 * 28 * 256**2 * 1152 / 237.3e9, rel=1e-3)


def test_refuses_a_config_that_is_not_resolved() -> None:
    with pytest.raises(ValueError, match="size: got None"):
        cost(replace(BASE, size=None))
    with pytest.raises(ValueError, match="classes: got None"):
        cost(replace(BASE, conditions={"label": Label()}))
