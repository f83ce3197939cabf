"""When the rows of a table are."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from anydit.config import config

SECONDS = "seconds"
"""The column that says when rows are in tables that anydit writes; "time seconds" where a channel has that name."""


@config
class Clock:
    """The column that says when rows are, and when the first one is: a number of seconds, or an ISO time."""

    column: str = SECONDS
    first: str = "0"

    def later(self, seconds: float) -> "Clock":
        """The clock of rows that begin so much later."""
        first = _seconds(self.first)
        then = first + timedelta(seconds=seconds) if isinstance(first, datetime) else first + seconds
        return replace(self, first=then.isoformat() if isinstance(then, datetime) else str(then))

    def rows(self, step: float, count: int) -> Any:
        """When so many rows are, `step` seconds apart, as a column of a table."""
        first = _seconds(self.first)
        if not isinstance(first, datetime):
            return first + step * np.arange(count)
        import pyarrow as pa

        times = pa.array([first + timedelta(seconds=step * i) for i in range(count)])
        whole = first.microsecond == 0 and step == round(step)
        return times.cast(pa.timestamp("s", times.type.tz)) if whole else times


def _seconds(first: str) -> float | datetime:
    try:
        return float(first)
    except ValueError:
        return datetime.fromisoformat(first)
