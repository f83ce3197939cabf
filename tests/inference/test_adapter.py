"""Adapters: merged with a base that is where it was and what it was."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anydit.codecs import Normalize
from anydit.inference.adapter import (
    ADAPTER_FILE,
    ADAPTER_WEIGHTS,
    Adapter,
    load_adapter,
    load_weights,
    merged,
    save_adapter,
)
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline, load
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.weights import WEIGHTS_FILE, checksum, load_tensors, save_tensors

MODEL = DiTConfig(16, 1, 2, (2, 2), channels=1, size=(4, 4), conditions={"label": Label(3)})
QKV, TABLE = "blocks.0.attention.qkv", "conditioner.vectors.label.table.weight"


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def own() -> dict[str, torch.Tensor]:
    """Weights of an adapter: a pair, and a table of classes that takes the place of another one's."""
    return {f"{QKV}.lora_A.weight": drawn(2, 16), f"{QKV}.lora_B.weight": drawn(48, 2), TABLE: drawn(6, 16)}


@pytest.fixture
def adapted(tmp_path: Path, own: dict[str, torch.Tensor]) -> Path:
    """A folder with an adapter of five classes, beside its base of three in another folder."""
    Pipeline(PipelineConfig(model=MODEL, codec=Normalize((0.0,), (1.0,)))).save(tmp_path / "models" / "base")
    more = replace(MODEL, conditions={"label": Label(5)})
    folder = tmp_path / "runs" / "adapted"
    Pipeline(PipelineConfig(model=more, codec=Normalize((0.0,), (1.0,)))).save(folder)
    id = str(load_id(folder))
    (folder / WEIGHTS_FILE).unlink()
    base = load_weights(tmp_path / "models" / "base")
    save_adapter(folder, Adapter("../../models/base", checksum(base), 0.5))
    save_tensors(folder / ADAPTER_WEIGHTS, own, id)
    return folder


def load_id(folder: Path) -> str | None:
    from anydit.weights import read_id

    return read_id(folder / "pipeline.json")


def test_opens_merged(adapted: Path, own: dict[str, torch.Tensor]) -> None:
    base = load_weights(adapted / "../../models/base")
    state = load(adapted, "cpu").model.state_dict()
    change = 0.5 * own[f"{QKV}.lora_B.weight"] @ own[f"{QKV}.lora_A.weight"]
    torch.testing.assert_close(state[f"{QKV}.weight"], base[f"{QKV}.weight"] + change)
    assert torch.equal(state[TABLE], own[TABLE])
    others = state.keys() - {f"{QKV}.weight", TABLE}
    assert all(torch.equal(state[name], base[name]) for name in others)
    assert load_adapter(adapted).scale == 0.5


def test_merging_leaves_base_and_adapter_as_they_are(own: dict[str, torch.Tensor]) -> None:
    base = {f"{QKV}.weight": drawn(48, 16), TABLE: drawn(4, 16)}
    before = {name: tensor.clone() for name, tensor in base.items()}
    out = merged(base, own, 1.0)
    assert out.keys() == base.keys()
    assert all(torch.equal(base[name], before[name]) for name in base)


def test_a_base_that_has_gone_is_refused(adapted: Path) -> None:
    (adapted / "../../models/base").resolve().rename(adapted / "../../models/moved")
    with pytest.raises(ValueError, match=r"adapter\.base: got \.\./\.\./models/base, where no model is; expected the"):
        load(adapted, "cpu")


def test_a_base_that_is_another_is_refused(adapted: Path) -> None:
    base = adapted / "../../models/base"
    other = Pipeline(PipelineConfig(model=MODEL, codec=Normalize((0.0,), (1.0,))))
    with torch.no_grad():
        other.model.embed.weight.add_(1e-3)
    other.save(base)
    with pytest.raises(ValueError, match=r"with other weights \(another sha256\).*adapter\.json"):
        load(adapted, "cpu")


def test_weights_of_another_adapter_are_refused(adapted: Path) -> None:
    tensors = load_tensors(adapted / ADAPTER_WEIGHTS)
    save_tensors(adapted / ADAPTER_WEIGHTS, tensors, "another id")
    with pytest.raises(ValueError, match="they are of another model"):
        load(adapted, "cpu")


def test_a_record_that_is_damaged_is_refused(adapted: Path) -> None:
    (adapted / ADAPTER_FILE).write_text('{"schema": 1, "base": "../../models/base"}')
    with pytest.raises(ValueError, match="sha256"):
        load(adapted, "cpu")
