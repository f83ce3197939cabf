"""Files of sound, decoded once into one mapped array, clip after clip; what cannot be used is named."""

from collections.abc import Iterator
from io import BufferedReader
from math import ceil
from os import SEEK_END
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from anydit.config import check_positive, config
from anydit.data.absent import elsewhere
from anydit.data.folders import state
from anydit.data.outside import Unreadable
from anydit.data.shards import Member, readable

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
"""Names of files of sound, in lower case."""

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
"""What libsndfile may read; of its other formats some are without a header, and anything would be sound."""

BLOCK = 2**18
"""Places of a file that are decoded at a time."""

OGG_PAGE = 2**16
"""Bytes that a page of Ogg may have."""


@config
class Refused:
    """Such a file counts as unreadable."""


@config
class Resample:
    """Bring a file of another rate to the one asked for, by soxr; nothing above half the lower rate is left."""


@config
class Mix:
    """Make one channel of two by their mean, and two of one by having it twice."""


@config
class Pieces:
    """Cut a longer file into samples of the whole length, one after the other.

    What is left at the end is a sample of its own length, unless that is below `least`, in seconds.
    """

    least: float = 0.1

    def __post_init__(self) -> None:
        check_positive("least", self.least)


class Wanted(NamedTuple):
    """What the clips are to be: `length` is the most places of one. See `Audio` for the others.

    `hint`: what helps where a file is longer and refused.
    """

    rate: int
    length: int
    channels: int
    other_rate: Refused | Resample
    other_channels: Refused | Mix
    longer: Refused | Pieces
    hint: str = "--data.longer Pieces cuts it"


def clips(file: Path | Member, wanted: Wanted) -> Iterator[Float[np.ndarray, "n c"]]:
    """The clips of one file, one by one, values from -1 to 1 where the format has bounds.

    Raises:
        Unreadable: it is damaged, or not what is wanted.
    """
    sf = soundfile()
    if isinstance(file, Path) and (why := elsewhere(file)):
        raise Unreadable(why)
    if isinstance(file, Path) and state(file) is None:
        raise Unreadable("not a file, or one that is not there")
    try:
        with readable(file) as source, sf.SoundFile(source) as opened:
            _check_end(file, opened.format)
            _check_header(opened, wanted)
            yield from _cut(_brought(_blocks(opened), opened.samplerate, wanted), wanted)
    except (sf.SoundFileError, OSError, RuntimeError) as error:
        why = getattr(error, "error_string", None) or str(error)
        raise Unreadable(why.splitlines()[0]) from None


def _check_header(opened: Any, wanted: Wanted) -> None:
    """Refuse what the header tells, before anything is decoded."""
    if opened.format not in FORMATS:
        raise Unreadable(f"in the format {opened.format}, expected one of {', '.join(FORMATS)}")
    if opened.frames < 1:
        raise Unreadable("without a sound in it")
    if opened.samplerate != wanted.rate and isinstance(wanted.other_rate, Refused):
        raise Unreadable(
            f"of {opened.samplerate} Hz, expected {wanted.rate}; --data.other-rate Resample brings it to that"
        )
    if opened.channels > 2:
        raise Unreadable(f"of {opened.channels} channels, expected 1 or 2")
    if opened.channels != wanted.channels and isinstance(wanted.other_channels, Refused):
        raise Unreadable(f"of {opened.channels} channels, expected {wanted.channels}; --data.other-channels Mix helps")
    places = -(-opened.frames * wanted.rate // opened.samplerate)
    if places > wanted.length and isinstance(wanted.longer, Refused):
        got, most = (f"{count / wanted.rate:.4g}" for count in (places, wanted.length))
        said = f"{got} s, expected at most {most}"
        if got == most:
            said = f"{places} places, expected at most {wanted.length}"
        raise Unreadable(f"of {said}; {wanted.hint}")


def _check_end(file: Path | Member, format: str) -> None:
    """Refuse what was cut off, where libsndfile takes what is left for the whole.

    A RIFF says how long it is, and the last page of an Ogg stream is marked (RFC 3533).
    """
    with file.open("rb") as opened:
        head, size = opened.read(8), opened.seek(0, SEEK_END)
        opened.seek(max(0, size - OGG_PAGE))
        page = opened.read().rpartition(b"OggS")[2]
        said = int.from_bytes(head[4:], "little")
        whole = said + 8 <= size or (said + 8 == size + 1 and _lacks_pad(opened, size))
    unknown = (0, 2**32 - 1)  # as of what was written into a pipe
    if head.startswith(b"RIFF") and said not in unknown and not whole:
        raise Unreadable(f"of {size} bytes, expected {said + 8}, as its header says: cut off")
    # Of the last page, without its first four bytes: flags at 1, how many segments at 22, then the length of each.
    if format == "OGG" and not (
        len(page) > 22 and page[1] & 4 and len(page) >= 23 + page[22] + sum(page[23:][: page[22]])
    ):
        raise Unreadable("without the end of its last page: cut off")


def _lacks_pad(opened: BufferedReader, size: int) -> bool:
    """Whether a RIFF is whole but for the byte that makes its last chunk even, which some writers leave out."""
    at, count = 12, 0
    while at < size:
        opened.seek(at + 4)
        count = int.from_bytes(opened.read(4), "little")
        at += 8 + count + count % 2
    return at == size + 1 and count % 2 == 1


def _blocks(opened: Any) -> Iterator[Float[np.ndarray, "n c"]]:
    """All of a file, which has as much as its header says, of finite values."""
    done = 0
    while done < opened.frames:
        block: np.ndarray = opened.read(BLOCK, dtype="float32", always_2d=True)
        if not len(block):
            raise Unreadable(
                f"ends after {done / opened.samplerate:.4g} s, expected {opened.frames / opened.samplerate:.4g}, as "
                "its header says"
            )
        if not np.isfinite(block).all():
            raise Unreadable("with NaN or infinity in it")
        done += len(block)
        yield block


def _brought(
    blocks: Iterator[Float[np.ndarray, "n c"]], rate: int, wanted: Wanted
) -> Iterator[Float[np.ndarray, "n c_out"]]:
    """Blocks of the channels and at the rate that are wanted."""
    if rate == wanted.rate:
        yield from (_mixed(block, wanted.channels) for block in blocks)
        return
    stream = soxr().ResampleStream(rate, wanted.rate, wanted.channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(_mixed(block, wanted.channels))
    yield stream.resample_chunk(np.zeros((0, wanted.channels), np.float32), last=True)


def _mixed(block: Float[np.ndarray, "n c"], channels: int) -> Float[np.ndarray, "n c_out"]:
    if block.shape[1] == channels:
        return block
    return block.mean(1, keepdims=True) if channels == 1 else block.repeat(2, axis=1)


def _cut(blocks: Iterator[Float[np.ndarray, "n c"]], wanted: Wanted) -> Iterator[Float[np.ndarray, "n c"]]:
    """Clips of the whole length, and what is left."""
    parts, left, whole = list[np.ndarray](), 0, 0
    for block in blocks:
        rest = block
        while left + len(rest) >= wanted.length:
            end = wanted.length - left
            yield np.concatenate([*parts, rest[:end]])
            parts, left, rest, whole = [], 0, rest[end:], whole + 1
        parts.append(rest)
        left += len(rest)
    least = ceil(wanted.longer.least * wanted.rate) if isinstance(wanted.longer, Pieces) and whole else 1
    # A resampler may round to one place more than there is room for.
    if left >= least and not (whole and isinstance(wanted.longer, Refused)):
        yield np.concatenate(parts)


def soundfile() -> Any:
    """The library that reads and writes files of sound.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import soundfile
    except ImportError:
        raise ValueError("data: audio needs soundfile, which is missing; pip install 'anydit[audio]'") from None
    return soundfile


def soxr() -> Any:
    """The library that changes rates.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import soxr
    except ImportError:
        raise ValueError("data: audio needs soxr, which is missing; pip install 'anydit[audio]'") from None
    return soxr
