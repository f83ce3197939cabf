"""One step's parts: its randomness, the average, the learning rate."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan

import pytest
import torch
from torch import nn

from anydit.codecs import Normalize
from anydit.data.loader import Order
from anydit.diffusion.denoiser import NetworkDenoiser
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.losses import Objective
from anydit.diffusion.paths import Linear
from anydit.diffusion.predictions import Velocity
from anydit.model.conditioning import Condition, Field, Label, Numbers
from anydit.model.dit import DiT
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.tensors import Batch, Tokens, select
from anydit.train.draws import Draws
from anydit.train.ema import EMA
from anydit.train.optim import AdamW, Constant, CosineDecay, LinearDecay
from anydit.train.recipe import TrainConfig
from anydit.train.step import TrainStep
from tests.train.tiny import tiny_with

DRAWS = Draws(TrainConfig(batch=64, seed=3), {"label": Label(3, dropout=0.25), "kept": Label(3, dropout=0.0)})


def test_randomness_depends_on_seed_step_and_place_only():
    """Rule 6: two processes with half of the batch each draw what one draws for the whole."""
    places = torch.arange(64)
    for draw in (DRAWS.times, lambda s, p: DRAWS.noise(s, p, (2, 3)), lambda s, p: DRAWS.dropped(s, p)["label"]):
        whole = draw(5, places)
        assert torch.equal(torch.cat([draw(5, places[:24]), draw(5, places[24:])]), whole)
        assert not torch.equal(draw(6, places), whole)
    noise = DRAWS.noise(0, torch.arange(4096), (4,))
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert "kept" not in DRAWS.dropped(0, places)
    shares = [DRAWS.dropped(step, places)["label"].float().mean() for step in range(100)]
    assert abs(torch.stack(shares).mean() - 0.25) < 0.02


def test_times_cover_every_stratum():
    t = DRAWS.times(0, torch.arange(64))
    assert (torch.ceil(t * 64) - 1).tolist() == list(range(64))


def test_the_average_warms_up_and_skips():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    ema = EMA(module, decay=0.5)
    with torch.no_grad():
        module.weight.fill_(1.0)
    ema.update(0, torch.ones(()))
    assert ema.module.weight.item() == pytest.approx(0.9), "decay 1/10 at the first step"
    ema.update(1000, torch.zeros(()))
    assert ema.module.weight.item() == pytest.approx(0.9), "a skipped step leaves it"
    ema.update(1000, torch.ones(()))
    assert ema.module.weight.item() == pytest.approx(0.95), "decay 1/2 later"
    assert not any(p.requires_grad for p in ema.module.parameters())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(warmup=3), {0: 0.25, 2: 0.75, 3: 1.0, 99: 1.0}),
        (CosineDecay(warmup=1, final=0.1), {0: 0.5, 1: 1.0, 50: 0.55, 99: 0.1}),
        (LinearDecay(decay=0.5), {0: 1.0, 49: 1.0, 75: 0.5, 99: 0.02}),
    ],
)
def test_schedules(schedule, expected):
    for step, factor in expected.items():
        assert schedule.factor(step, 100) == pytest.approx(factor, abs=0.01)


def test_only_matrices_decay():
    module = nn.Linear(3, 3)
    groups = AdamW(weight_decay=0.1).build(dict(module.named_parameters())).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert groups[0]["params"][0] is module.weight and groups[1]["params"][0] is module.bias


@pytest.mark.parametrize(
    ("make", "field", "values"),
    [
        (AdamW, "lr", (0.0, -1.0, nan, inf)),
        (AdamW, "betas", ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, nan))),
        (AdamW, "eps", (0.0, -1e-8, nan)),
        (AdamW, "weight_decay", (-0.1, nan, inf)),
        (Constant, "warmup", (-1,)),
        (CosineDecay, "warmup", (-1,)),
        (CosineDecay, "final", (-0.1, 1.1, nan)),
        (LinearDecay, "warmup", (-1,)),
        (LinearDecay, "decay", (-0.1, 1.1, nan)),
        (LinearDecay, "final", (-0.1, 1.1, nan)),
    ],
)
def test_options_out_of_range_are_refused(make, field: str, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{field}: got .*, expected"):
            make(**{field: value})


def step_of(**train) -> tuple[TrainStep, Batch]:
    recipe = tiny_with(**train)
    model = DiT(replace(recipe.model, channels=1, size=(8, 8), conditions={"label": Label(3)}))
    objective = Objective(Linear(), Velocity())
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, {"label": torch.arange(8) % 3, "unasked": torch.zeros(8)}, torch.arange(8))
    return TrainStep(model, Normalize((0.0,), (1.0,)).build(), objective, recipe.train, torch.arange(8)), batch


def text_step(**train) -> tuple[TrainStep, Batch]:
    """A step of a model that is told a text, of which it is told nothing in half of the samples."""
    recipe = tiny_with(**train)
    conditions = {"text": Text(5, 4, Joint(), dropout=0.5)}
    model = DiT(replace(recipe.model, channels=1, size=(8, 8), conditions=conditions))
    g = torch.Generator().manual_seed(0)
    tokens = Tokens(torch.randn(8, 3, 5, generator=g), torch.arange(3) <= torch.arange(8)[:, None], torch.randn(8, 4))
    batch = Batch(torch.randn(8, 1, 8, 8, generator=g), {"text": tokens}, torch.arange(8))
    codec = Normalize((0.0,), (1.0,)).build()
    return TrainStep(model, codec, Objective(Linear(), Velocity()), recipe.train, torch.arange(8)), batch


def test_a_text_is_dropped_for_some_samples_and_both_ways_are_learned():
    step, batch = text_step()
    dropped = step.draws.dropped(0, torch.arange(8))["text"]
    assert 0 < int(dropped.sum()) < 8
    with torch.no_grad():  # at their start the blocks do nothing, and nothing before them learns
        for p in step.model.parameters():
            p.normal_(std=0.2)
    before = copied(step)
    assert float(step(batch, 0).applied) == 1
    after = copied(step)
    learned = [name for name in before if name.startswith("model.") and not torch.equal(before[name], after[name])]
    assert set(learned) == {name for name in before if name.startswith("model.")}


def test_a_text_goes_along_when_a_batch_is_cut_into_parts():
    outcomes = [step(batch, 0) for step, batch in (text_step(), text_step(accumulate=4))]
    torch.testing.assert_close(outcomes[0].loss, outcomes[1].loss)
    torch.testing.assert_close(outcomes[0].grad_norm, outcomes[1].grad_norm)


@pytest.mark.parametrize(("dropout", "idle"), [(0.0, True), (0.5, False)])
def test_processes_are_told_of_nulls_that_no_step_uses(dropout: float, idle: bool):
    """What has no dropout of its own is not dropped with all others either: its null never gets a gradient."""
    recipe = tiny_with(batch=64, drop_all=0.5)
    conditions = {"label": Label(3), "low": Field(1, (0.0,), (1.0,), dropout=dropout)}
    model = DiT(replace(recipe.model, channels=1, size=(8, 8), conditions=conditions))
    codec, ids = Normalize((0.0,), (1.0,)).build(), torch.arange(64)
    step = TrainStep(model, codec, Objective(Linear(), Velocity()), recipe.train, ids)
    dropped = step.draws.dropped(0, ids)
    assert ("low" in dropped) is not idle and dropped["label"].any() and step._idle is idle


@torch.no_grad()
def test_nulls_of_training_are_those_of_sampling():
    """Each combination of conditions that guidance asks for was trained, and means the same there, to the network."""
    conditions = {
        "label": Label(3, dropout=0.5),
        "size": Numbers(("width in mm", "height in mm"), (5.0, 5.0), (2.0, 2.0), dropout=0.5),
        "text": Text(5, 4, Cross(pooled=Pooled()), dropout=0.5),
        "low": Field(1, (0.0,), (1.0,), dropout=0.5),
    }
    recipe, n, g = tiny_with(batch=256, drop_all=0.1), 256, torch.Generator().manual_seed(0)
    model = DiT(replace(recipe.model, channels=1, size=(8, 8), conditions=conditions))
    for p in model.parameters():  # at their start the blocks do nothing
        p.normal_(std=0.2, generator=g)
    tokens = Tokens(torch.randn(n, 3, 5, generator=g), torch.ones(n, 3).bool(), torch.randn(n, 4, generator=g))
    fields = {"size": torch.rand(n, 2, generator=g) * 10, "low": torch.randn(n, 1, 8, 8, generator=g)}
    told = {"label": torch.arange(n) % 3, "text": tokens, **fields}
    step = TrainStep(
        model, Normalize((0.0,), (1.0,)).build(), Objective(Linear(), Velocity()), recipe.train, torch.arange(n)
    )
    batch = Batch(fields["low"], told, torch.arange(n))
    xt, t, velocity = seen_by(model, lambda: step.terms(batch, batch.ids, 0))
    x0, dropped = Velocity().x0(Linear(), xt, velocity, t), step.draws.dropped(0, batch.ids)
    ways = {tuple(bool(dropped[name][i]) for name in conditions) for i in range(n)}
    assert len(ways) == 16, "every combination"
    for way in ways:
        rows = torch.tensor([tuple(bool(dropped[name][i]) for name in conditions) == way for i in range(n)])
        kept = {name: 1.0 for name, gone in zip(conditions, way, strict=True) if not gone}
        # Those that were not dropped count as much as ever, the others nothing at all.
        guided = Guidance(0.0, scales=kept).wrap(NetworkDenoiser(model, Linear(), Velocity()))
        made = guided.denoise(xt[rows], t[rows], select(told, rows)).x0
        torch.testing.assert_close(made, x0[rows], rtol=1e-3, atol=1e-3)
    assert (x0 - NetworkDenoiser(model, Linear(), Velocity()).denoise(xt, t, told).x0).abs().max() > 0.1, "the control"


def seen_by(model: nn.Module, run: Callable[[], object]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What goes into a network, its times, and what comes out of it, in the one call of it that `run` makes."""
    seen = list[torch.Tensor]()
    hook = model.register_forward_hook(lambda _, given, out: seen.extend([given[0], given[1], out]))  # pyright: ignore
    run()
    hook.remove()
    xt, t, made = seen
    return xt, t, made


def test_all_conditions_are_dropped_together_beside_each_alone():
    conditions: dict[str, Condition] = {
        "a": Label(3, dropout=0.1),
        "b": Label(3, dropout=0.2),
        "kept": Label(3, dropout=0.0),
    }
    draws, places = Draws(TrainConfig(batch=64, drop_all=0.3), conditions), torch.arange(64)
    steps = [draws.dropped(step, places) for step in range(200)]
    a, b = (torch.cat([each[name] for each in steps]) for name in "ab")
    assert all(set(each) == {"a", "b"} for each in steps)
    for dropped, expected in ((a, 1 - 0.7 * 0.9), (b, 1 - 0.7 * 0.8), (a & b, 0.3 + 0.7 * 0.1 * 0.2)):
        assert abs(float(dropped.float().mean()) - expected) < 0.02


def test_clipping_bounds_the_gradient_but_reports_it_whole():
    step, batch = step_of(clip=1e-3)
    outcome = step(batch, 0)
    firsts = [state["exp_avg"].norm() for state in step.optimizer.state.values()]  # a tenth of the gradient
    assert float(outcome.grad_norm) > 1e-2
    assert float(torch.stack(firsts).norm()) == pytest.approx(1e-4, rel=1e-2)


def copied(step: TrainStep) -> dict[str, torch.Tensor]:
    """Weights, average, moments and norms, as they are now; NaN, which is never equal, as a number."""
    state = step.state().items()
    return {f"{group}.{k}": torch.where(v.isnan(), -7.0, v) for group, tensors in state for k, v in tensors.items()}


@pytest.mark.fault("T13")
def test_a_loss_that_is_not_finite_is_not_applied():
    step, batch = step_of()
    step(batch, 0)
    before = copied(step)
    outcome = step(Batch(batch.x * float("inf"), batch.cond, batch.ids), 1)
    assert float(outcome.applied) == 0 and not outcome.loss.isfinite()
    after = copied(step)
    assert before.keys() == after.keys() and all(torch.equal(v, before[k]) for k, v in after.items())


@pytest.mark.fault("T13")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_not_applied(value: float):
    """The loss is a number, and one single value of the gradient is none."""
    step, batch = step_of()
    step(batch, 0)
    before = copied(step)

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        spoilt = gradient.clone()
        spoilt.view(-1)[0] = value
        return spoilt

    hook = step.model.embed.bias.register_hook(spoil)
    outcome = step(batch, 1)
    assert float(outcome.applied) == 0 and outcome.loss.isfinite()
    assert all(torch.equal(v, before[k]) for k, v in copied(step).items())
    hook.remove()
    assert float(step(batch, 1).applied) == 1
    assert not all(torch.equal(v, before[k]) for k, v in copied(step).items()), "the control"


def test_the_gradients_of_two_processes_add_up_to_that_of_the_whole_batch():
    """Rule 6: each draws what the whole batch has at its places."""

    def gradient(world: int, rank: int) -> torch.Tensor:
        step, batch = step_of()
        order = Order(8, 8, seed=0, rank=rank, world=world)
        step.positions = order.positions
        share = Batch(batch.x[order.positions], {k: v[order.positions] for k, v in batch.cond.items()}, batch.ids)
        step._backward(share, torch.arange(len(share.x)), 3, last=True)
        return torch.cat([p.grad.flatten() for p in step.model.parameters() if p.grad is not None])

    whole, (first, second) = gradient(1, 0), (gradient(2, rank) for rank in (0, 1))
    torch.testing.assert_close(first + second, whole, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(2 * first, whole, rtol=1e-2), "the halves differ"


def test_state_of_another_model_is_refused():
    step, _ = step_of()
    state = step.state()
    with pytest.raises(ValueError, match="does not fit the model"):
        step.load_state({**state, "model": {}}, "here")
    with pytest.raises(ValueError, match="optimizer state for 'nobody'"):
        step.load_state({**state, "optimizer": {"nobody:step": torch.ones(())}}, "here")
