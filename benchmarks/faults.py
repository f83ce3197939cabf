"""What happens to long runs, injected: what was broken in each test of the list, and what was lost.

    python benchmarks/faults.py

Runs the tests that are marked `fault`, one after the other, and reads from the marks which fault each of them injects.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from results import publish, table

ROOT = Path(__file__).parent.parent

INJECTED = {
    "T1": "kill -9 of a process in a step: alone, of several, while workers read, with data of several sizes",
    "T2": "the same under torchrun, which starts the processes again",
    "T3": "kill -9 between a checkpoint's last byte and its place, and between it and the exported weights",
    "T4": "kill -9, and a full disk, at each single touch of the disk while a checkpoint is written and others go",
    "T5": "kill -9 while a checkpoint is written in the background and training goes on",
    "T6": "SIGTERM: to one process, to torchrun, at start-up, twice",
    "T7": "SIGSTOP of one process of several; an exception in one alone",
    "T8": "a flipped bit, a file cut short, a file or the manifest removed: in checkpoints, exports and caches",
    "T9": "kill -9 in mid-save, five times over, keeping one checkpoint or two",
    "T10": "a disk of 8 MB that fills, a file that cannot grow, a folder that cannot be written",
    "T11": "saved by 2 processes, taken up by another number",
    "T12": "2, then 4, then 1 process",
    "T13": "a loss or a gradient that is NaN, on one process",
    "T14": "gradients x 1e6: once, five times in a row, again after going back, with kill -9 on the way",
    "T15": "one image in twenty empty, cut short, text, of one pixel, or 140 kB of 12000 x 12000 pixels",
    "T16": "tar files cut off or damaged; members called ../x or /x; links out of the folder",
    "T17": "nothing: a run made twice, with one thread and with two",
    "T18": "going on with another width, optimizer, seed or data, without the recipe or the data's path",
    "T19": "a second training in a folder in use; the lock of a process that was killed",
    "T20": "a run of the release before",
    "T21": "kill -9 of a process that reads data",
}

ABOUT = """\
Nothing lost means: the losses of all steps, the samples that each read, and the state at the end are to the last bit
those of a run that nothing disturbed; no more is done again than since the last checkpoint; nothing half is left. Each
test says in its own words what it asserts, and those that compare have a control that must not agree. {count} tests
take {seconds:.0f} s one after the other, {ci:.0f} s of it those that CI runs. `make test-faults` runs them all."""


@dataclass
class Outcomes:
    """A plugin of pytest: of each test its faults, whether CI runs it, how long it took, and how it ended."""

    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    slow: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    worst: dict[str, str] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("fault"):
                for number in mark.args:
                    self.faults[number].append(item.nodeid)
            if item.get_closest_marker("slow"):
                self.slow.add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if not report.passed or report.nodeid not in self.worst:
            self.worst[report.nodeid] = report.outcome

    def row(self, number: str) -> list[object]:
        """What is told of one fault."""
        tests = self.faults[number]
        ended = [self.worst.get(test, "not run") for test in tests]
        bad = [test.rpartition("::")[2] for test, how in zip(tests, ended, strict=True) if how != "passed"]
        lost = "nothing" if tests and not bad else f"not shown: {', '.join(bad)}" if tests else "not shown: no test"
        files = sorted({test.partition("::")[0].removeprefix("tests/") for test in tests})
        in_ci = f"{sum(test not in self.slow for test in tests)} of {len(tests)}"
        return [number, INJECTED[number], ", ".join(files), in_ci, sum(self.seconds[t] for t in tests), lost]


def main() -> int:
    """The page; returns pytest's exit code."""
    outcomes = Outcomes()
    code = pytest.main(["-m", "fault", "-q", "--rootdir", str(ROOT), str(ROOT / "tests")], plugins=[outcomes])
    rows = [outcomes.row(number) for number in INJECTED]
    seconds = outcomes.seconds
    ci = sum(value for test, value in seconds.items() if test not in outcomes.slow)
    about = ABOUT.format(count=len(seconds), seconds=sum(seconds.values()), ci=ci)
    page = table(["", "injected", "tests", "in CI", "seconds", "lost"], rows)
    publish("faults", "What is never lost", f"{about}\n\n{page}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
