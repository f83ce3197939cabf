"""The whole network: its options, its initialisation, and what must not change its output."""

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from anydit.config import from_json, to_json
from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiT, DiTConfig
from anydit.model.modulation import PerBlock, Shared
from anydit.model.norms import GELU, LayerNorm, RMSNorm, SwiGLU
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.model.tokens import Learned, Rope, SinCos, SinCosRope, coordinates, sincos_table
from anydit.tensors import MASK, Masked, Tokens, concatenate, drop, null

BASE = DiTConfig(24, 2, 2, (2, 2), channels=3, size=(4, 6), conditions={"label": Label(5)})
NUMBERS = Numbers(("temperature", "pressure"), mean=(280.0, 1.0), std=(10.0, 0.1))


def randomised(model: DiT, seed: int = 0) -> DiT:
    """The model with every weight random: at its start its blocks do nothing, which would hide faults."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.3))
    return model


def model_of(**changes: Any) -> DiT:
    return randomised(DiT(replace(BASE, **changes)))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


T = torch.tensor([0.1, 0.5, 0.999])
LABEL = {"label": torch.tensor([0, 3, 4])}


def text(tokens: int = 5, seed: int = 0) -> Tokens:
    """Three texts of two, all and one tokens."""
    exists = torch.arange(tokens) < torch.tensor([[2], [tokens], [1]])
    return Tokens(draw(3, tokens, 7, seed=seed), exists, draw(3, 4, seed=seed + 1))


ENTRIES = [Pooled(), Cross(), Cross(Pooled()), Joint(), Joint(None), Joint(dual=1)]


def text_model(entry: Any, **changes: Any) -> DiT:
    return model_of(conditions={"label": Label(5), "text": Text(7, 4, entry)}, **changes)


@pytest.mark.parametrize(
    "position", [None, SinCos(), Rope(), SinCosRope(), Learned((3, 5))], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize("qk_norm", [None, RMSNorm(), LayerNorm()], ids=lambda n: f"qk-{type(n).__name__}")
@pytest.mark.parametrize("modulation", [PerBlock(), Shared()], ids=lambda m: type(m).__name__)
def test_every_combination_of_options_runs_and_reaches_every_weight(
    position: Any, qk_norm: Any, modulation: Any
) -> None:
    x, present = draw(3, 3, 4, 6), torch.tensor([True, False, True])
    cond = {
        "label": Masked(LABEL["label"], present),
        "numbers": Masked(torch.tensor([[270.0, 1.1], [0.0, 0.0], [290.0, 0.9]]), present),
        "near": Masked(draw(3, 2, 4, 6), present),
    }
    conditions = {"label": Label(5), "numbers": NUMBERS, "near": Field(2, (1.0, -1.0), (2.0, 0.5), dropout=0.1)}
    for norm, mlp, variance in itertools.product((LayerNorm(), RMSNorm()), (GELU(), SwiGLU()), (False, True)):
        model = model_of(
            position=position,
            qk_norm=qk_norm,
            modulation=modulation,
            norm=norm,
            mlp=mlp,
            learned_variance=variance,
            conditions=conditions,
        )
        assert from_json(DiTConfig, to_json(model.config)) == model.config
        out = model(x, T, cond)
        assert out.shape == (3, 6 if variance else 3, 4, 6)
        out.square().mean().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        idle = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()]
        # A key's bias adds the same to all scores of a query, so softmax removes it; it shares a tensor with others.
        assert not without + idle
        assert out.std() > 0.05


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
@pytest.mark.parametrize("modulation", [PerBlock(), Shared()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("position", [SinCos(), Rope()], ids=lambda p: type(p).__name__)
def test_every_way_in_for_a_text_reaches_every_weight(entry: Any, modulation: Any, position: Any) -> None:
    model = text_model(entry, modulation=modulation, position=position, qk_norm=RMSNorm())
    assert from_json(DiTConfig, to_json(model.config)) == model.config
    present = torch.tensor([False, True, True])
    cond = {"label": Masked(LABEL["label"], present), "text": Masked(text(), present)}
    model(draw(3, 3, 4, 6), T, cond).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_padding_of_a_text_has_no_influence(entry: Any) -> None:
    model, x, given = text_model(entry), draw(3, 3, 4, 6), text()
    base = model(x, T, {"text": given})
    for garbage in (1e4, float("inf"), float("nan")):
        values = torch.where(given.exists[..., None], given.values, garbage)
        assert torch.equal(model(x, T, {"text": given._replace(values=values)}), base)
    assert given.pooled is not None
    for i in range(3):  # alone, and without its padding
        n = int(given.exists[i].sum())
        own = Tokens(given.values[i : i + 1, :n], given.exists[i : i + 1, :n], given.pooled[i : i + 1])
        torch.testing.assert_close(model(x[i : i + 1], T[i : i + 1], {"text": own}), base[i : i + 1])
    other = given._replace(values=given.values + given.exists[..., None], pooled=given.pooled + 1)
    assert not torch.allclose(model(x, T, {"text": other}), base, atol=1e-3)
    if not isinstance(entry, Pooled):  # all tokens are seen
        last = torch.zeros(5, 1)
        last[-1] = 1
        far = model(x, T, {"text": given._replace(values=given.values + last)})
        assert not torch.allclose(far[1], base[1], atol=1e-4)
        torch.testing.assert_close(far[[0, 2]], base[[0, 2]])


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_the_null_of_training_is_the_null_of_sampling(entry: Any) -> None:
    model, x = text_model(entry), draw(3, 3, 4, 6)
    cond = {"label": LABEL["label"], "text": text()}
    in_training = model(x, T, drop(cond, dict.fromkeys(cond, torch.tensor([True, False, True]))))
    guided = model(torch.cat([x, x]), torch.cat([T, T]), concatenate([cond, null(cond)], 3))
    torch.testing.assert_close(guided[3:][[0, 2]], in_training[[0, 2]])
    torch.testing.assert_close(guided[:3][1], in_training[1])
    torch.testing.assert_close(model(x, T), guided[3:])
    assert not torch.allclose(guided[:3], guided[3:], atol=1e-2)


def test_several_texts_at_once_each_with_a_null_of_its_own() -> None:
    for entry in (Cross(Pooled()), Joint(None)):
        texts = {"title": Text(7, 4, entry), "body": Text(7, 4, entry), "mood": Text(7, 4, Pooled())}
        model, x = model_of(conditions=texts), draw(3, 3, 4, 6)
        cond = {"title": text(2, seed=1), "body": text(5, seed=2), "mood": text(1, seed=3)}
        whole = model(x, T, cond)
        for name in cond:
            without = model(x, T, {other: value for other, value in cond.items() if other != name})
            assert not torch.allclose(without, whole, atol=1e-3)
            torch.testing.assert_close(without, model(x, T, drop(cond, {name: torch.ones(3, dtype=torch.bool)})))
        swapped = {**cond, "title": cond["body"], "body": cond["title"]}
        assert not torch.allclose(model(x, T, swapped), whole, atol=1e-3)


def test_a_text_beside_a_masked_sample() -> None:
    x, mask = draw(3, 3, 4, 6), torch.ones(3, 4, 6, dtype=torch.bool)
    canvas, there = torch.full((3, 3, 8, 10), torch.nan), torch.zeros(3, 8, 10, dtype=torch.bool)
    canvas[:, :, :4, :6], there[:, :4, :6] = x, True
    for entry in (Cross(), Joint(dual=1)):
        model = text_model(entry)
        expected = model(x, T, {"text": text()})
        torch.testing.assert_close(model(x, T, {"text": text(), MASK: mask}), expected)
        torch.testing.assert_close(model(canvas, T, {"text": text(), MASK: there})[:, :, :4, :6], expected)


def test_at_the_start_a_text_changes_nothing_but_learns() -> None:
    for entry in (Cross(Pooled()), Joint()):
        model = DiT(replace(BASE, conditions={"text": Text(7, 4, entry)}))
        assert not model(draw(3, 3, 4, 6), T, {"text": text()}).any()
        state = model.state_dict()
        for name, value in state.items():
            if name.endswith("unknown"):
                assert value.std() == pytest.approx(0.02, rel=0.5)
        if isinstance(entry, Cross):
            assert not state["blocks.0.cross.out.weight"].any()
            assert state["blocks.0.cross.q.weight"].any()


def test_learned_positions_are_the_middle_of_their_canvas() -> None:
    model = model_of(position=Learned((4, 5)), size=(4, 6))
    x = draw(3, 3, 4, 6)
    expected = model(x, T, LABEL)
    with torch.no_grad():
        table = model.positions.unflatten(0, (4, 5)).clone()
        model.positions.normal_()
        assert not torch.allclose(model(x, T, LABEL), expected)
        model.positions.unflatten(0, (4, 5))[1:3, 1:4] = table[1:3, 1:4]
    assert torch.equal(model(x, T, LABEL), expected)
    assert model(draw(3, 3, 8, 10), T, LABEL).shape == (3, 3, 8, 10)
    with pytest.raises(ValueError, match=r"size: got \(5, 5\) patches, expected at most position.canvas \(4, 5\)"):
        model(draw(3, 3, 10, 10), T, LABEL)
    assert DiT(model.config).positions.detach().std() == pytest.approx(0.02, rel=0.2)


def test_at_the_start_the_output_is_zero_and_blocks_do_nothing() -> None:
    for modulation in (PerBlock(), Shared()):
        model = DiT(replace(BASE, modulation=modulation))
        seen: list[Tensor] = []
        hooks = [
            block.register_forward_pre_hook(lambda _, inputs, to=seen: to.append(inputs[0])) for block in model.blocks
        ]
        hooks.append(model.output.register_forward_pre_hook(lambda _, inputs, to=seen: to.append(inputs[0])))
        assert not model(draw(3, 3, 4, 6), T, LABEL).any()
        for hook in hooks:
            hook.remove()
        assert len(seen) == 3
        assert all(torch.equal(seen[0], tokens) for tokens in seen[1:])
        assert seen[0].std() > 0.1
        out = model(draw(3, 3, 4, 6), T, LABEL)
        (out - 1).square().mean().backward()
        assert model.output.linear.weight.grad is not None
        assert model.output.linear.weight.grad.any()


def test_published_initialisation() -> None:
    model = DiT(replace(BASE, width=96, size=(4, 4), conditions={"label": Label(200)}))
    state = model.state_dict()
    assert not any(v.any() for name, v in state.items() if name.endswith("bias"))
    assert not state["modulation.linear.weight"].any()
    assert not state["output.linear.weight"].any()
    for name in (
        "conditioner.vectors.label.table.weight",
        "conditioner.time.up.weight",
        "conditioner.time.down.weight",
    ):
        assert state[name].std() == pytest.approx(0.02, rel=0.05), name
    for name in ("embed.weight", "blocks.0.attention.qkv.weight", "blocks.1.mlp.down.weight"):
        rows, columns = state[name].shape
        bound = (6 / (rows + columns)) ** 0.5
        assert 0.98 * bound < state[name].abs().max() <= bound, name
        assert state[name].std() == pytest.approx(bound / 3**0.5, rel=0.05), name


def test_affine_norms_start_as_identity() -> None:
    for norm in (LayerNorm(), RMSNorm()):
        state = DiT(replace(BASE, qk_norm=norm)).state_dict()
        assert state["blocks.0.attention.q_norm.weight"].eq(1).all()


def test_the_same_seed_makes_the_same_weights_and_no_other_random_state_is_touched() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = DiT(BASE, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(321)
    second, third = DiT(BASE, seed=5).state_dict(), DiT(BASE, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embed.weight"], third["embed.weight"])


def test_on_the_meta_device_it_has_shapes_only() -> None:
    with torch.device("meta"):
        model = DiT(BASE)
    assert all(p.is_meta for p in model.parameters())
    assert {n: p.shape for n, p in model.state_dict().items()} == {
        n: p.shape for n, p in DiT(BASE).state_dict().items()
    }


def test_the_state_is_the_parameters() -> None:
    model = model_of(position=Rope(), conditions={"numbers": NUMBERS})
    model(draw(3, 3, 4, 6), T)
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()
    assert not list(model.buffers())


@pytest.mark.parametrize("position", [SinCos(), Rope()])
def test_order_of_the_batch_and_company_in_it_change_nothing(position: Any) -> None:
    model = model_of(position=position)
    x = draw(3, 3, 4, 6)
    whole = model(x, T, LABEL)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model(x[order], T[order], {"label": LABEL["label"][order]}), whole[order])
    for i in range(3):  # each sample alone, at a time of its own
        alone = model(x[i : i + 1], T[i : i + 1], {"label": LABEL["label"][i : i + 1]})
        torch.testing.assert_close(alone, whole[i : i + 1])
    assert not torch.allclose(model(x, T.flip(0), LABEL)[0], whole[0])


@pytest.mark.parametrize(("patch", "space"), [((1,), (7,)), ((1, 2, 2), (2, 4, 6)), ((1, 1, 2, 2), (2, 3, 4, 2))])
@pytest.mark.parametrize("position", [SinCos(), Rope(), SinCosRope()])
def test_any_number_of_axes(patch: tuple[int, ...], space: tuple[int, ...], position: Any) -> None:
    model = model_of(patch=patch, size=space, position=position)
    out = model(draw(2, 3, *space), T[:2], {"label": torch.tensor([1, 2])})
    assert out.shape == (2, 3, *space)
    assert out.std() > 0.05


@pytest.mark.parametrize("position", [None, SinCos(), Rope(), SinCos(interpolate=True), Rope(interpolate=True)])
def test_other_sizes_and_aspects_than_trained_on(position: Any) -> None:
    model = model_of(position=position)
    for space in ((4, 6), (8, 6), (2, 14), (6, 4)):
        assert model(draw(3, 3, *space), T, LABEL).shape == (3, 3, *space)


def test_positions_are_interpolated_only_where_asked_for() -> None:
    x = draw(3, 3, 8, 12)
    for kind in (SinCos, Rope):
        plain, squeezed = (model_of(position=kind(interpolate=i)) for i in (False, True))
        assert not torch.allclose(plain(x, T, LABEL), squeezed(x, T, LABEL))
        assert torch.equal(plain(x[:, :, :4, :6], T, LABEL), squeezed(x[:, :, :4, :6], T, LABEL))


def test_positions_can_keep_the_extent_of_an_earlier_training() -> None:
    """A model of the small grid, and one of twice the size whose coordinates keep the small grid's extent."""
    x = draw(3, 3, 8, 12)
    for kind in (SinCos, Rope):
        small = model_of(position=kind(interpolate=True))
        large = model_of(size=(8, 12), position=kind(interpolate=True, extent=(2, 3)))
        assert torch.equal(large(x, T, LABEL), small(x, T, LABEL))
        assert not torch.allclose(large(x, T, LABEL), model_of(size=(8, 12), position=kind())(x, T, LABEL))


def test_both_positions_at_once_are_the_table_and_the_rotation() -> None:
    x = draw(3, 3, 4, 6)
    both, turned = model_of(position=SinCosRope()), model_of(position=Rope())
    table = sincos_table(coordinates((2, 3)), 24, 10_000.0)
    expected = both(x, T, LABEL)
    assert not torch.allclose(expected, turned(x, T, LABEL))
    turned.embed.register_forward_hook(lambda _module, _inputs, tokens: tokens + table)
    torch.testing.assert_close(expected, turned(x, T, LABEL))
    for other in (SinCos(), SinCosRope(SinCos(50.0), Rope()), SinCosRope(SinCos(), Rope(50.0))):
        assert not torch.allclose(expected, model_of(position=other)(x, T, LABEL))


@pytest.mark.parametrize("position", [None, SinCos(), Rope()])
def test_what_is_masked_has_no_influence(position: Any) -> None:
    model = model_of(position=position)
    mask = torch.ones(3, 4, 6, dtype=torch.bool)
    mask[0, :, 4:] = False  # a column of patches
    mask[1, 0, 0] = False  # a part of a patch
    mask[2, 2:] = mask[2, :, :2] = False
    x = draw(3, 3, 4, 6)
    base = model(x, T, {**LABEL, MASK: mask})
    for garbage in (1e4, float("inf"), float("nan")):
        other = model(torch.where(mask[:, None], x, garbage), T, {**LABEL, MASK: mask})
        assert torch.equal(other.masked_fill(~mask[:, None], 0), base.masked_fill(~mask[:, None], 0))
    assert not torch.allclose(base, model(x, T, LABEL))
    everything = {**LABEL, MASK: torch.ones_like(mask)}
    torch.testing.assert_close(model(x, T, everything), model(x, T, LABEL))


def test_a_sample_in_a_larger_masked_canvas_is_the_sample_itself() -> None:
    x = draw(3, 3, 4, 6)
    for position in (SinCos(), Rope()):
        model = model_of(position=position)
        canvas, mask = torch.zeros(3, 3, 8, 10), torch.zeros(3, 8, 10, dtype=torch.bool)
        canvas[:, :, :4, :6], mask[:, :4, :6] = x, True
        got = model(canvas, T, {**LABEL, MASK: mask})[:, :, :4, :6]
        torch.testing.assert_close(got, model(x, T, LABEL))


def test_with_rope_only_differences_of_places_matter() -> None:
    x = draw(3, 3, 4, 6)
    model = model_of(position=Rope())
    canvas, mask = torch.zeros(3, 3, 8, 10), torch.zeros(3, 8, 10, dtype=torch.bool)
    canvas[:, :, 4:, 2:8], mask[:, 4:, 2:8] = x, True
    got = model(canvas, T, {**LABEL, MASK: mask})[:, :, 4:, 2:8]
    torch.testing.assert_close(got, model(x, T, LABEL), rtol=1e-4, atol=1e-5)


def test_a_set_has_no_order() -> None:
    config = replace(BASE, patch=(1,), size=None, channels=4, position=None)
    model = randomised(DiT(config))
    x, order = draw(3, 4, 7), torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(x[..., order], T, LABEL), model(x, T, LABEL)[..., order])
    ordered = randomised(DiT(replace(config, position=SinCos())))
    assert not torch.allclose(ordered(x[..., order], T, LABEL), ordered(x, T, LABEL)[..., order])


def test_the_norm_before_the_feed_forward_network_can_be_another() -> None:
    x = draw(3, 3, 4, 6)
    same, other = model_of(mlp_norm=LayerNorm()), model_of(mlp_norm=LayerNorm(eps=0.5))
    assert torch.equal(same(x, T, LABEL), model_of()(x, T, LABEL))
    assert not torch.allclose(other(x, T, LABEL), same(x, T, LABEL))


def test_sampling_first_does_not_stop_training() -> None:
    model = model_of(position=Rope(), conditions={"numbers": NUMBERS})
    cond = {"numbers": torch.tensor([[280.0, 1.0]] * 3)}
    with torch.inference_mode():
        sampled = model(draw(3, 3, 4, 6), T, cond)
    out = model(draw(3, 3, 4, 6), T, cond)
    assert torch.equal(out, sampled)
    out.sum().backward()


def test_it_computes_in_the_type_of_its_weights() -> None:
    x, model = draw(3, 3, 4, 6), model_of(position=Rope(), qk_norm=RMSNorm(), conditions={"numbers": NUMBERS})
    cond = {"numbers": torch.tensor([[281.0, 1.0], [270.0, 1.1], [290.0, 0.9]])}
    expected = model(x, T, cond)
    for kind, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.1)):
        got = copy.deepcopy(model).to(kind)(x, T, cond)
        assert got.dtype == kind
        assert (got.double() - expected.double()).norm() / expected.double().norm() < tolerance
    with torch.autocast("cpu", torch.bfloat16):
        got = model(x, T, cond)
    assert (got.double() - expected.double()).norm() / expected.double().norm() < 0.1


@pytest.mark.parametrize(
    ("x", "cond", "message"),
    [
        ((3, 4, 4, 6), LABEL, "channels: got 4, expected 3"),
        ((3, 3, 5, 6), LABEL, r"size: got \(5, 6\), expected multiples"),
        ((3, 3, 4), LABEL, r"size: got \(4,\) \(1 axes\), expected 2 axes"),
        ((3, 3, 4, 6), {"lable": LABEL["label"]}, "cond: got 'lable', expected label, mask"),
    ],
)
def test_refuses_samples_and_conditions_of_another_kind(x: tuple[int, ...], cond: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of()(draw(*x), T, cond)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width: got 0"),
        ({"depth": -1}, "depth: got -1"),
        ({"heads": 5}, "heads: got 5, expected a divisor of width 24"),
        ({"patch": ()}, r"patch: got \(\)"),
        ({"patch": (2, 0)}, r"patch: got \(2, 0\)"),
        ({"channels": 0}, "channels: got 0"),
        ({"size": (4, 5)}, r"size: got \(4, 5\)"),
        ({"position": Rope(), "heads": 8}, "heads: got 3 values a head, expected an even number from 4"),
        ({"position": Rope(), "heads": 12}, "heads: got 2 values a head"),
        ({"position": SinCosRope(), "heads": 12}, "heads: got 2 values a head"),
        ({"position": SinCos(interpolate=True, extent=(2,))}, r"extent: got \(2,\), expected a number for each of 2"),
        ({"conditions": {"mask": Label(3)}}, "conditions: got the name 'mask'"),
        ({"conditions": {"a b": Label(3)}}, "conditions: got the name 'a b'"),
        ({"conditions": {"type": Label(3)}}, "conditions: got the name 'type'"),
        ({"conditions": {"training": Label(3)}}, "conditions: got the name 'training'"),
        ({"conditions": {"a": Text(entry=Cross()), "b": Text(entry=Joint())}}, "conditions: got Cross.* and Joint"),
        ({"conditions": {"a": Text(entry=Joint(dual=1)), "b": Text(entry=Joint())}}, "conditions: got Joint"),
        ({"conditions": {"a": Text(entry=Joint(dual=3))}}, "conditions: got dual 3, expected at most depth 2"),
        ({"position": Learned((2, 2))}, r"size: got \(2, 3\) patches, expected at most position.canvas \(2, 2\)"),
        ({"position": Learned((9,))}, r"size: got \(2, 3\) patches"),
    ],
)
def test_configs_that_make_no_model_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BASE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": None}, "channels: got None, .*resolve the config"),
        ({"size": None, "position": Rope(interpolate=True)}, "size: got None"),
        ({"conditions": {"label": Label()}}, "classes: got None"),
        ({"conditions": {"numbers": Numbers(("a",))}}, "mean, std: got None"),
        ({"conditions": {"near": Field(1)}}, r"near\.mean, std: got None"),
        ({"conditions": {"text": Text(pooled=3)}}, "width: got None"),
        ({"conditions": {"text": Text(width=3, entry=Pooled())}}, "pooled: got None"),
    ],
)
def test_configs_that_wait_for_their_data_make_no_model_yet(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiT(replace(BASE, **change))
