"""Attention along some axes at a time: who depends on whom, what it equals, and what it costs."""

import subprocess
import sys
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anydit.config import from_json, to_json
from anydit.model.attention import Axial, Full, attend, attend_along
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.flops import cost
from anydit.model.text import Cross, Joint, Text
from anydit.model.tokens import Rope
from anydit.tensors import MASK, Tokens
from tests.model.test_dit import draw, randomised

GRID = (2, 3, 2)
BASE = DiTConfig(24, 2, 2, (1, 1, 1), channels=3, size=GRID, conditions={"label": Label(5)}, position=Rope())
SPACE_AND_TIME = Axial(((1, 2), (0,)))


def model_of(**changes: Any) -> DiT:
    return randomised(DiT(replace(BASE, **changes))).double()


def run(model: DiT, x: Tensor, cond: Any = None) -> Tensor:
    return model(x, torch.linspace(0.1, 0.9, len(x)).double(), cond or {})


def sees(axes: tuple[int, ...], places: Tensor) -> Tensor:
    """Which token attends to which: those at the same place along all other axes."""
    others = [axis for axis in range(places.shape[1]) if axis not in axes]
    return (places[:, None, others] == places[None, :, others]).all(-1)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("groups", [((1, 2), (0,)), ((0,), (1,), (2,)), ((2, 0),), ((1,), (2,))], ids=str)
def test_every_token_depends_on_just_those_that_the_blocks_let_it_reach(depth: int, groups: Any):
    if len(groups) > depth:
        pytest.skip("refused")
    model = model_of(attention=Axial(groups), depth=depth)
    places = torch.tensor(list(product(*map(range, GRID))))
    reach = torch.eye(len(places))
    for block in range(depth):
        reach = sees(groups[block % len(groups)], places).float() @ reach
    n = len(places)
    x = draw(1, 3, n).double().repeat(1 + n, 1, 1)
    x[1 + torch.arange(n), :, torch.arange(n)] += 1.0  # in each but the first sample another token
    with torch.no_grad():
        out = model(x.unflatten(2, GRID), torch.full((1 + n,), 0.4).double()).flatten(2)
    changed = (out[1:] - out[:1]).abs().amax(1).T  # of each token, by each token that was moved
    assert torch.equal(changed > 1e-12, reach > 0)


def test_groups_of_all_axes_are_full_attention():
    full = model_of(attention=Full())
    for groups in (((0, 1, 2),), ((2, 0, 1), (1, 2, 0))):
        other = DiT(replace(BASE, attention=Axial(groups))).double()
        other.load_state_dict(full.state_dict())
        x = draw(3, 3, 4, 3, 2).double()  # another size, too
        torch.testing.assert_close(run(other, x), run(full, x))


@pytest.mark.parametrize("axes", [(0,), (1,), (2, 1), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_full_attention_under_a_mask_of_pairs(axes: tuple[int, ...], masked: bool):
    """Against PyTorch's own, told which pairs of tokens may meet."""
    n, places = 12, torch.tensor(list(product(*map(range, GRID))))
    q, k, v = (draw(2, 2, n, 4, seed=seed).double() for seed in range(3))
    exists = torch.rand(2, n, generator=torch.Generator().manual_seed(0)) < 0.8 if masked else None
    pairs = sees(axes, places)[None, None].expand(2, 1, -1, -1)
    if exists is not None:
        pairs = pairs & exists[:, None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=pairs)
    some = pairs.any(-1).expand(2, 2, n)
    got = attend_along(axes, GRID, q, k, v, exists)
    torch.testing.assert_close(got[some], expected[some])
    assert got.isfinite().all()
    if len(axes) == 3:
        torch.testing.assert_close(got, attend(q, k, v, exists))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_does_not_exist_has_no_influence_even_where_a_whole_group_does_not(dtype: torch.dtype):
    model = model_of(attention=SPACE_AND_TIME, depth=3).to(dtype)
    exists = torch.ones(2, *GRID, dtype=torch.bool)
    exists[0, 1] = False  # no token of this frame
    exists[1, :, 2, 1] = False  # and none of this line
    x = draw(2, 3, *GRID).to(dtype)
    t = torch.full((2,), 0.4, dtype=dtype)
    base = model(x, t, {MASK: exists})
    there = exists[:, None].expand_as(base)
    base[there].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    for garbage in (1e4, float("nan")):
        again = model(torch.where(exists[:, None], x, garbage), t, {MASK: exists})
        assert torch.equal(again[there], base[there])
    if dtype is torch.float64:
        shorter = model(x[:1, :, :1], t[:1])
        torch.testing.assert_close(base[:1, :, :1], shorter)


def test_a_text_reaches_all_tokens_by_cross_attention():
    model = model_of(attention=SPACE_AND_TIME, conditions={"text": Text(7, 4, Cross())})
    texts = Tokens(draw(2, 3, 7).double(), torch.ones(2, 3, dtype=torch.bool), None)
    x = draw(2, 3, *GRID).double()
    out, other = (run(model, x, {"text": t}) for t in (texts, texts._replace(values=texts.values + 1)))
    assert ((out - other).abs().amax(1) > 1e-9).all()


@pytest.mark.parametrize("groups", [((1, 2), (0,)), ((0,), (1,), (2,)), ((0, 1, 2),)], ids=str)
def test_its_cost_is_what_pytorch_counts(groups: Any):
    config = replace(BASE, attention=Axial(groups), depth=3, conditions={})
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        DiT(config)(torch.zeros(1, 3, *GRID), torch.zeros(1))
    assert cost(config).forward == counter.get_total_flops()
    assert cost(config).attention == counter.get_flop_counts()["Global"][torch.ops.aten.bmm]


def test_wrong_groups_are_refused():
    for groups in ((), ((),), ((0, 0),)):
        with pytest.raises(ValueError, match="expected groups of different axes"):
            Axial(groups)
    with pytest.raises(ValueError, match=r"attention.groups: got \(\(3,\),\), expected axes from 0 to 2"):
        replace(BASE, attention=Axial(((3,),)))
    with pytest.raises(ValueError, match=r"attention.groups: got 3 groups, expected at most depth 2"):
        replace(BASE, attention=Axial(((0,), (1,), (2,))))
    with pytest.raises(ValueError, match="attention: got Axial beside a text that enters by Joint"):
        replace(BASE, attention=SPACE_AND_TIME, conditions={"text": Text(7, 4, Joint())})


def test_it_is_saved_with_the_config():
    config = replace(BASE, attention=SPACE_AND_TIME)
    assert from_json(DiTConfig, to_json(config)) == config
    before = to_json(BASE)
    del before["attention"]  # of a release that had no such option
    assert from_json(DiTConfig, before) == BASE


ONE_GRAPH = """
import torch
from anydit.model.attention import Axial
from anydit.model.dit import DiT, DiTConfig
from anydit.model.tokens import Rope

x, t = torch.randn(3, 2, 4, 6, 2), torch.rand(3)
model = DiT(DiTConfig(24, 4, 2, (1, 2, 1), channels=2, size=(4, 6, 2), position=Rope(),
                      attention=Axial(((1, 2), (0,)))))
for p in model.parameters():
    torch.nn.init.normal_(p, std=0.2)
expected = [model(x[:n], t[:n]) for n in (3, 2)]
for module in (*model.blocks, model.output):
    module.compile(fullgraph=True, backend="aot_eager")
for n, before in zip((3, 2), expected):
    torch.testing.assert_close(model(x[:n], t[:n]), before, rtol=1e-4, atol=1e-4)
model(x, t).sum().backward()
assert all(p.grad is not None for p in model.blocks.parameters())
"""


def test_its_blocks_make_one_graph_each():
    """In a process of its own: the checks of shapes that tests run under are not made for being compiled."""
    subprocess.run([sys.executable, "-c", ONE_GRAPH], check=True)
