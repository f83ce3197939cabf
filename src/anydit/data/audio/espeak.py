"""Words spoken by espeak-ng, for a process of its own: `python espeak.py FILE`, with what to say on its input as JSON.

The library breathes and trembles by numbers that go on from one word to the next: only a fresh process, and one that
sets their seed, says the same words the same way. It is GPL-3, loaded by no other process, and brought by the package
espeakng-loader.
"""

import ctypes
import json
import sys
from typing import Any

import numpy as np

SYNCHRONOUS = 2
RATE, PITCH = 1, 3
"""The library's numbers of what can be set."""

SEED = 1
"""Of the noise in breath, which the library takes from the time otherwise."""

SAID = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main(file: str) -> None:
    """Say each `[voice, text, pitch, words per minute]` and write all as an .npz: values, lengths, rate in Hz."""
    import espeakng_loader

    library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 1 << 15)
    parts = list[np.ndarray]()

    def heard(values: Any, count: int, _: Any) -> int:
        if values and count:
            parts.append(np.ctypeslib.as_array(values, (count,)).copy())
        return 0

    library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    callback = SAID(heard)  # kept alive while the library has it
    library.espeak_SetSynthCallback(callback)
    lengths = list[int]()
    for voice, text, pitch, words_per_minute in json.load(sys.stdin):
        before, said = sum(map(len, parts)), text.encode() + b"\0"
        wrong = library.espeak_SetVoiceByName(voice.encode())
        wrong |= library.espeak_SetParameter(RATE, words_per_minute, 0) | library.espeak_SetParameter(PITCH, pitch, 0)
        wrong |= library.espeak_Synth(said, len(said), 0, 0, 0, 1, None, None) | library.espeak_Synchronize()
        lengths.append(sum(map(len, parts)) - before)
        if wrong or not lengths[-1]:
            raise SystemExit(f"espeak-ng does not say {text!r} in the voice {voice}")
    np.savez(file, values=np.concatenate(parts), lengths=np.array(lengths), rate=rate)


if __name__ == "__main__":
    main(sys.argv[1])
