"""When states are: whether any are missing between them, and in which unit times are told."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from anydit.data.fields.contents import SINCE, TIME, Variable, duration
from anydit.data.fields.files import read
from anydit.data.fields.layout import Layout

UNEVEN = 0.5
"""The part by which a step of time may differ from the usual one: months do, and where more is left out it is more."""

LONGER = 0.1
"""The part by which the usual step may differ between trajectories."""

SPELLED = {
    spelling: names[-1]
    for names in (
        ("s", "sec", "secs", "second", "seconds"),
        ("min", "mins", "minute", "minutes"),
        ("h", "hr", "hrs", "hour", "hours"),
        ("d", "day", "days"),
    )
    for spelling in names
}
"""The units of time that have several spellings."""

SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
"""How many are in a unit of time, by its last spelling."""

CALENDARS = {
    "365_day": "noleap",
    "366_day": "all_leap",
    "gregorian": "standard",
    "proleptic_gregorian": "standard",
}
"""Calendars by other names, and the one that differs before 1582 only."""


def same(unit: str, other: str) -> bool:
    """Whether two units of time are one, however they are spelled."""
    a, b = (duration(each).lower() for each in (unit, other))
    return SPELLED.get(a, a) == SPELLED.get(b, b)


def many(unit: str, other: str) -> float | None:
    """How many of another unit of time are in one; None where that is not the same always, as in months."""
    a, b = (SECONDS.get(SPELLED.get(duration(each).lower(), "")) for each in (unit, other))
    return 1.0 if same(unit, other) else a / b if a and b else None


def calendar(times: Variable) -> str:
    """In which calendar days are counted, by one name for each: the usual one where the file tells none."""
    told = (times.calendar or "standard").lower()
    return CALENDARS.get(told, told)


def gaps(files: Sequence[Path], layouts: Sequence[Layout], span: int) -> list[Int[np.ndarray, "trajectories t"]]:
    """Of each file how often, up to each state, states are missing or times go back; never where it has no times.

    `span`: states that a sample reaches over; of one, times do not matter.

    Raises:
        ValueError: from state to state it takes longer in one trajectory than in another, in another unit, or in
            another calendar.
    """
    found, usual = list[np.ndarray](), None
    for file, at in zip(files, layouts, strict=True):
        count, times = np.zeros((at.trajectories, at.times), np.int64), at.at.get(TIME)
        if times is not None and at.times > 1 and span > 1:
            steps = np.diff(read(file, times, dtype=np.float64).reshape(-1, at.times))
            own = np.median(steps, axis=1, keepdims=True)
            step, like, of = usual = usual or (own[0, 0], times, file)
            _check_same(times, file, like, of)
            if (off := np.abs(own - step) > LONGER * abs(step)).any():
                got = f"{own[off][0]:g} {duration(times.unit)}".strip()
                raise ValueError(f"data.path: {file} has {got} from state to state, expected {step:g} as in {of}")
            count[:, 1:] = np.cumsum(~(np.abs(steps - own) <= UNEVEN * np.abs(own)), axis=1)
        found.append(count)
    return found


def _check_same(times: Variable, file: Path, like: Variable, of: Path) -> None:
    """Refuse times in another unit, or in another calendar, than those of another file."""
    if not same(times.unit, like.unit):
        got, expected = duration(times.unit), duration(like.unit)
        raise ValueError(f"data.path: {file} has times in {got!r}, expected {expected!r} as in {of}")
    if SINCE in times.unit and SINCE in like.unit and calendar(times) != calendar(like):
        got, expected = calendar(times), calendar(like)
        raise ValueError(f"data.path: {file} has the calendar {got}, expected {expected} as in {of}")
