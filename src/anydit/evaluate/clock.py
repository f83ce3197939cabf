"""How long each stage of a report takes."""

from time import perf_counter


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = perf_counter()

    def lap(self, stage: str) -> None:
        """A stage ends here."""
        now = perf_counter()
        self.seconds[stage], self._began = round(now - self._began, 2), now
