"""Beginning a run with the weights of another model, and the record of it that the run keeps."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from anydit.config import Json, config, differences, from_json, to_json
from anydit.diffusion.paths import AnyPath
from anydit.diffusion.predictions import AnyPrediction
from anydit.inference.adapter import Adapter, is_adapter, load_adapter, save_adapter
from anydit.inference.config import PipelineConfig, config_file
from anydit.model.conditioning import Condition
from anydit.model.dit import DiT, DiTConfig
from anydit.model.text import Text
from anydit.model.tokens import Grid, Position, Rope, SinCos, SinCosRope
from anydit.train.fit import KEPT, LEFT, Row, fitted
from anydit.train.lora import LoRA
from anydit.weights import checksum, load_strictly, read_config, write_config

P = TypeVar("P", SinCos, Rope)
R = TypeVar("R", bound=PipelineConfig)
T = TypeVar("T")

INIT_FILE = "init.json"
"""What a run that began with other weights keeps of them: whose they were, and what became of each."""


@config
class Origin:
    """The model that a run's first weights are of. `source`: where it was; `sha256`: of its tensors.

    `path`, `prediction`: None where the source says nothing of them.
    """

    source: str
    sha256: str
    model: DiTConfig
    path: AnyPath | None = None
    prediction: AnyPrediction | None = None


@dataclass(frozen=True)
class Start:
    """Weights to begin with, of the model that `origin` tells of."""

    origin: Origin
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        source: Path | str,
        model: DiTConfig,
        tensors: Mapping[str, Tensor],
        path: AnyPath | None = None,
        prediction: AnyPrediction | None = None,
    ) -> "Start":
        """The weights that were read from `source`."""
        return cls(Origin(str(source), checksum(tensors), model, path, prediction), tensors)


@dataclass(frozen=True)
class Beginning:
    """What a run begins or goes on with, and whose weights it began with; nothing, for most."""

    start: Start | None = None
    origin: Origin | None = None

    @classmethod
    def of(cls, adapter: LoRA | None, out: Path, start: Start | None) -> "Beginning":
        """That of the run in `out`, told to begin with `start`. An adapter always needs its base.

        Raises:
            ValueError: the run began with other weights; or an adapter has no base, its base is none that `anydit.load`
                could open, or it is not there any more.
        """
        if config_file(out).is_file():
            refuse_another(out, start)
        if adapter is None:
            return cls(start, read_origin(out) if start is None else start.origin)
        if start is not None:
            folder = Path(start.origin.source)
            if not config_file(folder).is_file() or is_adapter(folder):
                form = "merge" if is_adapter(folder) else "diffusers"
                raise ValueError(
                    f"init: got {folder} for an adapter, expected a run or a folder with whole weights: "
                    f"anydit convert {form} {folder} --to FOLDER"
                )
            return cls(start, start.origin)
        origin = read_origin(out)
        if origin is None or not is_adapter(out):
            raise ValueError("train.adapter: got one without weights to begin with, expected --init FOLDER beside it")
        return cls(Start(origin, load_adapter(out).base_weights(out)), origin)

    def settled(self, recipe: T) -> T:
        """The recipe, resolved with its data, for what it begins with."""
        if self.origin is None or not isinstance(recipe, PipelineConfig):
            return recipe
        return settled(recipe, self.origin)


def begun(recipe: R, origin: Origin) -> R:
    """`recipe` with the network of `origin`, its path and its prediction, before anything else of it is said anew.

    What the data and the task decide stays the recipe's: channels, size, conditions, a learned variance, and the patch
    where the number of axes is another. Positions keep the extent of the grid that the weights know, and
    texts enter as theirs do.
    """
    own, same_axes = recipe.model, len(recipe.model.patch) == len(origin.model.patch)
    model = replace(
        origin.model,
        patch=origin.model.patch if same_axes else own.patch,
        channels=own.channels,
        size=own.size,
        conditions=_entering(own.conditions, origin.model.conditions),
        position=_stretched(origin.model) if same_axes else own.position,
        learned_variance=own.learned_variance,
    )
    path, prediction = origin.path or recipe.path, origin.prediction or recipe.prediction
    return replace(recipe, model=model, path=path, prediction=prediction)


def settled(recipe: R, origin: Origin) -> R:
    """`recipe`, resolved with its data; on the grid that the weights know, positions are as they were."""
    model, old = recipe.model, origin.model
    if len(model.patch) != len(old.patch) or model.grid != old.grid or model.position != _stretched(old):
        return recipe
    return replace(recipe, model=replace(model, position=old.position))


def take_over(start: Start, model: DiT) -> list[Row]:
    """Put the weights that fit into `model`; returns what became of each, by the rules of `anydit.train.fit`.

    Raises:
        ValueError: no weight of the blocks fits.
    """
    origin = start.origin
    tensors, rows = fitted(origin.model, start.tensors, model)
    if not any(row.how == KEPT and row.name.startswith("blocks.") for row in rows):
        raise ValueError(
            f"init: got {origin.source} with blocks of {_blocks(origin.model)}, expected {_blocks(model.config)}: none "
            "of them fits the recipe's"
        )
    load_strictly(model, tensors, origin.source)
    return rows


def report(origin: Origin, rows: list[Row], recipe: PipelineConfig) -> str:
    """What became of the weights, and what of the model is another now, as a table to read."""
    kept = sum(row.how == KEPT for row in rows)
    left = sum(row.how == LEFT for row in rows)
    lines = [
        f"Begins with {origin.source} (sha256 {origin.sha256[:12]}): "
        f"{kept} of {len(rows) - left} tensors are as they were."
    ]
    groups: dict[tuple[str, ...], int] = {}
    for row in rows:
        if row.how != KEPT:
            name = re.sub(r"\bblocks\.\d+\.", "blocks.*.", row.name)
            key = (row.how, name, f"{_shape(row.was)} -> {_shape(row.now)}", row.why)
            groups[key] = groups.get(key, 0) + 1
    cells = [(how, name if n == 1 else f"{name} ({n})", shapes, why) for (how, name, shapes, why), n in groups.items()]
    cells += [("changed", name, f"{old} -> {new}", "") for name, old, new in _changes(origin, recipe)]
    widths = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
    for row in cells:
        fixed = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"  {fixed}  {row[3]}".rstrip())
    return "\n".join(lines)


def write_start(out: Path, start: Start, rows: list[Row], adapter: LoRA | None) -> None:
    """Keep in the run's folder what it begins with, and for an adapter where its base is, seen from there."""
    table: list[Json] = [{"name": r.name, "how": r.how, "was": r.was, "now": r.now, "why": r.why} for r in rows]
    if adapter is not None and not (is_adapter(out) and load_adapter(out).sha256 == start.origin.sha256):
        base = os.path.relpath(Path(start.origin.source).resolve(), out.resolve())
        save_adapter(out, Adapter(base, start.origin.sha256, adapter.scale))
    write_config(out / INIT_FILE, {"origin": to_json(start.origin), "tensors": table})


def read_origin(out: Path) -> Origin | None:
    """What the run in `out` began with; None where that was nothing.

    Raises:
        ValueError: the record is damaged.
    """
    return from_json(Origin, read_config(out / INIT_FILE).get("origin")) if (out / INIT_FILE).is_file() else None


def refuse_another(out: Path, start: Start | None) -> None:
    """Refuse weights to begin with for a run that began with others."""
    origin = read_origin(out)
    if start is not None and (origin is None or origin.sha256 != start.origin.sha256):
        began = "without any" if origin is None else f"with {origin.source} (sha256 {origin.sha256[:12]})"
        raise ValueError(
            f"init: got {start.origin.source} (sha256 {start.origin.sha256[:12]}), but the run in {out} began {began}; "
            "expected the same or none, or another folder for another run"
        )


def _entering(own: dict[str, Condition], known: Mapping[str, Condition]) -> dict[str, Condition]:
    """A recipe's conditions, whose texts enter as that of the same name which the weights know, or else the first."""
    texts = {name: condition for name, condition in known.items() if isinstance(condition, Text)}
    if not texts:
        return own
    first = next(iter(texts.values()))
    return {
        name: replace(condition, entry=texts.get(name, first).entry) if isinstance(condition, Text) else condition
        for name, condition in own.items()
    }


def _stretched(model: DiTConfig) -> Position | None:
    """A model's position, with the extent of the grid that it was trained on."""
    position, grid = model.position, model.grid
    if isinstance(position, SinCosRope):
        return SinCosRope(_extended(position.table, grid), _extended(position.rope, grid))
    if isinstance(position, SinCos):
        return _extended(position, grid)
    return _extended(position, grid) if isinstance(position, Rope) else position


def _extended(part: P, grid: Grid) -> P:
    return replace(part, interpolate=True, extent=part.extent or grid)


def _blocks(model: DiTConfig) -> str:
    return f"width {model.width}, {model.heads} heads and {model.mlp}"


def _changes(origin: Origin, recipe: PipelineConfig) -> list[tuple[str, object, object]]:
    """What else of the model, its path and its prediction is another than the weights were trained for."""
    pairs = [("model", origin.model, recipe.model), ("path", origin.path, recipe.path)]
    pairs.append(("prediction", origin.prediction, recipe.prediction))
    found = [d for name, a, b in pairs if a is not None for d in differences(to_json(a), to_json(b), name)]
    return [(name, old, new) for name, old, new in found if not name.endswith(".names")]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape))
