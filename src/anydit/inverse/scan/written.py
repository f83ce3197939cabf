"""What was reconstructed, as files: on the grid and on the scale of what came in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from anydit.data import SliceView, View, VolumeView
from anydit.data.volumes.medical import DICOM, NIFTI, Scan
from anydit.inverse.scan.files import Series
from anydit.inverse.scan.grid import Grid, write_dicom, write_nifti
from anydit.inverse.scan.solve import Solution

NUMPY, PICTURE = ".npy", ".png"
KINDS = (*NIFTI, NUMPY, PICTURE)


@dataclass(frozen=True)
class Origin:
    """Where measurements come from: a scan and how it came to the model's grid, or a spacing alone; and the scale.

    `scale`, `black`: the model's values are `black + scale` times those of the file. `native`: there is no file, or one
    as the model's view writes them.
    """

    series: Series | None = None
    grid: Grid | None = None
    spacing: tuple[float, ...] | None = None
    scale: float = 1.0
    black: float = 0.0
    native: bool = False

    @property
    def dicom(self) -> bool:
        """Whether results are DICOM slices beside those that came in."""
        return self.series is not None and bool(self.series.files)

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


def check_out(out: Path, axes: int, inputs: Sequence[Path] = ()) -> None:
    """Refuse, before anything is drawn, what could not be written, and what would be over what came in.

    Raises:
        ValueError: a name of no kind that is known, NIfTI for samples that are neither slices nor volumes, or files
            beside which or in whose place results would be.
    """
    folder = _is_folder(out)
    if not folder and not out.name.lower().endswith(KINDS):
        kinds = f"FILE{NIFTI[1]}, FILE{NUMPY}, FILE{PICTURE} (the comparison alone), or a folder"
        raise ValueError(f"out: got {out}, expected {kinds}")
    if out.name.lower().endswith(NIFTI) and axes not in (2, 3):
        raise ValueError(f"out: got {out} for samples with {axes} axes, expected {NUMPY}, {PICTURE} or a folder")
    for given in inputs:
        if given.exists() and _over(out, given):
            raise ValueError(f"out: got {out}, whose files would be written over or among {given}, expected another")


def write(solution: Solution, view: View, origin: Origin, picture: Image, out: Path) -> list[Path]:
    """The best guess, how far samples differ, and the comparison; returns the files.

    Beside `NAME.nii.gz` stand `NAME-deviation.nii.gz` and `NAME.png`, and beside a folder of DICOM slices; in any other
    folder are `mean`, `deviation` and `comparison.png`.
    """
    folder, stem = _is_folder(out), _stem(out)
    within = folder and not origin.dicom
    sheet = out / f"comparison{PICTURE}" if within else out.parent / f"{stem}{PICTURE}"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    picture.save(sheet)
    if out.name.lower().endswith(PICTURE):
        return [sheet]
    placed = origin.series is not None or origin.spacing is not None
    end = out.name[len(stem) :] if not folder else NIFTI[1] if placed else NUMPY
    if within and origin.native:
        files = view.write(solution.mean, out, "mean")
    elif folder and origin.dicom:
        assert origin.series is not None
        files = write_dicom(origin.scan(solution.mean, view), origin.series.files, out, "reconstruction")
    else:
        files = [_one(origin, view, solution.mean, out / f"mean{end}" if within else out, spread=False)]
    if solution.deviation is not None:
        at = out / f"deviation{end}" if within else out.parent / f"{stem}-deviation{end}"
        files = [*files, _one(origin, view, solution.deviation, at, spread=True)]
    return [*files, sheet]


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _stem(out: Path) -> str:
    """A name without what says the kind of file."""
    return next((out.name[: -len(end)] for end in KINDS[::-1] if out.name.lower().endswith(end)), out.name)


def _over(out: Path, given: Path) -> bool:
    """Whether `write` would replace a file that is given, or put a series in a folder where another is read from."""
    folder, stem, parent = _is_folder(out), _stem(out), out.parent
    if folder and (given.is_dir() or given.suffix.lower() in DICOM):
        series, into = (given, out.resolve().parents) if given.is_dir() else (given.parent, ())
        return any(place.exists() and place.samefile(series) for place in (out, *into))
    written = [out, *(parent / f"{stem}{end}" for end in (PICTURE, *(f"-deviation{kind}" for kind in KINDS)))]
    if folder:
        names = ("mean.*", "mean-[0-9]*", "deviation.*", "comparison.*")
        written += [file for name in names for file in out.glob(name)]
    return any(file.exists() and file.samefile(given) for file in written)


def _one(origin: Origin, view: View, x: Float[Tensor, "n c *space"], path: Path, *, spread: bool) -> Path:
    """A file of samples on the scale of what came in; `spread`: of differences."""
    if path.suffix.lower() == NUMPY:
        np.save(path, ((x - (0.0 if spread else origin.black)) / origin.scale).numpy())
    else:
        write_nifti(origin.scan(x, view, spread), path, "deviation of samples" if spread else "")
    return path
