"""A folder of weights: a JSON config beside safetensors, written atomically, loaded strictly, checked by sha256."""

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anydit.config import Json

SCHEMA = 1
"""Version of every JSON file that anydit writes; raised when a reader of the old form would misread the new."""

MIGRATIONS: dict[int, Callable[[Json], Json]] = {}
"""For each older schema version, the function that makes its content into the next version's."""

RUN_FILE, EXPORT_FILE = "recipe.json", "pipeline.json"
"""The config in a run's folder, and in an exported folder."""

WEIGHTS_FILE, CODEC_FILE = "model.safetensors", "codec.safetensors"
"""The weights beside it: the network's, and the codec's if it has any."""

HEADER_LIMIT_BYTES = 64 * 2**20

ABOUT, ID, CHECKSUM = "anydit", "id", "sha256"
"""In a header of safetensors: what we say of its tensors, the id of the config that they go with, their checksum. These
stand in the file itself, so that writing it stays one step, and no crash can part them."""


def sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file beside `path`, then put it in place at once, on disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # a killed process of this number has left it
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # what the umask leaves to others, from whom safetensors would keep it
        write(temporary)
        temporary.chmod(mode)
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left of `write_atomically` in a folder, in which no other process may write now."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as they are.

    Raises:
        OSError: the disk is full or cannot be written; safetensors has an error of its own for that.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def fsync(path: Path) -> None:
    """Force a file's, or a folder's, content to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """The hexadecimal sha256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def identify(content: Json, *weights: Mapping[str, Tensor]) -> str:
    """An id for a config and the weights that go with it: the same for the same ones."""
    parts = [json.dumps(content, sort_keys=True), *map(checksum, weights)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], id: str | None = None) -> None:
    """Write tensors as one safetensors file with their checksum, atomically. `id`: of the config that they go with."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {ID: id, CHECKSUM: checksum(plain)}
    # One entry: safetensors writes several in no order, and the same content should be the same file.
    write_atomically(path, lambda to: write_safetensors(to, plain, {ABOUT: json.dumps(about)}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; its checksum is compared where it has one, as others' files have not.

    Raises:
        ValueError: it is missing, cut short, damaged, or not in the format.
    """
    return _read(path)[0]


def load_beside(config: Path, name: str) -> dict[str, Tensor]:
    """Read the weights called `name` in the folder of a config, which were written with it.

    Raises:
        ValueError: as `load_tensors`, or they were written with another config.
    """
    path, id = config.with_name(name), _json(config).get(ID)
    tensors, about = _read(path)
    if about.get(ID) != id:
        raise ValueError(
            f"weights: got {path} of the id {about.get(ID)}, expected {id}, as {config.name} has: they are of another "
            "model, or only one of the two files was copied; copy whole folders"
        )
    return tensors


def _read(path: Path) -> tuple[dict[str, Tensor], Json]:
    """A safetensors file's tensors, checked, and what we said of them, if it is ours."""
    if not path.is_file():
        raise ValueError(f"weights: got {path}, which does not exist; expected a safetensors file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
    if length > min(size, HEADER_LIMIT_BYTES):
        raise ValueError(f"weights: {path} is not a safetensors file (its header claims {length} of {size} bytes)")
    try:
        with safe_open(path, "pt") as opened:
            about: Json = dict(json.loads((opened.metadata() or {}).get(ABOUT, "{}")))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a mapping
    except Exception as error:  # safetensors has one exception class, which it does not export by a stable name
        raise ValueError(f"weights: {path} cannot be read as safetensors: {error}") from None
    if CHECKSUM in about and about[CHECKSUM] != checksum(tensors):
        raise ValueError(f"weights: {path} is damaged: its tensors have another sha256 than when they were written")
    return tensors, about


def load_strictly(module: nn.Module | Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: object) -> None:
    """Copy `tensors` into `module`: every key and shape must fit, and floats stay floats (of the module's own width).

    `module` may be named tensors, too.

    Raises:
        ValueError: lists what is missing, what is extra and what has another shape or kind.
    """
    own = module.state_dict() if isinstance(module, nn.Module) else module
    faults = [f"missing {name} {tuple(own[name].shape)}" for name in own.keys() - tensors.keys()]
    faults += [f"unexpected {name} {tuple(tensors[name].shape)}" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        a, b = own[name], tensors[name]
        if a.shape != b.shape or a.is_floating_point() != b.is_floating_point():
            faults.append(f"{name}: got {tuple(b.shape)} {b.dtype}, expected {tuple(a.shape)} {a.dtype}")
    if faults:
        more = f" and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise ValueError(f"weights: {source} does not fit the model: {'; '.join(sorted(faults)[:8])}{more}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def write_config(path: Path, content: Json, id: str | None = None) -> None:
    """Write a JSON object with the schema version, and the `id` that its weights carry too, atomically."""
    head: Json = {"schema": SCHEMA} | ({} if id is None else {ID: id})
    text = json.dumps(head | content, indent=2) + "\n"
    write_atomically(path, lambda to: to.write_text(text, encoding="utf-8"))


def read_id(path: Path) -> str | None:
    """The id in what `write_config` wrote; None where it has none, as before there were ids."""
    return _json(path).get(ID)


def read_config(path: Path) -> Json:
    """Read what `write_config` wrote, of this schema version or an older one, without the version and the id.

    Raises:
        ValueError: the file is missing, is not JSON, or is of a schema that this release does not know.
    """
    fields = _json(path)
    version = fields.pop("schema", None)
    fields.pop(ID, None)
    if not isinstance(version, int) or not 1 <= version <= SCHEMA:
        raise ValueError(f"{path}: schema: got {version!r}, expected 1 to {SCHEMA}; a newer anydit may have written it")
    for step in range(version, SCHEMA):
        fields = MIGRATIONS[step](fields)
    return fields


def _json(path: Path) -> Json:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        folder = "a run or an exported folder"
        raise ValueError(f"path: got {path.parent}, which has no {path.name}; expected {folder}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    return dict(cast("Json", content)) if isinstance(content, dict) else {}
