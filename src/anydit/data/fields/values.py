"""What the numbers of an array stand for, by the attributes that NetCDF gives it: signs, scale, what is missing."""

from base64 import b64decode
from collections.abc import Mapping
from struct import unpack
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

REAL = "biuf"
"""The kinds of numbers that may mark what is missing, as NumPy calls them."""

NUMBERS = REAL + "cmM"
"""The kinds of arrays that count as numbers, dates among them: not text, nor several values of different names."""

NEVER_WRITTEN = 15 * 2.0**119
"""What NetCDF puts where nothing was written, in arrays of floats that name no other number."""

SIGNS = {"true": "u", "false": "i"}
"""What the attribute `_Unsigned` says of integers, which older formats have of one kind only."""


def unpacked(
    raw: Shaped[np.ndarray, "..."], about: Mapping[str, Any], dtype: type[np.floating[Any]]
) -> Float[np.ndarray, "..."]:
    """Numbers as they are stored, in their unit, with NaN for what is missing by the attributes."""
    signed = _signed(raw, str(about.get("_Unsigned", "")).lower())
    scale, offset = (float(about.get(name, plain)) for name, plain in (("scale_factor", 1.0), ("add_offset", 0.0)))
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array(signed, dtype)
    if (scale, offset) != (1.0, 0.0):
        values = np.asarray(np.asarray(signed, np.float64) * scale + offset, dtype)
    told = [about[name] for name in ("_FillValue", "missing_value") if name in about and raw.dtype.kind in REAL]
    for value in told or [NEVER_WRITTEN] * (raw.dtype.kind == "f"):
        for stored in (raw,) if signed is raw else (raw, signed):
            values[np.isin(stored, _held(value, stored.dtype))] = np.nan
    return values


def _signed(raw: Shaped[np.ndarray, "..."], unsigned: str) -> Shaped[np.ndarray, "..."]:
    """Integers with or without a sign, whichever is meant."""
    if raw.dtype.kind not in "iu" or SIGNS.get(unsigned, raw.dtype.kind) == raw.dtype.kind:
        return raw
    return raw.view(raw.dtype.str.replace(raw.dtype.kind, SIGNS[unsigned]))


def _held(value: Any, dtype: np.dtype[Any]) -> Shaped[np.ndarray, " n"]:
    """Of some numbers those that an array of this type may hold, as it holds them: integers as they are, or not."""
    told = np.atleast_1d(np.asarray(value))
    try:
        told = told if told.dtype.kind in REAL else told.astype(np.float64)
    except ValueError:  # a word, which marks no number
        return np.empty(0, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        held = told.astype(dtype)
    return held[np.isfinite(held) == np.isfinite(told) if dtype.kind == "f" else held == told]


def filled_in_zarr(array: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """The number that stands for what is missing in a Zarr array, as `_FillValue`, where xarray's conventions name one.

    In format 2 it is what chunks are filled with that were never written, and Zarr's own 0 for these marks packed
    values only. In format 3 it is an attribute, of floats as the bytes of a double in text.
    """
    told = about.get("_FillValue")
    if isinstance(told, str) and array.dtype.kind == "f" and len(double := _bytes(told)) == 8:
        return {"_FillValue": unpack("<d", double)[0]}
    if told is None and array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in about:
        fill = array.metadata.fill_value if array.dtype.kind in REAL else None
        if fill is not None and (fill != 0 or "scale_factor" in about):
            return {"_FillValue": fill}
    return {}


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""
