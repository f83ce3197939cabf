"""Folders as diffusers writes them: a model's, with its weights in one file or several, and a pipeline's of such."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor

from anydit.config import Json
from anydit.weights import load_tensors, write_atomically

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
OWN = ("scheduler", "transformer")
"""The parts of a pipeline that anydit writes itself."""


def read_model(folder: Path) -> tuple[Json, dict[str, Tensor], Path]:
    """Config and state dict of a model's folder, or of the `transformer` in a pipeline's; and which folder it was.

    Raises:
        ValueError: a file is missing or damaged.
    """
    inner = folder / "transformer" if (folder / "transformer").is_dir() else folder
    about = read_json(inner / CONFIG)
    if not (inner / INDEX).is_file():
        return about, load_tensors(inner / WEIGHTS), inner
    listed = read_json(inner / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in cast("Json", listed).values()):
        raise ValueError(f"{inner / INDEX}: weight_map: expected a file's name for each tensor")
    state = dict[str, Tensor]()
    for name in sorted(set(cast("dict[str, str]", listed).values())):
        if Path(name).name != name:
            raise ValueError(f"{inner / INDEX}: weight_map: got {name!r}, expected a file beside it")
        state |= load_tensors(inner / name)
    return about, state, inner


def write_model(about: Json, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model's folder, its weights as one file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, about)
    write_atomically(folder / WEIGHTS, lambda to: save_file(dict(state), to, metadata={"format": "pt"}))


def write_pipeline(
    folder: Path, kind: str, network: tuple[Json, Mapping[str, Tensor]], scheduler: Json, others: Json
) -> None:
    """Write a pipeline's folder: its network, its scheduler, and an index in which `others` stand too."""
    about, state = network
    write_model(about, state, folder / "transformer")
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    own = {"scheduler": scheduler["_class_name"], "transformer": about["_class_name"]}
    index: Json = {"_class_name": kind, **{part: ["diffusers", name] for part, name in own.items()}, **others}
    write_json(folder / "model_index.json", index)


def other_parts(folder: Path) -> Json:
    """What a pipeline's index says of its parts beside network and scheduler, which all have to be there.

    Raises:
        ValueError: there is no index, or a part of it is not there.
    """
    index = read_json(folder / "model_index.json")
    parts = {name: said for name, said in index.items() if isinstance(said, list) and name not in OWN}
    for name, said in parts.items():
        if said != [None, None] and (Path(name).name != name or not (folder / name).is_dir()):
            raise ValueError(f"{folder / 'model_index.json'}: {name}: expected a folder of that name beside it")
    return parts


def copy_parts(parts: Json, source: Path, to: Path) -> None:
    """Copy a pipeline's parts, as `other_parts` tells of them."""
    for name, said in parts.items():
        if said != [None, None]:
            shutil.copytree(source / name, to / name)


def read_json(file: Path) -> Json:
    """The object in a JSON file.

    Raises:
        ValueError: it is missing, damaged, or holds something else.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"path: got {file.parent}, which has no {file.name}; expected a folder of diffusers") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: got a {type(content).__name__}, expected an object")
    return cast("Json", content)


def write_json(file: Path, content: Json) -> None:
    """Write an object as JSON, all or nothing."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(file, lambda to: to.write_text(text, encoding="utf-8"))


def checked(about: Json, kinds: Sequence[str], fixed: Json, sizes: Json, known: Json, source: object) -> Json:
    """A model's config with defaults filled in.

    `kinds`: classes that it may be of. `fixed`: options of which there is one value only. `sizes`: what has to be a
    positive whole number. `known`: other options. Each comes with its default; any more may be there unset.

    Raises:
        ValueError: names every option that is something else.
    """
    if about.get("_class_name") not in kinds:
        raise ValueError(f"_class_name: {source} has {about.get('_class_name')!r}, expected {kinds[0]!r}")
    got: Json = {**fixed, **sizes, **known, **about}
    listed = {*fixed, *sizes, *known}
    faults = [f"{k}: got {v!r}, expected none" for k, v in got.items() if k not in listed and k[0] != "_" and v]
    faults += [f"{k}: got {got[k]!r}, expected {v!r}" for k, v in fixed.items() if got[k] != v]
    for key in sizes:
        if not isinstance(got[key], int) or isinstance(got[key], bool) or got[key] < 1:
            faults.append(f"{key}: got {got[key]!r}, expected a positive number")
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")
    return got
