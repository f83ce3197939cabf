"""What was reconstructed, as files: on the grid and on the scale of what came in."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from anydit.data import SliceView, View, VolumeView
from anydit.data.fields.files import WRITTEN_AS
from anydit.data.volumes.medical import DICOM, NIFTI, Scan
from anydit.inverse.scan.files import Series
from anydit.inverse.scan.grid import Grid, described, write_dicom, write_nifti
from anydit.inverse.scan.own import WRITTEN, ending_like, endings, is_own, write_own
from anydit.inverse.scan.place import Place, Turn
from anydit.inverse.scan.solve import Solution

NUMPY, PICTURE = ".npy", ".png"
KINDS = (*NIFTI, NUMPY, PICTURE, *WRITTEN)

SERIES, SLICE = "reconstruction", re.compile(r"\d{5,}\.dcm")
"""How a series of slices is described, and how their files are named."""

RESULTS = ("mean.*", "mean-[0-9]*", "deviation.*", "deviation-[0-9]*")
"""Names of results in a folder."""


@dataclass(frozen=True)
class Origin:
    """Where measurements come from: a scan and how it came to the model's grid, or the place of samples; and the scale.

    `turn`: of samples, to the axes of what was measured. `scale`, `black`: the model's values are `black + scale` times
    those of the file. `native`: there is no file, or one as the model's view writes them; `view`: at the file's time.
    """

    series: Series | None = None
    grid: Grid | None = None
    place: Place | None = None
    turn: Turn = field(default_factory=Turn)
    scale: float = 1.0
    black: float = 0.0
    native: bool = False
    view: View | None = None

    @property
    def dicom(self) -> bool:
        """Whether results are DICOM slices beside those that came in."""
        return self.series is not None and bool(self.series.files)

    def values(self, x: Float[Tensor, "n c *space"], spread: bool = False) -> Float[Tensor, "n c *own"]:
        """Samples in the numbers and along the axes of what came in; `spread`: these are differences, without black."""
        return self.turn.back((x - (0.0 if spread else self.black)) / self.scale)

    def scan(self, x: Float[Tensor, "n c *space"], view: View, spread: bool = False) -> Scan:
        """Samples on the scan's own grid, or where there is none, one slice or volume after the other."""
        values = self.values(x, spread)
        if self.series is not None and self.grid is not None:
            air = float(self.series.scan.values.min()) if view.bounds is None else view.bounds[0] / self.scale
            low = 0.0 if spread else air
            return self.grid.back(values, self.series.scan, low)
        own = view if isinstance(view, VolumeView) else VolumeView()
        array = values.numpy()
        if array.ndim == 4:
            across = own.across if isinstance(own, SliceView) and self.place is None else 2
            array = np.moveaxis(array, 0, across + 1)[None]
        else:
            array = array.reshape(1, -1, *array.shape[2:])
        if self.place is None:
            return Scan(array, own.matrix, 0, own.unit or "unknown", own.quantity or "")
        return Scan(array, self.place.affine, self.place.code, "mm", own.quantity or "")


def check_out(out: Path, axes: int, inputs: Sequence[Path] = (), view: View | None = None) -> None:
    """Refuse, before anything is drawn, what could not be written, and what would be over what came in.

    Raises:
        ValueError: a name of no kind that is known, NIfTI for samples that are neither slices nor volumes, a file of
            fields for others, files beside which or in whose place results would be, or a place where none can be.
    """
    fields = endings(view) if view else ()
    if not _is_folder(out) and not out.name.lower().endswith((*NIFTI, NUMPY, PICTURE, *fields)):
        kinds = ", ".join(f"FILE{end}" for end in (NIFTI[1], NUMPY, *fields))
        raise ValueError(f"out: got {out}, expected {kinds}, FILE{PICTURE} (the comparison alone), or a folder")
    if out.name.lower().endswith(NIFTI) and axes not in (2, 3):
        raise ValueError(f"out: got {out} for samples with {axes} axes, expected {NUMPY}, {PICTURE} or a folder")
    for given in inputs:
        if given.exists() and _over(out, given):
            raise ValueError(f"out: got {out}, whose files would be written over or among {given}, expected another")
    _try(out)


def end_of(view: View, scan: Path | None) -> str:
    """What the name of results ends in where nothing is said: that of a file of fields as it came."""
    return ending_like(view, scan) if scan is not None and is_own(view, scan) else NUMPY


def write(solution: Solution, view: View, origin: Origin, picture: Image, out: Path) -> list[Path]:
    """The best guess, how far samples differ, and the comparison; returns the files.

    Beside `NAME.nii.gz` stand `NAME-deviation.nii.gz` and `NAME.png`, and beside a folder of DICOM slices; in any other
    folder are `mean`, `deviation` and `comparison.png`. What earlier results left there and these lack is removed.
    """
    folder, stem, view = _is_folder(out), _stem(out), origin.view or view
    within = folder and not origin.dicom
    sheet = out / f"comparison{PICTURE}" if within else out.parent / f"{stem}{PICTURE}"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    picture.save(sheet)
    if out.name.lower().endswith(PICTURE):
        return [sheet]
    placed = origin.series is not None or origin.place is not None
    end = out.name[len(stem) :] if not folder else NIFTI[1] if placed else NUMPY
    if within and origin.native:
        files = view.write(origin.values(solution.mean), out, "mean")
        end = files[0].suffix if endings(view) else end
    elif folder and origin.dicom:
        assert origin.series is not None
        files = write_dicom(origin.scan(solution.mean, view), origin.series.files, out, SERIES)
    else:
        files = _some(origin, view, solution.mean, out / f"mean{end}" if within else out, spread=False)
    at = out / f"deviation{end}" if within else out.parent / f"{stem}-deviation{end}"
    if solution.deviation is not None:
        files = [*files, *_some(origin, view, solution.deviation, at, spread=True)]
    _sweep(at, out if folder else None, files)
    return [*files, sheet]


def _sweep(deviation: Path, folder: Path | None, written: Sequence[Path]) -> None:
    """Remove what results before these left in the same place, so that no deviation or slice lies beside others."""
    found = {deviation}
    if folder is not None:
        found |= {file for name in RESULTS for file in folder.glob(name)} | {*filter(_sliced, folder.iterdir())}
    for file in found.difference(written):
        if file.is_file():
            file.unlink()


def _sliced(file: Path) -> bool:
    """Whether a file is a slice of a series that was written here."""
    return bool(SLICE.fullmatch(file.name)) and described(file) == SERIES


def _is_folder(out: Path) -> bool:
    return not out.name.lower().endswith(WRITTEN_AS["zarr"]) and (out.is_dir() or not out.suffix)


def _try(out: Path) -> None:
    """Make a file where results will be, and leave nothing behind."""
    into = out.absolute() if _is_folder(out) else out.absolute().parent
    missing = [place for place in (into, *into.parents) if not place.exists()]
    try:
        into.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=into).close()
        if out.is_file():
            out.open("ab").close()
    except OSError as error:
        raise ValueError(
            f"out: got {out}, which cannot be written ({error.strerror}); expected a place where files can be made"
        ) from None
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


def _stem(out: Path) -> str:
    """A name without what says the kind of file."""
    return next((out.name[: -len(end)] for end in KINDS[::-1] if out.name.lower().endswith(end)), out.name)


def _over(out: Path, given: Path) -> bool:
    """Whether `write` would replace a file that is given, or put a series in a folder where another is read from."""
    folder, stem, parent = _is_folder(out), _stem(out), out.parent
    if given.is_dir() or (folder and given.suffix.lower() in DICOM):
        series, into = (given, out.resolve().parents) if given.is_dir() else (given.parent, ())
        if any(place.exists() and place.samefile(series) for place in ((out, *into) if folder else (parent,))):
            return True
    written = [out, *(parent / f"{stem}{end}" for end in (PICTURE, *(f"-deviation{kind}" for kind in KINDS)))]
    if folder:
        written += [file for name in (*RESULTS, "comparison.*") for file in out.glob(name)]
    return any(file.exists() and file.samefile(given) for file in written)


def _some(origin: Origin, view: View, x: Float[Tensor, "n c *space"], path: Path, *, spread: bool) -> list[Path]:
    """Samples on the scale of what came in, in a file, or of fields in one for each; `spread`: of differences."""
    if path.name.lower().endswith(WRITTEN):
        return write_own(view, origin.values(x, spread), path)
    if path.suffix.lower() == NUMPY:
        np.save(path, origin.values(x, spread).numpy())
    else:
        write_nifti(origin.scan(x, view, spread), path, "deviation of samples" if spread else "")
    return [path]
