"""The slices in a DICOM file: one, or the frames of Enhanced CT and MR or of a dose, with values on their own scale."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from anydit.data.outside import Unreadable

PLACED = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
"""The functional groups that say where a frame is (DICOM PS3.3 C.7.6.16.2.1 to 2.4)."""

SCALED = "PixelValueTransformationSequence"
"""The functional group that says what its values are."""


@dataclass(frozen=True)
class Slice:
    """A slice of a volume: a file's only one, or one of its frames, of which `own` has what the whole file has not."""

    whole: Any
    own: Mapping[str, Any]
    frame: int = 0

    @property
    def name(self) -> str:
        """That of its file."""
        return Path(self.whole.filename).name

    def get(self, tag: str, otherwise: Any = None) -> Any:
        """What is said of it; what is left empty says nothing."""
        said = self.own[tag] if tag in self.own else self.whole.get(tag)
        return otherwise if said is None or (isinstance(said, str) and not said) else said

    def floats(self, tag: str) -> Float[np.ndarray, " n"]:
        """The numbers of a tag, which may be one."""
        return np.atleast_1d(np.asarray(self.get(tag), np.float64))

    @property
    def quantity(self) -> str:
        """What its values are; nothing where they have no unit. PET calls it Units (DICOM PS3.3 C.8.9.1)."""
        said = str(self.get("RescaleType", "HU" if self.get("Modality") == "CT" else self.get("Units", "")))
        return "" if said in ("US", "NONE") else said

    def values(self) -> Float32[np.ndarray, "rows columns"]:
        """On their own scale.

        Raises:
            Unreadable: they are damaged, or compressed in a way that nothing here decodes.
        """
        try:
            stored = self.whole.pixel_array  # which pydicom keeps, for the other frames
        except Exception as error:  # a damaged file makes it raise nearly anything
            raise Unreadable(f"{self.name}: {_undecoded(self.whole, error)}") from None
        stored = stored.reshape(-1, *stored.shape[-2:])[self.frame].astype(np.float32)
        slope, intercept = self.get("RescaleSlope", 1), self.get("RescaleIntercept", 0)
        return stored * np.float32(slope) + np.float32(intercept)


def slices_of(whole: Any) -> list[Slice]:
    """The slices in an opened file.

    Raises:
        Unreadable: they are of colours, or it does not say where each of its frames is.
    """
    name, count = Path(whole.filename).name, int(whole.get("NumberOfFrames") or 1)
    if whole.get("SamplesPerPixel", 1) != 1:
        raise Unreadable(f"{name}: slices of colours, expected grey ones")
    groups = whole.get("PerFrameFunctionalGroupsSequence")
    if groups is None and count == 1:
        return [Slice(whole, _scaled(whole))]
    own = list(_of_dose(whole) if groups is None else _of_groups(whole, groups))
    if not own:
        expected = "expected those of Enhanced CT or MR, or of a dose"
        raise Unreadable(f"{name}: {count} frames in a file that does not say where each is, {expected}")
    if len(own) != count:
        raise Unreadable(f"{name}: {count} frames, and places of {len(own)}")
    return [Slice(whole, of, i) for i, of in enumerate(own)]


def _of_groups(whole: Any, of_frames: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """What functional groups say of each frame, those that all share first."""
    shared = list(whole.get("SharedFunctionalGroupsSequence") or [])[:1]
    for groups in of_frames:
        found = dict[str, Any]()
        for each in (*shared, groups):
            for name in (*PLACED, SCALED):
                for item in list(each.get(name) or [])[:1]:
                    found |= {element.keyword: element.value for element in item}
        yield found


def _of_dose(whole: Any) -> Iterator[dict[str, Any]]:
    """Where the planes of a dose are, by how far each is from the first (DICOM PS3.3 C.8.8.3.2)."""
    tags = ("GridFrameOffsetVector", "ImagePositionPatient", "ImageOrientationPatient", "DoseGridScaling")
    if any(whole.get(tag) is None for tag in tags):
        return
    offsets, first, both = (np.atleast_1d(np.asarray(whole.get(tag), np.float64)) for tag in tags[:3])
    if offsets[0] != 0:
        raise Unreadable(f"{Path(whole.filename).name}: planes at heights, expected how far each is from the first")
    normal = np.cross(both[:3], both[3:])
    for offset in offsets:
        yield {"ImagePositionPatient": first + offset * normal, **_scaled(whole)}


def _scaled(whole: Any) -> dict[str, Any]:
    """The scale of a dose and its unit; nothing where it is none (DICOM PS3.3 C.8.8.3)."""
    scale = whole.get("DoseGridScaling")
    return {} if scale is None else {"RescaleSlope": float(scale), "RescaleType": str(whole.get("DoseUnits", ""))}


def _undecoded(whole: Any, error: Exception) -> str:
    """Why pixels cannot be decoded, and what would help."""
    from pydicom.pixels.decoders.base import get_decoder

    why = (str(error) or type(error).__name__).splitlines()
    syntax = getattr(whole.file_meta, "TransferSyntaxUID", None)
    if syntax is None or not syntax.is_compressed:
        return why[0]
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"compressed as {syntax.name}, which nothing here decodes; expected it decompressed"
    if not decoder.is_available:
        return f"compressed as {syntax.name}, which needs more packages: pip install 'anydit[dicom]'"
    others = " or ".join(each.partition("requires ")[2] for each in decoder.missing_dependencies)
    more = f"; where it is whole, other packages may read it: {others}" if others else ""
    return f"compressed as {syntax.name}, {why[-1].strip()}{more}"
