"""Weights on disk: strict loading, damage found, atomic writing, versions of the JSON beside them."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anydit import weights
from anydit.weights import (
    SCHEMA,
    identify,
    load_beside,
    load_strictly,
    load_tensors,
    read_config,
    read_id,
    save_tensors,
    sha256,
    write_atomically,
    write_config,
)


def tensors() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.tensor([1.0, -2.0, 0.5])}


def test_round_trip_is_exact_and_may_be_strided(tmp_path: Path) -> None:
    kinds = {"half": torch.randn(3).half(), "index": torch.arange(4), "flag": torch.tensor([True, False])}
    strided = {"t": torch.randn(4, 3).T, "parameter": nn.Parameter(torch.randn(2))}
    save_tensors(tmp_path / "a.safetensors", {**kinds, **strided})
    got = load_tensors(tmp_path / "a.safetensors")
    assert got.keys() == {*kinds, *strided}
    assert all(torch.equal(got[n], v) and got[n].dtype == v.dtype for n, v in {**kinds, **strided}.items())


def test_strict_loading_copies_into_the_module() -> None:
    module = nn.Linear(2, 3)
    load_strictly(module, {n: v.half() for n, v in tensors().items()}, "here")
    assert torch.equal(module.weight, tensors()["weight"])
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, r"here does not fit the model: missing bias \(3,\)"),
        ({"scale": torch.zeros(2)}, r"unexpected scale \(2,\)"),
        ({"weight": torch.zeros(2, 3)}, r"weight: got \(2, 3\) torch.float32, expected \(3, 2\)"),
        ({"bias": torch.zeros(3, dtype=torch.long)}, r"bias: got \(3,\) torch.int64, expected \(3,\) torch.float32"),
    ],
)
def test_strict_loading_refuses_what_does_not_fit(change: dict[str, torch.Tensor | None], message: str) -> None:
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    given = {n: v for n, v in {**tensors(), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        load_strictly(module, given, "here")
    assert torch.equal(module.weight, before)


def test_a_long_list_of_faults_is_cut() -> None:
    with pytest.raises(ValueError, match=r"and 4 more$"):
        load_strictly(nn.Linear(2, 3), {f"w{i}": torch.zeros(1) for i in range(10)}, "here")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_tensors(file, tensors())
    whole = file.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    cases = {
        "truncated": whole[:-1],
        "only a header": whole[: 8 + header],
        "half a header": whole[:20],
        "seven bytes": whole[:7],
        "nothing": b"",
        "text": b"weights: none, sorry" * 10,
        "a header as long as the world": struct.pack("<Q", 2**63) + whole[8:],
        "a header longer than the file": struct.pack("<Q", len(whole)) + whole[8:],
        "a header that is no JSON": whole[:8] + b"x" * header + whole[8 + header :],
    }
    for name, content in cases.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights: .*a\.safetensors") as error:
            load_tensors(file)
        assert "\n" not in str(error.value), name
    with pytest.raises(ValueError, match=r"weights: got .*, which does not exist"):
        load_tensors(tmp_path / "none.safetensors")


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_tensors(file, tensors())
    before = sha256(file)

    def fail(to: Path) -> None:
        to.write_bytes(b"half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, fail)
    assert sha256(file) == before
    assert [f.name for f in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failure_after_writing_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(stage)

    with monkeypatch.context() as patch:
        patch.setattr(*((weights, "fsync") if stage == "fsync" else (Path, "replace")), fail)
        with pytest.raises(OSError, match=stage):
            write_atomically(file, lambda to: to.write_text("new"))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    write_atomically(file, lambda to: to.write_text("new"))
    assert file.read_text() == "new"


def test_sha256_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_config_round_trip_carries_the_schema(tmp_path: Path) -> None:
    write_config(tmp_path / "c.json", {"a": [1, {"b": "ü"}]})
    assert json.loads((tmp_path / "c.json").read_text())["schema"] == SCHEMA
    assert read_config(tmp_path / "c.json") == {"a": [1, {"b": "ü"}]}


def test_older_schemas_are_migrated_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SCHEMA", 3)
    monkeypatch.setattr(
        weights,
        "MIGRATIONS",
        {1: lambda old: {"dim": old["hidden"]}, 2: lambda old: {"width": old["dim"]}},
    )
    for version, name in ((1, "hidden"), (2, "dim"), (3, "width")):
        (tmp_path / "c.json").write_text(json.dumps({"schema": version, name: 7}))
        assert read_config(tmp_path / "c.json") == {"width": 7}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[1]", "schema: got None, expected 1 to"),
        (b'{"a": 1}', "schema: got None, expected 1 to"),
        (b'{"schema": "1"}', "schema: got '1'"),
        (b'{"schema": 999}', "schema: got 999, .*newer anydit"),
        (b'{"schema": 0}', "schema: got 0"),
    ],
)
def test_unreadable_configs_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "c.json")


def test_a_missing_config_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no c\.json; expected a run or an exported folder"):
        read_config(tmp_path / "c.json")


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without changing the umask, which all threads share; nor does it matter what a killed process left."""

    def changed(_: int) -> int:
        raise AssertionError("the umask is the whole process's")

    monkeypatch.setattr(os, "umask", changed)
    left = tmp_path / f".w.safetensors.{os.getpid()}.tmp"
    left.touch(0o600)
    save_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(1)})
    (tmp_path / "plain").write_text("", encoding="utf-8")
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.fault("T8")
def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    """In the tensors, in their names, in the checksum itself: no bit of the file may be another."""
    file = tmp_path / "a.safetensors"
    save_tensors(file, tensors(), "0123abcd")
    write_config(tmp_path / "c.json", {}, "0123abcd")
    whole, expected = file.read_bytes(), load_beside(tmp_path / "c.json", file.name)
    silent = list[int]()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        try:
            got = load_beside(tmp_path / "c.json", file.name)
        except ValueError as error:
            assert "a.safetensors" in str(error)
            continue
        if got.keys() != expected.keys() or not all(torch.equal(got[n], v) for n, v in expected.items()):
            silent.append(bit)
    assert not silent


def test_a_checksum_is_of_names_types_shapes_and_values() -> None:
    sums = {
        weights.checksum(made)
        for made in (
            {"a": torch.zeros(2, 3), "b": torch.ones(1)},
            {"a": torch.zeros(3, 2), "b": torch.ones(1)},
            {"b": torch.zeros(2, 3), "a": torch.ones(1)},
            {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
            {"a": torch.zeros(2, 3), "b": torch.tensor([1.0001])},
        )
    }
    assert len(sums) == 5
    strided = {"b": torch.ones(1), "a": torch.zeros(3, 2).T}
    assert weights.checksum(strided) in sums


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.bool, torch.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_every_kind_of_tensor_has_a_checksum(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    value = torch.ones(shape, dtype=dtype)
    save_tensors(tmp_path / "a.safetensors", {"x": value})
    assert torch.equal(load_tensors(tmp_path / "a.safetensors")["x"], value)


def test_config_and_weights_of_two_folders_do_not_mix(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        content, id = {"heads": name}, identify({"heads": name}, tensors())
        write_config(tmp_path / name / "c.json", content, id)
        save_tensors(tmp_path / name / "a.safetensors", tensors(), id)
        assert read_config(tmp_path / name / "c.json") == content and read_id(tmp_path / name / "c.json") == id
        assert load_beside(tmp_path / name / "c.json", "a.safetensors").keys() == tensors().keys()
    (tmp_path / "one" / "a.safetensors").replace(tmp_path / "two" / "a.safetensors")
    with pytest.raises(ValueError, match=r"two/a\.safetensors of the id \w+, expected \w+, as c\.json has"):
        load_beside(tmp_path / "two" / "c.json", "a.safetensors")


def test_folders_of_before_there_were_ids_open(tmp_path: Path) -> None:
    write_config(tmp_path / "c.json", {})
    save_file(tensors(), tmp_path / "a.safetensors")
    assert load_beside(tmp_path / "c.json", "a.safetensors").keys() == tensors().keys()
    assert read_id(tmp_path / "c.json") is None
    write_config(tmp_path / "c.json", {}, "new")
    with pytest.raises(ValueError, match=r"of the id None, expected new"):
        load_beside(tmp_path / "c.json", "a.safetensors")


def test_an_id_is_of_the_content_and_the_weights() -> None:
    other = {**tensors(), "bias": torch.zeros(3)}
    ids = {identify({"a": 1}), identify({"a": 2}), identify({"a": 1}, tensors()), identify({"a": 1}, other)}
    assert len(ids) == 4
    assert identify({"a": 1, "b": 2}, tensors()) == identify({"b": 2, "a": 1}, tensors())
