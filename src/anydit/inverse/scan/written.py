"""What was reconstructed, as files: on the grid and on the scale of what came in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from anydit.data import SliceView, View, VolumeView
from anydit.data.volumes.medical import NIFTI, Scan
from anydit.inverse.scan.files import Series
from anydit.inverse.scan.grid import Grid, write_dicom, write_nifti
from anydit.inverse.scan.solve import Solution

NUMPY, PICTURE = ".npy", ".png"
KINDS = (*NIFTI, NUMPY, PICTURE)


@dataclass(frozen=True)
class Origin:
    """Where measurements come from: a scan and how it came to the model's grid, or a spacing alone; and the scale.

    `scale`, `black`: the model's values are `black + scale` times those of the file.
    """

    series: Series | None = None
    grid: Grid | None = None
    spacing: tuple[float, ...] | None = None
    scale: float = 1.0
    black: float = 0.0

    def scan(self, x: Float[Tensor, "n c *space"], view: View, spread: bool = False) -> Scan:
        """Samples on the scan's own grid, or where there is none, one slice after the other.

        `spread`: these are differences, which have no black.
        """
        black = 0.0 if spread else self.black
        values = (x - black) / self.scale
        if self.series is not None and self.grid is not None:
            air = float(self.series.scan.values.min()) if view.bounds is None else view.bounds[0] / self.scale
            low = 0.0 if spread else air
            return self.grid.back(values, self.series.scan, low)
        own = view if isinstance(view, VolumeView) else VolumeView()
        array = values.numpy()
        if array.ndim == 4:
            array = np.moveaxis(array, 0, -1 if not isinstance(own, SliceView) else own.across + 1)[None]
        affine = own.matrix if self.spacing is None else np.diag([*self.spacing, 1.0])
        unit = "mm" if self.spacing is not None else own.unit or "unknown"
        return Scan(array, affine, 0, unit, own.quantity or "")


def check_out(out: Path, axes: int) -> None:
    """Refuse, before anything is drawn, what could not be written.

    Raises:
        ValueError: a name of no kind that is known, or NIfTI for samples that are neither slices nor volumes.
    """
    folder = out.is_dir() or not out.suffix
    if not folder and not out.name.lower().endswith(KINDS):
        kinds = f"FILE{NIFTI[1]}, FILE{NUMPY}, FILE{PICTURE} (the comparison alone), or a folder"
        raise ValueError(f"out: got {out}, expected {kinds}")
    if out.name.lower().endswith(NIFTI) and axes not in (2, 3):
        raise ValueError(f"out: got {out} for samples with {axes} axes, expected {NUMPY}, {PICTURE} or a folder")


def write(solution: Solution, view: View, origin: Origin, picture: object, out: Path) -> list[Path]:
    """The best guess, the samples' deviation beside it (`NAME-deviation`), and the comparison; returns the files."""
    from PIL import Image

    assert isinstance(picture, Image.Image)
    folder = out.is_dir() or not out.suffix
    stem = next((out.name[: -len(end)] for end in KINDS[::-1] if out.name.lower().endswith(end)), out.name)
    beside = out.parent if not folder or _is_dicom(origin) else out
    beside.mkdir(parents=True, exist_ok=True)
    named = stem if beside == out.parent else "comparison"
    sheet = beside / f"{named}{PICTURE}"
    picture.save(sheet)
    if out.name.lower().endswith(PICTURE):
        return [sheet]
    mean, deviation = solution.mean, solution.deviation
    if folder and origin.series is not None and not _is_dicom(origin):
        files = _one(origin, view, mean, out / f"mean{NIFTI[1]}", False)
        spread = [] if deviation is None else _one(origin, view, deviation, out / f"deviation{NIFTI[1]}", True)
        return [*files, *spread, sheet]
    if folder and not _is_dicom(origin):
        files = view.write(mean, out, "mean")
        spread = [] if deviation is None else _arrays(deviation, out / f"deviation{NUMPY}")
        return [*files, *spread, sheet]
    if folder:
        assert origin.series is not None
        files = write_dicom(origin.scan(mean, view), origin.series.files, out, "reconstruction")
        end = NIFTI[1]
    else:
        end = out.name[len(stem) :]
        files = _one(origin, view, mean, out, False)
    spread = [] if deviation is None else _one(origin, view, deviation, beside / f"{stem}-deviation{end}", True)
    return [*files, *spread, sheet]


def _one(origin: Origin, view: View, x: Float[Tensor, "n c *space"], path: Path, spread: bool) -> list[Path]:
    if path.suffix.lower() == NUMPY:
        return _arrays((x - (0.0 if spread else origin.black)) / origin.scale, path)
    write_nifti(origin.scan(x, view, spread), path, "deviation of samples" if spread else "")
    return [path]


def _arrays(x: Float[Tensor, "n c *space"], path: Path) -> list[Path]:
    np.save(path, x.numpy())
    return [path]


def _is_dicom(origin: Origin) -> bool:
    return origin.series is not None and bool(origin.series.files)
