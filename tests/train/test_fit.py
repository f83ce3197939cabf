"""What becomes of one model's weights as the first weights of another, rule by rule."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiT, DiTConfig
from anydit.model.modulation import PerBlock, Shared
from anydit.model.text import Cross, Joint, Text
from anydit.model.tokens import patchify, unpatchify
from anydit.train.fit import KEPT, LEFT, NEW, PART, RESIZED, Row, fitted

OLD = DiTConfig(24, 2, 2, (2, 2), channels=3, size=(4, 6), conditions={"label": Label(3, names=("a", "b", "c"))})
TABLE = "conditioner.vectors.label.table.weight"
FIELD = Field(channels=1, mean=(0.0,), std=(1.0,), dropout=0.1)


def randomised(config: DiTConfig, seed: int = 0) -> DiT:
    model, g = DiT(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    return model


def fit(old: DiTConfig = OLD, **changes: Any) -> tuple[DiT, DiT, dict[str, Row]]:
    """A random model, and another of changed config with what fits of its weights; and what became of each."""
    before = randomised(old)
    after = DiT(replace(old, **changes), seed=7)
    tensors, rows = fitted(old, before.state_dict(), after)
    after.load_state_dict(tensors)
    return before, after, {row.name: row for row in rows}


def others(rows: dict[str, Row]) -> dict[str, str]:
    return {name: row.how for name, row in rows.items() if row.how != KEPT}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_the_same_config_keeps_everything() -> None:
    before, after, rows = fit()
    assert not others(rows)
    state = before.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in after.state_dict().items())


def test_another_size_has_no_weights_of_its_own() -> None:
    assert not others(fit(size=(8, 8))[2])


def test_classes_of_the_same_name_are_kept_and_others_begin_as_the_null() -> None:
    label = Label(4, names=("c", "d", "a", "e"))
    before, after, rows = fit(conditions={"label": label})
    old, new = before.state_dict()[TABLE], after.state_dict()[TABLE]
    assert torch.equal(new, old[[2, 3, 0, 3, 3]])
    assert others(rows) == {TABLE: PART}
    assert rows[TABLE].why == "2 of 4 classes are known, others begin as the null"


@pytest.mark.parametrize("names", [(), ("x", "y", "z")])
def test_as_many_classes_are_kept_by_index_unless_both_have_names(names: tuple[str, ...]) -> None:
    nameless = replace(OLD, conditions={"label": Label(3)})
    before, after, rows = fit(nameless, conditions={"label": Label(3, names=names)})
    assert not others(rows)
    assert torch.equal(after.state_dict()[TABLE], before.state_dict()[TABLE])
    if names:
        _, after, rows = fit(conditions={"label": Label(3, names=names)})
        assert others(rows) == {TABLE: PART}
        assert (after.state_dict()[TABLE] == after.state_dict()[TABLE][3]).all()


def test_another_number_of_classes_without_names_begins_as_the_null() -> None:
    before, after, _ = fit(replace(OLD, conditions={"label": Label(3)}), conditions={"label": Label(5)})
    assert torch.equal(after.state_dict()[TABLE], before.state_dict()[TABLE][[3] * 6])


def test_a_null_that_was_not_learned_is_new_and_one_that_is_not_wanted_goes() -> None:
    before, after, rows = fit(replace(OLD, conditions={"label": Label(3, dropout=0.0)}), conditions={"label": Label(3)})
    old, new = before.state_dict()[TABLE], after.state_dict()[TABLE]
    assert torch.equal(new[:3], old) and torch.equal(new[3], DiT(after.config, seed=7).state_dict()[TABLE][3])
    assert rows[TABLE].how == PART
    before, after, rows = fit(conditions={"label": Label(3, dropout=0.0, names=("a", "b", "c"))})
    assert torch.equal(after.state_dict()[TABLE], before.state_dict()[TABLE][:3])
    assert rows[TABLE].how == PART


def test_a_condition_by_another_name_or_of_another_kind_is_new() -> None:
    _, _, rows = fit(conditions={"kind": Label(3), "label": Numbers(("n",), (0.0,), (1.0,))})
    assert others(rows) == {
        "conditioner.vectors.kind.table.weight": NEW,
        "conditioner.vectors.label.up.weight": NEW,
        "conditioner.vectors.label.up.bias": NEW,
        "conditioner.vectors.label.down.weight": NEW,
        "conditioner.vectors.label.down.bias": NEW,
        "conditioner.vectors.label.unknown": NEW,
        TABLE: LEFT,
    }


def test_more_channels_begin_without_effect_and_fewer_are_left_out() -> None:
    x = draw(2, 5, 4, 6)
    before, after, rows = fit(channels=5)
    assert others(rows) == {"embed.weight": PART, "output.linear.weight": PART, "output.linear.bias": PART}
    assert rows["embed.weight"].why == "3 -> 5 channels"
    args = torch.tensor([0.3, 0.8]), {"label": torch.tensor([0, 2])}
    got = after(x, *args)
    torch.testing.assert_close(got[:, :3], before(x[:, :3], *args))
    assert not got[:, 3:].any()
    before, after, _ = fit(channels=2)
    blank = torch.cat([x[:, :2], torch.zeros_like(x[:, :1])], dim=1)
    torch.testing.assert_close(after(x[:, :2], *args), before(blank, *args)[:, :2])


def test_fields_are_known_by_their_names() -> None:
    conditions = {"low": FIELD, "high": FIELD}
    before, after, rows = fit(replace(OLD, conditions=conditions), conditions={"high": FIELD, "other": FIELD})
    x, high, low = draw(2, 3, 4, 6), draw(2, 1, 4, 6), torch.zeros(2, 1, 4, 6)
    assert rows["embed.weight"].how == PART
    assert rows["embed.weight"].why == "low: 1 -> 0 channels, other: 0 -> 1 channels"
    assert others(rows)["conditioner.fields.other"] == NEW
    t = torch.tensor([0.3, 0.8])
    got = after(x, t, {"high": high, "other": draw(2, 1, 4, 6)})
    torch.testing.assert_close(got, before(x, t, {"high": high, "low": low}))


def stretched(patches: Tensor, channels: int, patch: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Each patch on its own, enlarged by linear interpolation; values channel first."""
    square = patches.reshape(-1, channels, *patch)
    return F.interpolate(square, size=to, mode="bilinear", align_corners=False).reshape(*patches.shape[:2], -1)


@pytest.mark.parametrize("patch", [(4, 4), (4, 2), (3, 6)])
def test_a_sample_enlarged_with_its_patches_gives_the_same_tokens(patch: tuple[int, int]) -> None:
    size = (2 * patch[0], 3 * patch[1])
    before, after, rows = fit(patch=patch, size=size)
    assert others(rows) == {"embed.weight": RESIZED, "output.linear.weight": RESIZED, "output.linear.bias": RESIZED}
    assert rows["embed.weight"].why == f"patch (2, 2) -> {patch}"
    patches = patchify(draw(2, 3, 4, 6), (2, 2))
    torch.testing.assert_close(after.embed(stretched(patches, 3, (2, 2), patch)), before.embed(patches))


@pytest.mark.parametrize("patch", [(4, 4), (4, 2), (3, 6), (1, 1)])
def test_the_output_is_enlarged_with_its_patches(patch: tuple[int, int]) -> None:
    before, after, _ = fit(patch=patch, size=(2 * patch[0], 3 * patch[1]))
    tokens = draw(2, 6, 24)
    old = unpatchify(before.output.linear(tokens), (2, 3), (2, 2))
    new = unpatchify(after.output.linear(tokens), (2, 3), patch)
    expected = stretched(patchify(old, (2, 2)), 3, (2, 2), patch)
    torch.testing.assert_close(patchify(new, patch), expected)


def test_a_patch_that_shrinks_keeps_the_tokens_of_what_is_flat() -> None:
    before, after, _ = fit(patch=(1, 1), size=(2, 3))
    flat = draw(2, 3, 2, 3)
    same = flat.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(after.embed(patchify(flat, (1, 1))), before.embed(patchify(same, (2, 2))))


def test_a_learned_variance_comes_and_goes_without_touching_the_prediction() -> None:
    args = draw(2, 3, 4, 6), torch.tensor([0.3, 0.8]), {"label": torch.tensor([0, 2])}
    before, after, rows = fit(learned_variance=True)
    assert rows["output.linear.weight"].why == "variance: 0 -> 3 channels"
    torch.testing.assert_close(after(*args)[:, :3], before(*args))
    assert not after(*args)[:, 3:].any()
    before, after, _ = fit(replace(OLD, learned_variance=True), learned_variance=False)
    torch.testing.assert_close(after(*args), before(*args)[:, :3])


def test_another_width_is_new_and_another_depth_in_part() -> None:
    _, _, rows = fit(width=48)
    assert {row.how for row in rows.values()} == {NEW}
    _, _, rows = fit(depth=3)
    assert {name for name in others(rows) if not name.startswith("blocks.2.")} == {
        "modulation.linear.weight",
        "modulation.linear.bias",
    }
    _, _, rows = fit(depth=1)
    assert {row.how for name, row in rows.items() if name.startswith("blocks.1.")} == {LEFT}


def test_another_number_of_axes_is_new_where_patches_are_cut() -> None:
    _, _, rows = fit(patch=(2, 2, 2), size=(4, 4, 4))
    assert others(rows) == {"embed.weight": NEW, "output.linear.weight": NEW, "output.linear.bias": NEW}


def test_half_precision_becomes_the_models_own() -> None:
    model = DiT(replace(OLD, conditions={"label": Label(5)}))
    tensors, _ = fitted(OLD, {k: v.bfloat16() for k, v in randomised(OLD).state_dict().items()}, model)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def worded(entry: Cross | Joint, **changes: Any) -> DiTConfig:
    return replace(OLD, conditions={"text": Text(10, 6, entry)}, **changes)


STREAMS = {"attention.qkv", "attention.out", "mlp.up", "mlp.down"}


@pytest.mark.parametrize("modulation", [PerBlock(), Shared()])
@pytest.mark.parametrize("dual", [0, 1])
def test_blocks_are_kept_where_text_enters_in_another_way(modulation: Any, dual: int) -> None:
    """A text with a stream of its own leaves the sample's part of each block, and what modulates it, as it was."""
    alone, joint = replace(OLD, modulation=modulation), worded(Joint(dual=dual), modulation=modulation)
    for a, b in ((alone, joint), (joint, alone)):
        before, after, rows = fit(a, conditions=b.conditions)
        old, new = before.state_dict(), after.state_dict()
        at, to = ("sample." if c is joint else "" for c in (a, b))
        for n in range(2):
            for name in STREAMS:
                assert torch.equal(new[f"blocks.{n}.{to}{name}.weight"], old[f"blocks.{n}.{at}{name}.weight"])
                assert rows[f"blocks.{n}.{to}{name}.weight"].how == KEPT
        c = draw(3, 24)
        (sets, out), (same, same_out) = before.modulation(c), after.modulation(c)
        for x, y in zip(sets, same, strict=True):
            assert torch.equal(x[:, :6], y[:, :6])
        assert torch.equal(out, same_out)
        if b is joint and modulation == PerBlock():
            assert not any(y[:, 6:].any() for y in same)


def test_of_a_joint_model_without_its_text_the_sample_is_left() -> None:
    before, after, rows = fit(worded(Joint(None)), conditions={"label": Label(3)})
    left = {name for name, row in rows.items() if row.how == LEFT}
    assert {name.split(".")[2] for name in left if name.startswith("blocks.")} == {"context"}
    assert after.config.text is None and before.config.text is not None


def test_another_width_of_the_texts_is_new_and_nothing_else() -> None:
    _, _, rows = fit(worded(Cross()), conditions={"text": Text(14, 6, Cross())})
    assert others(rows) == {"conditioner.texts.text.up.weight": NEW}
    _, _, rows = fit(worded(Joint()), conditions={"text": Text(14, 7, Joint(), dropout=0.0)})
    kinds = {"up.weight": NEW, "unknown": LEFT}
    assert others(rows) == {
        f"conditioner.{at}.text.{name}": how for at in ("texts", "vectors") for name, how in kinds.items()
    }


def test_a_model_that_learns_to_read_keeps_all_it_had() -> None:
    before, after, rows = fit(conditions={**OLD.conditions, "text": Text(10, entry=Cross())})
    assert {row.how for row in rows.values()} == {KEPT, NEW}
    assert {name.split(".")[2] for name, row in rows.items() if row.how == NEW and name[0] == "b"} == {"cross"}
    x, t, label = draw(3, 3, 4, 6), torch.tensor([0.1, 0.5, 0.9]), {"label": torch.tensor([0, 1, 2])}
    with torch.no_grad():  # the new attention's product begins at zero
        torch.testing.assert_close(after(x, t, label), before(x, t, label))


@pytest.mark.parametrize("modulation", [PerBlock(), Shared()])
def test_another_depth_keeps_the_blocks_that_both_have(modulation: Any) -> None:
    before, after, rows = fit(replace(OLD, modulation=modulation), depth=3)
    (*_, last), out = after.modulation(c := draw(2, 24))
    sets, same_out = before.modulation(c)
    assert torch.equal(out, same_out)
    assert all(torch.equal(x, y) for x, y in zip(sets, after.modulation(c)[0], strict=False))
    assert modulation == Shared() or not last.any()
    assert rows["modulation.blocks" if modulation == Shared() else "modulation.linear.weight"].how == PART
