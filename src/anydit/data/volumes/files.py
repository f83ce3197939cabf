"""The volumes in a folder: which files make a sample, read once into mapped files, and the grid they have in common."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Shaped

from anydit.data.absent import check_here, elsewhere
from anydit.data.folders import files_in, state
from anydit.data.kept import INDEX, filling, sweep, used
from anydit.data.outside import OPEN, SHOWN, Unreadable, check_skipped, told
from anydit.data.volumes.medical import (
    NIFTI,
    Scan,
    axes_of,
    is_dicom,
    read_dicom,
    read_nifti,
    respaced,
    series_in,
    spacing_of,
    turned,
)
from anydit.data.volumes.view import SAME, Side, rows_of

VALUES = "values.npy"

SCHEMA = 6
"""Of the mapped files and of how volumes are read into them: another number makes all of them anew."""

WORDS = r"([_.\- /])"
"""What is between the words of a name."""

Size = tuple[int, int, int]


class Prepared(NamedTuple):
    """Volumes `[volumes c i j k]` of one name in a mapped file, and their grid (see `Scan`)."""

    name: str
    file: Path
    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]
    code: int
    unit: str
    quantity: str

    @property
    def size(self) -> Size:
        """Voxels along each axis."""
        return cast("Size", self.shape[2:])


class Source(NamedTuple):
    """The files of one sample, and what makes a scan of them."""

    files: Sequence[Path]
    read: Callable[[], Scan]


@dataclass(frozen=True)
class Reading:
    """How the volumes in a folder, or the one in a file, are read; the fields are those of `Volumes`."""

    path: Path
    channels: tuple[str, ...] = ()
    frames: bool = False
    axes: str | None = None
    spacing: tuple[float, float, float] | None = None
    nan: float | None = None

    def sources(self) -> dict[str, Source]:
        """What each sample is read from, by name."""
        root, (names, _) = self.path, self._found
        if names and self.channels:
            samples = self._by_channel(names)
            return {name: Source([*files.values()], partial(self._channels, files)) for name, files in samples.items()}
        if names:
            return {name: Source([path], partial(self._file, path)) for name, path in names.items()}
        series = series_in(root) if root.is_dir() and not self.channels else {}
        if not series:
            what = "NIfTI files" if self.channels else f"NIfTI files ({', '.join(NIFTI)}) or DICOM series"
            raise ValueError(f"data.path: got {root} without {what}, expected at least one")
        return {name: Source(files, partial(self._series, files)) for name, files in series.items()}

    def passed_over(self) -> str:
        """One sentence on volumes that are not read, by their names or by how they begin: empty if there are none."""
        names, others = self._found
        dicom = sum(map(is_dicom, others)) if names else 0
        said = [f"{dicom} DICOM files, since there are NIfTI files"] if dicom else []
        if self.channels and (unsaid := [name for name in names if len(self._said(name)) != 1]):
            which = ", ".join(unsaid[:SHOWN]) + (", ..." if len(unsaid) > SHOWN else "")
            said.append(f"{len(unsaid)} NIfTI files that name none of data.channels, or several: {which}")
        return f"Passed over {'; '.join(said)}." if said else ""

    @cached_property
    def _found(self) -> tuple[dict[str, Path], list[Path]]:
        """The NIfTI files by name, and all other files; looked for once.

        Raises:
            ValueError: there is no such folder, or file.
        """
        root = self.path
        check_here([root])
        if not root.exists():
            raise ValueError(f"data.path: got {root}, which is not there; expected a folder, or a NIfTI file")
        top, below = (root.parent, [root]) if root.is_file() else (root, files_in(root))
        found = {path.relative_to(top).as_posix(): path for path in below if path.is_file() or path.is_symlink()}
        names = {name: path for name, path in found.items() if name.lower().endswith(NIFTI)}
        return names, [path for name, path in found.items() if name not in names]

    def _said(self, name: str) -> list[str]:
        """The channels that a file names."""
        return [word for word in re.split(WORDS, name) if word in self.channels]

    def _by_channel(self, names: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
        """The files of each sample, by channel; files that name none of the channels are passed over."""
        samples = dict[str, dict[str, Path]]()
        for name, path in names.items():
            said = self._said(name)
            if len(said) == 1:
                key = "".join("*" if word in self.channels else word for word in re.split(WORDS, name))
                samples.setdefault(key, {})[said[0]] = path
        if not samples:
            raise ValueError(f"data.channels: got {self.channels}, expected words of names, as of {min(names)}")
        return samples

    def _file(self, path: Path) -> Scan:
        return self._on_grid(read_nifti(path, self.frames))

    def _series(self, files: Sequence[Path]) -> Scan:
        return self._on_grid(read_dicom(files))

    def _channels(self, files: Mapping[str, Path]) -> Scan:
        """The channels of one sample, on one grid."""
        if missing := [name for name in self.channels if name not in files]:
            raise Unreadable(f"no file for {', '.join(missing)} beside {min(files.values()).name}")
        scans = [read_nifti(files[name], self.frames) for name in self.channels]
        first = scans[0]
        for scan, name in zip(scans, self.channels, strict=True):
            alike = scan.values.shape == first.values.shape and np.allclose(scan.affine, first.affine, atol=1e-3)
            if not alike or scan.unit != first.unit:
                raise Unreadable(f"{files[name].name} lies on another grid than {files[self.channels[0]].name}")
        return self._on_grid(replace(first, values=np.concatenate([scan.values for scan in scans], axis=1)))

    def _on_grid(self, scan: Scan) -> Scan:
        """Turned, with the spacing asked for, all of its values finite."""
        bad = ~np.isfinite(scan.values)
        if bad.any():
            if self.nan is None:
                raise Unreadable(f"NaN or infinity in {int(bad.sum())} voxels, and data.nan does not say what it means")
            scan = replace(scan, values=np.where(bad, np.float32(self.nan), scan.values))
        scan = turned(scan, self.axes) if self.axes else scan
        return respaced(scan, self.spacing) if self.spacing else scan


def prepare(reading: Reading, folder: Path, bad_limit: float) -> tuple[list[Prepared], str]:
    """Every volume as a mapped file in `folder`, where it is read anew if its files changed; and what was skipped.

    When volumes are read, those that have been of no use for long are removed.

    Raises:
        ValueError: too many cannot be used, or the folder cannot be written.
    """
    sources = reading.sources()
    places = {name: folder / _key(reading, source) for name, source in sources.items()}
    missing = [name for name, place in places.items() if not (place / INDEX).is_file()]

    def one(name: str) -> Prepared | tuple[str, str]:
        try:
            return _prepared(name, sources[name], places[name])
        except Unreadable as error:
            return name, next(filter(None, map(elsewhere, sources[name].files)), str(error))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "volumes") as pool:
        found = list(pool.map(one, sources))
    if missing and folder.is_dir():
        sweep(folder)
    skipped = [each for each in found if not isinstance(each, Prepared)]
    check_skipped(skipped, len(found), bad_limit, "volumes")
    kept = [each for each in found if isinstance(each, Prepared)]
    return kept, told(skipped, len(found), "volumes") if skipped else ""


def _key(reading: Reading, source: Source) -> str:
    """Of a sample's files as they are now, read so."""
    states = [(str(file.resolve()), *(state(file) or (None, None))[:2]) for file in source.files]
    how = [SCHEMA, reading.channels, reading.frames, reading.axes, reading.spacing, reading.nan]
    return sha256(json.dumps([how, states]).encode()).hexdigest()[:32]


def _prepared(name: str, source: Source, folder: Path) -> Prepared:
    """One sample's volumes, mapped in a folder of their own; read now if they are not there."""
    if not (folder / INDEX).is_file():
        scan = source.read()
        grid = {"affine": scan.affine.tolist(), "code": scan.code, "unit": scan.unit, "quantity": scan.quantity}
        with filling(folder) as temporary:
            np.save(temporary / VALUES, scan.values)
            (temporary / INDEX).write_text(json.dumps(grid | {"shape": scan.values.shape}), encoding="utf-8")
    used(folder)
    grid: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    affine, shape = np.array(grid["affine"]), tuple(grid["shape"])
    return Prepared(name, folder / VALUES, shape, affine, grid["code"], grid["unit"], grid["quantity"])


@lru_cache(maxsize=OPEN)
def mapped(file: Path) -> Shaped[np.ndarray, "volumes c i j k"]:
    """The volumes in a file, read where they are looked at."""
    return np.load(file, mmap_mode="r", allow_pickle=False)


def common(found: Sequence[Prepared], sizes: str | None) -> dict[str, Any]:
    """What all volumes have in common: code, unit, quantity, as a view has them.

    Raises:
        ValueError: they lie on grids that one model should not see as one; their sizes count, too, unless no field says
            what becomes of different `sizes`.
    """
    first, kinds = found[0], {
        "channels": ("data.channels", lambda one: one.shape[1]),
        "axes to": ("data.axes", lambda one: axes_of(one.affine)),
        "unit": ("data.path", lambda one: one.unit),
        "size": (sizes, lambda one: one.size if sizes else None),
    }  # fmt: skip
    for what, (field, of) in kinds.items():
        for one in found:
            if of(one) != of(first):
                raise ValueError(
                    f"{field}: got volumes of different {what}: {of(first)} in {first.name}, {of(one)} in {one.name}; "
                    "expected all to be alike"
                )
    for one in found:
        if not np.allclose(spacing_of(one.affine), spacing_of(first.affine), rtol=SAME):
            a, b = (" x ".join(f"{s:.4g}" for s in spacing_of(each.affine)) for each in (first, one))
            raise ValueError(
                f"data.spacing: got volumes of different spacing, {a} {first.unit} in {first.name}, {b} in {one.name}; "
                "expected a spacing to bring all to"
            )
    codes, quantities = {one.code for one in found}, {one.quantity for one in found}
    code = codes.pop() if len(codes) == 1 else 0 if 0 in codes else 1
    return {"code": code, "unit": first.unit, "quantity": quantities.pop() if len(quantities) == 1 else ""}


def side_of(found: Sequence[Prepared], regions: Sequence[Sequence[tuple[int, int]]]) -> Side | None:
    """The half of the body in which nearly all of a region of each volume lies; None where that is none, or several."""
    sides = set[Side | None]()
    for one, region in zip(found, regions, strict=True):
        a, b = (
            (one.affine @ [*corner, 1])[0] for corner in zip(*((low, high - 1) for low, high in region), strict=True)
        )
        share = (a + b) / max(abs(a - b), 1e-9)
        sides.add("right" if share > 0.8 else "left" if share < -0.8 else None)
    return sides.pop() if len(sides) == 1 else None


def placed(found: Sequence[Prepared], size: Size, whole: bool, code: int) -> dict[str, Any]:
    """The affine of samples, and the code of its space, as a view has them.

    They are the data's own affine and `code` if samples are `whole` and it is one for all; else the middle of a sample
    is at 0, along the axes, and in no space that a code above 1 names. Axes that are turned alike in all volumes stay
    turned.
    """
    first, spacing = found[0].affine, spacing_of(found[0].affine)
    if whole and all(np.allclose(one.affine, first, atol=1e-3) for one in found):
        return {"affine": rows_of(first), "code": code}
    turn = first[:3, :3]
    if any(not np.allclose(one.affine[:3, :3], turn, rtol=SAME, atol=1e-3) for one in found):
        turn = np.zeros((3, 3))
        for axis, letter in enumerate(axes_of(first)):
            turn["LRPAIS".index(letter) // 2, axis] = spacing[axis] * (1 if letter in "RAS" else -1)
    middle = (np.array(size) - 1) / 2
    return {"affine": rows_of(np.column_stack([turn, -turn @ middle])), "code": min(code, 1)}
