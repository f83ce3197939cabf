"""Tokens that pass by blocks in training: which, that they come back, and that nothing else changes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anydit.codecs import Normalize
from anydit.diffusion.losses import Objective
from anydit.diffusion.paths import Linear
from anydit.diffusion.predictions import Velocity
from anydit.model.attention import Axial
from anydit.model.dit import DiT, DiTConfig
from anydit.model.points import Points
from anydit.model.text import Cross, Joint, Text
from anydit.model.tokens import Rope, SinCos
from anydit.tensors import MASK, Batch, Stream, Tokens
from anydit.train.loop import train
from anydit.train.recipe import Recipe
from anydit.train.routing import Detour, Route
from anydit.train.step import TrainStep
from tests.train.tiny import losses, silent, state_hash, tiny

DEEP = DiTConfig(width=16, depth=4, heads=2, patch=(2, 2), channels=1, size=(8, 8))
STREAM, PLACES = Stream(0, "route"), torch.arange(6)


def model_of(**options) -> DiT:
    """A network in which every block does something."""
    model = DiT(
        DiTConfig(**{"width": 16, "depth": 4, "heads": 2, "patch": (2, 2), "channels": 1, "size": (8, 8)} | options)
    )
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2, generator=g)
    return model


def test_the_choice_depends_on_seed_step_and_place_only():
    """Rule 6: two processes with half of the batch each choose what one chooses for the whole."""
    route = Route(share=0.5)
    whole = route.kept(STREAM, 3, PLACES, 16)
    assert whole.shape == (6, 8) and bool((whole.diff(dim=1) > 0).all()), "in order, none twice"
    assert torch.equal(torch.cat([route.kept(STREAM, 3, PLACES[:2], 16), route.kept(STREAM, 3, PLACES[2:], 16)]), whole)
    assert not torch.equal(route.kept(STREAM, 4, PLACES, 16), whole)
    many = Route(share=0.25).kept(STREAM, 0, torch.arange(4000), 16)
    counts = torch.bincount(many.flatten(), minlength=16) / 4000
    assert many.shape == (4000, 12) and bool(((counts - 0.75).abs() < 0.03).all())
    assert Route(share=0.99).kept(STREAM, 0, PLACES, 4).shape == (6, 1), "one at least"


def test_what_does_not_exist_passes_by_first():
    mask = torch.arange(16) < torch.tensor([16, 9, 8, 3, 1, 12])[:, None]
    kept = Route(share=0.5).kept(STREAM, 3, PLACES, 16, mask)
    assert mask.gather(1, kept).sum(1).tolist() == [8, 8, 8, 3, 1, 8]


OPTIONS = {
    "sincos": {},
    "rope": {"position": Rope()},
    "cross": {"position": Rope(), "conditions": {"text": Text(5, 4, Cross())}},
    "joint": {"position": SinCos(), "conditions": {"text": Text(5, 4, Joint(dual=2))}},
}


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", OPTIONS)
def test_kept_tokens_see_the_blocks_as_if_they_were_all(kind: str, masked: bool):
    """By hand: tokens that pass by are as if they did not exist, in those blocks, and keep the value they came with."""
    model, text = model_of(**OPTIONS[kind]), "conditions" in OPTIONS[kind]
    cond = {"text": Tokens(torch.randn(6, 3, 5), torch.arange(3) <= PLACES[:, None], torch.randn(6, 4))} if text else {}
    mask = torch.arange(16) < torch.tensor([16, 9, 8, 3, 1, 12])[:, None]
    if masked:
        fine = mask.reshape(6, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2)
        cond[MASK] = fine
    x, t = torch.randn(6, 1, 8, 8), torch.rand(6)
    kept = Route().kept(STREAM, 0, PLACES, 16, mask if masked else None)
    seen = torch.zeros(6, 16, dtype=torch.bool).scatter(1, kept, value=True)
    before: dict[int, torch.Tensor] = {}

    def hide(n: int):
        def enter(_, given):
            before.setdefault(1, given[0])
            exists = seen if given[3].mask is None else seen & given[3].mask
            return (*given[:3], given[3]._replace(mask=exists))

        return enter

    def back(_, given, made):
        return torch.where(seen[:, :, None], made[0], before[1]), made[1]

    handles = [model.blocks[n].register_forward_pre_hook(hide(n)) for n in (1, 2)]
    handles.append(model.blocks[2].register_forward_hook(back))
    expected = model(x, t, cond)
    for handle in handles:
        handle.remove()
    whole = model(x, t, cond)
    with Detour(Route(), model).taken(kept):
        made = model(x, t, cond)
    exists = cond[MASK][:, None] if masked else torch.ones_like(made, dtype=torch.bool)
    torch.testing.assert_close(made[exists], expected[exists], rtol=1e-4, atol=1e-4)
    assert (made - whole)[exists].abs().max() > 0.1, "the control: it matters"
    assert torch.equal(model(x, t, cond), whole), "afterwards nothing is left of it"


def step_of(**given) -> tuple[TrainStep, Batch]:
    config, model = replace(tiny().train, **given), model_of()
    batch = Batch(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)), {}, torch.arange(8))
    codec = Normalize((0.0,), (1.0,)).build()
    return TrainStep(model, codec, Objective(Linear(), Velocity()), config, torch.arange(8)), batch


def test_a_batch_in_parts_has_the_same_gradient():
    outcomes = [step(batch, 0) for step, batch in (step_of(routing=Route()), step_of(routing=Route(), accumulate=4))]
    torch.testing.assert_close(outcomes[0].loss, outcomes[1].loss)
    torch.testing.assert_close(outcomes[0].grad_norm, outcomes[1].grad_norm)
    step, batch = step_of()
    assert step(batch, 0).loss != outcomes[0].loss, "the control"


def test_fewer_tokens_go_through_the_middle():
    step, batch = step_of(routing=Route(share=0.75, first=1, last=2))
    seen = list[int]()
    for block in step.model.blocks:
        block.attention.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
        block.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    step(batch, 0)
    assert seen == [16, 4, 4, 16]


COMPILED = """
import torch
from tests.train.test_routing import PLACES, STREAM, model_of
from anydit.train.routing import Detour, Route

plain, compiled = model_of(), model_of()
for block in (*compiled.blocks, compiled.output):
    block.compile(fullgraph=True, backend="aot_eager")
x, t, made = torch.randn(6, 1, 8, 8), torch.rand(6), []
for model in (plain, compiled):
    for turn in range(2):
        with Detour(Route(), model).taken(Route().kept(STREAM, turn, PLACES, 16)):
            made.append(model(x, t))
    made.append(model(x, t))
    made[-2].sum().backward()
assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(made[:3], made[3:], strict=True))
assert not torch.allclose(made[0], made[1]), "the control: other tokens"
"""


@pytest.mark.slow
def test_compiled_blocks_are_one_graph_each():
    """In a process of its own, because what checks shapes in tests cannot be compiled."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}){COMPILED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr


def deep(route: Route, **model) -> Recipe:
    return replace(tiny(), model=replace(tiny().model, **({"patch": (2, 2)} | model)),
                   train=replace(tiny().train, routing=route))  # fmt: skip


def test_a_run_goes_on_bit_by_bit(tmp_path: Path):
    routed = deep(Route(), depth=3)
    for steps in (4, 12):
        part = replace(routed, train=replace(routed.train, steps=steps))
        train(part, tmp_path / "stopped", "cpu", silent)
    train(routed, tmp_path / "whole", "cpu", silent)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert state_hash(tmp_path / "stopped") == state_hash(tmp_path / "whole")


@pytest.mark.parametrize(
    ("model", "route", "said"),
    [
        ({"depth": 1}, Route(), r"train\.routing: got blocks 1 to -1, expected some of 0 to 0"),
        ({"depth": 4}, Route(first=1, last=4), r"train\.routing: got blocks 1 to 4, expected some of 0 to 3"),
        ({"depth": 4, "attention": Axial(((0,), (1,)))}, Route(), r"train\.routing: got one beside Axial"),
        ({"depth": 4, "patch": (1, 1), "position": Points(axes=1)}, Route(), r"train\.routing: got one beside Points"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_recipe(model: dict, route: Route, said: str):
    with pytest.raises(ValueError, match=said):
        deep(route, **model).refuse_unbuildable()


@pytest.mark.parametrize(("field", "values"), [("share", (0.0, 1.0, -0.1)), ("first", (-1,)), ("last", (0,))])
def test_options_out_of_range_are_refused(field: str, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"train\.routing\.{field}: got .*, expected"):
            Route(**{field: value})
