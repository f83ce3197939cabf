"""Low-rank adapters by peft: what they train, what they leave alone, and what is saved of them."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anydit.inference.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, load_weights, merged
from anydit.inference.pipeline import load
from anydit.interop.convert import merge, to_diffusers
from anydit.interop.diffusers import MAX_PERIOD
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.model.time import TimeEmbedding
from anydit.train.checkpoint import newest
from anydit.train.loop import train
from anydit.train.lora import LoRA, adapt, share, trained
from anydit.train.start import begun, read_origin
from anydit.weights import load_tensors
from tests.train.test_start import saved, silent, start_of
from tests.train.tiny import losses, state_hash, tiny_with

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers' own imports
    from diffusers import DiTTransformer2DModel

CONFIG = DiTConfig(24, 2, 2, (2, 2), channels=3, size=(4, 6), conditions={"label": Label(5)})
TABLE = "conditioner.vectors.label.table.weight"
TUNED = LoRA(rank=2, alpha=4.0)


def model_of(seed: int = 0) -> DiT:
    model, g = DiT(CONFIG), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.3))
    return model


def adapted(lora: LoRA = TUNED, whole: frozenset[str] = frozenset(), seed: int = 0) -> DiT:
    model = model_of()
    adapt(model, lora, whole, seed)
    return model


def moved(model: DiT) -> DiT:
    """As if it had been trained: everything that is trained is somewhere else."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=g) * 0.2)
    return model


def inputs() -> tuple[Any, ...]:
    x = torch.randn(3, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0.1, 0.5, 0.9]), {"label": torch.tensor([0, 3, 4])}


def test_changes_nothing_at_first_and_stays_a_dit() -> None:
    model = adapted()
    assert type(model) is DiT
    assert torch.equal(model(*inputs()), model_of()(*inputs()))


def test_only_pairs_and_what_is_named_are_trained() -> None:
    names = set(trained(model := adapted(), model))
    products = [f"blocks.{n}.{name}" for n in range(2) for name in TUNED.targets]
    pairs = {f"{name}.lora_{x}.weight" for name in products for x in "AB"}
    assert names == pairs
    more = adapted(replace(TUNED, also=("output.",)), frozenset({TABLE, "blocks.0.attention.qkv.bias"}))
    whole = {TABLE, "blocks.0.attention.qkv.bias", "output.linear.weight", "output.linear.bias"}
    assert set(trained(more, more)) == pairs | whole
    pair = 24 + 72 + 24 + 24 + 2 * (24 + 96)  # rows and columns of the four products
    whole_model = sum(p.numel() for p in model_of().parameters())
    assert share(model).startswith(f"Trains {2 * 2 * pair:,} parameters beside a model of {whole_model:,}: 5.")


@pytest.mark.parametrize("lora", [TUNED, LoRA(rank=3), LoRA(targets=("modulation.linear", "embed"), also=("output",))])
def test_merged_equals_unmerged(lora: LoRA) -> None:
    model = moved(adapted(lora, frozenset({TABLE})))
    plain = DiT(CONFIG)
    plain.load_state_dict(merged(model_of().state_dict(), trained(model, model), lora.scale))
    got, expected = plain(*inputs()), model(*inputs())
    assert (expected - model_of()(*inputs())).norm() > 0.05 * expected.norm()
    assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_merges_as_peft_does() -> None:
    from peft.tuners.lora import Linear

    model = moved(adapted())
    ours = merged(model_of().state_dict(), trained(model, model), TUNED.scale)
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            module.merge()
            torch.testing.assert_close(ours[f"{name}.weight"], module.get_base_layer().weight)


def test_pairs_follow_from_the_seed_and_no_other_random_state_is_touched() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (trained(m, m) for m in (adapted(), adapted(), adapted(seed=1)))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "blocks.1.mlp.up.lora_A.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], first["blocks.0.mlp.up.lora_A.weight"])


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"targets": ("attention.q",)}, r"adapter\.targets: got 'attention\.q', expected ends of names as"),
        ({"also": ("conditioner.text",)}, r"adapter\.also: got 'conditioner\.text', expected starts of names as"),
    ],
)
def test_names_that_are_nowhere_are_refused(lora: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted(LoRA(**lora))


@pytest.mark.parametrize("fields", [{"rank": 0}, {"targets": ()}, {"alpha": 0.0}, {"alpha": float("inf")}])
def test_options_that_adapt_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))}: got"):
        LoRA(**fields)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    return saved(tmp_path_factory.mktemp("base") / "model", conditions={"label": Label(3)})


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run of an adapter."""
    out = tmp_path_factory.mktemp("runs") / "adapted"
    start = start_of(base)
    train(begun(tiny_with(adapter=TUNED), start.origin), out, "cpu", silent, start)
    return out


def test_a_run_saves_what_it_trained_and_nothing_else(base: Path, whole: Path) -> None:
    assert not (whole / "model.safetensors").exists()
    own = load_tensors(whole / ADAPTER_WEIGHTS)
    assert {name for name in own if ".lora_" not in name} == {TABLE}
    found = newest(whole / "checkpoints")
    assert found is not None
    held = found.tensors("model")
    assert len(held) == len(own) == len(found.tensors("ema"))
    assert {key.rpartition(":")[0] for key in found.tensors("optimizer")} == held.keys()
    told = json.loads((whole / ADAPTER_FILE).read_text())
    assert (whole / told["base"]).resolve() == base.resolve()
    assert (own["blocks.0.mlp.up.lora_B.weight"]).any()


def test_opens_as_a_plain_network_and_merges_into_a_folder(whole: Path, tmp_path: Path) -> None:
    pipe = load(whole, "cpu")
    before = load_weights(whole)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipe.model.state_dict().items())
    merge(whole, tmp_path / "merged")
    again = load(tmp_path / "merged", "cpu")
    assert {f.name for f in (tmp_path / "merged").iterdir()} == {"pipeline.json", "model.safetensors"}
    assert torch.equal(again.sample(2, {"label": [1, 9]}), pipe.sample(2, {"label": [1, 9]}))


def test_an_adapter_goes_to_diffusers(tmp_path: Path) -> None:
    """As it is, or merged into a folder before."""
    torch.manual_seed(4)
    start, out = start_of(saved(tmp_path / "base", time=TimeEmbedding(max_period=MAX_PERIOD))), tmp_path / "run"
    fast = replace(tiny_with().train.optimizer, lr=0.05)
    train(begun(tiny_with(adapter=TUNED, steps=3, optimizer=fast), start.origin), out, "cpu", silent, start)
    merge(out, tmp_path / "merged")
    x, index = torch.randn(3, 1, 8, 8), torch.tensor([0, 400, 999])
    label = torch.tensor([0, 5, 9])
    with torch.no_grad():
        expected = load(out, "cpu").model(x, (index + 1) / 1000, {"label": label})
        before = load(tmp_path / "base", "cpu").model(x, (index + 1) / 1000, {"label": label})
        for source in (out, tmp_path / "merged"):
            to_diffusers(source, tmp_path / f"{source.name}-theirs")
            model: Any = DiTTransformer2DModel.from_pretrained(tmp_path / f"{source.name}-theirs" / "transformer")
            got = model(x, timestep=index, class_labels=label).sample
            assert (got - expected).norm() <= 1e-5 * expected.norm()
    assert (before - expected).norm() > 1e-2 * expected.norm()


def test_what_train_returns_is_what_is_saved(base: Path, tmp_path: Path) -> None:
    start = start_of(base)
    pipe = train(begun(tiny_with(adapter=TUNED, steps=2), start.origin), tmp_path / "run", "cpu", silent, start)
    state = load(tmp_path / "run", "cpu").model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in pipe.model.state_dict().items())
    pipe.save(tmp_path / "copy")
    assert torch.equal(load(tmp_path / "copy", "cpu").model.embed.weight, pipe.model.embed.weight)


def test_the_base_is_as_it_was(base: Path, whole: Path) -> None:
    weights, tuned = load_weights(base), load_weights(whole)
    changed = {name for name in tuned if not torch.equal(tuned[name], weights[name])}
    products = {f"blocks.0.{name}.weight" for name in TUNED.targets}
    assert changed == products | {TABLE}


def test_going_on_needs_no_weights_said_again(base: Path, whole: Path, tmp_path: Path) -> None:
    start, out = start_of(base), tmp_path / "run"
    train(begun(tiny_with(adapter=TUNED, steps=4), start.origin), out, "cpu", silent, start)
    origin = read_origin(out)
    assert origin is not None
    train(begun(tiny_with(adapter=TUNED), origin), out, "cpu", silent)
    assert losses(out) == losses(whole)
    assert state_hash(out) == state_hash(whole)


def test_an_adapter_needs_a_whole_model_in_a_folder(base: Path, whole: Path, tmp_path: Path) -> None:
    recipe = tiny_with(adapter=TUNED, steps=1)
    with pytest.raises(ValueError, match=r"train\.adapter: got one without weights to begin with, expected --init"):
        train(recipe, tmp_path / "a", "cpu", silent)
    on_adapter = start_of(whole)
    with pytest.raises(ValueError, match="a folder with whole weights: anydit convert merge"):
        train(begun(recipe, on_adapter.origin), tmp_path / "b", "cpu", silent, on_adapter)
    elsewhere = replace(start_of(base), origin=replace(start_of(base).origin, source=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="anydit convert diffusers"):
        train(begun(recipe, elsewhere.origin), tmp_path / "c", "cpu", silent, elsewhere)


def test_an_adapter_that_cannot_be_built_is_refused_before_any_work(base: Path, tmp_path: Path) -> None:
    start = start_of(base)
    recipe = begun(tiny_with(adapter=LoRA(targets=("nothing",))), start.origin)
    recipe = replace(recipe, model=replace(recipe.model, channels=1, size=(8, 8), conditions={"label": Label(10)}))
    with pytest.raises(ValueError, match=r"train\.adapter\.targets: got 'nothing'"):
        train(recipe, tmp_path / "run", "cpu", silent, start)
    assert not (tmp_path / "run").exists()
