"""Files from outside: which of them are held out, and what becomes of those that cannot be used."""

from collections.abc import Sequence
from hashlib import sha256
from os import fsencode

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anydit.data.base import Part

HANDFUL = 5
"""Unreadable files that any tolerance above 0 allows, however few files there are."""

SHOWN = 5
"""How many are named of what is wrong in a sentence."""

OPEN = 128
"""Files that are kept open at one time, at most: systems allow a process as few as 256."""

Skipped = Sequence[tuple[str, str]]
"""Files that cannot be used, by name, each with the reason."""


class Unreadable(Exception):
    """A file that cannot be used; the message says why, without the file's name."""


def listed(skipped: Skipped) -> str:
    """The first few of them, named, with how many more there are; those of one reason together."""
    reasons = dict[str, list[str]]()
    for name, why in skipped:
        reasons.setdefault(why, []).append(name)
    shown = [f"{_some(names)}: {why}" for why, names in [*reasons.items()][:SHOWN]]
    more = sum(map(len, [*reasons.values()][SHOWN:]))
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_skipped(skipped: Skipped, count: int, bad_limit: float, what: str, seen: int | None = None) -> None:
    """Refuse more unreadable files of `count` than the share `bad_limit` allows; a handful always, unless it is 0.

    `what`: they are, in the plural. `seen`: how many were looked at so far (None: all).

    Raises:
        ValueError: names the first of them, and says why each is unreadable.
    """
    limit = max(HANDFUL, int(bad_limit * count)) if bad_limit else 0
    if len(skipped) > limit:
        among = f"{count}" if seen is None or seen == count else f"the first {seen} of {count}"
        raise ValueError(
            f"data.bad_limit: got {len(skipped)} unreadable among {among} {what} ({listed(skipped)}), "
            f"expected at most {limit}"
        )
    if len(skipped) == count:
        raise ValueError(f"data: got no readable one among {count} {what} ({listed(skipped)}), expected at least one")


def told(skipped: Skipped, count: int, what: str) -> str:
    """One sentence on what was skipped."""
    return f"Skipped {len(skipped)} unreadable of {count} {what} ({listed(skipped)})."


def rows_of(names: Sequence[str], held_out: float, part: Part) -> Int[Tensor, " n"]:
    """The rows of one part, in order. Each is drawn by its name alone, so that more of them move none of the others."""
    draws = torch.tensor([int.from_bytes(sha256(fsencode(name)).digest()[:6]) for name in names]).double()
    chosen: Bool[Tensor, " all"] = draws / 2**48 < held_out
    return torch.nonzero(chosen if part == "held_out" else ~chosen)[:, 0]
