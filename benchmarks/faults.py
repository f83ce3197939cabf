"""What happens to long runs, injected: what was broken in each test of the list, and what was lost.

    python benchmarks/faults.py

Runs the tests that are marked `fault`, and reads from their marks which fault each of them injects.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pytest
from results import publish, table

ROOT = Path(__file__).parent.parent

PROCESSES = 2
"""That tests are shared by."""

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
took {wall:.0f} s in {processes} processes: {seconds:.0f} s in all, {ci:.0f} s of it those that CI runs.
`make test-faults` runs them."""


@dataclass(eq=False)
class Outcomes:
    """A plugin of pytest: of each test its faults, how long it took, and how it ended; and which CI leaves out."""

    faults: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    worst: dict[str, str] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid
        for name, value in report.user_properties:
            if name == "fault":
                self.faults[str(value)].add(test)
            if name == "slow":
                self.slow.add(test)
        self.seconds[test] += report.duration
        if not report.passed or test not in self.worst:
            self.worst[test] = report.outcome

    def row(self, number: str) -> list[object]:
        """What is told of one fault."""
        tests = sorted(self.faults[number])
        bad = [f"{test.rpartition('::')[2]} ({self.worst[test]})" for test in tests if self.worst[test] != "passed"]
        lost = "not shown: " + (", ".join(bad) or "no test") if bad or not tests else "nothing"
        files = sorted({test.partition("::")[0].removeprefix("tests/") for test in tests})
        in_ci = f"{sum(test not in self.slow for test in tests)} of {len(tests)}"
        return [number, INJECTED[number], ", ".join(files), in_ci, sum(self.seconds[t] for t in tests), lost]


def main() -> int:
    """The page; returns pytest's exit code."""
    outcomes, began = Outcomes(), perf_counter()
    marked = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.fault(" in file.read_text()]
    words = ["-m", "fault", "-q", "-n", str(PROCESSES), "--dist", "loadfile", "--rootdir", str(ROOT)]
    code = pytest.main([*words, *marked], plugins=[outcomes])
    wall, rows = perf_counter() - began, [outcomes.row(number) for number in INJECTED]
    ci = sum(value for test, value in outcomes.seconds.items() if test not in outcomes.slow)
    told = {"count": len(outcomes.worst), "seconds": sum(outcomes.seconds.values()), "ci": ci, "wall": wall}
    page = table(["", "injected", "tests", "in CI", "seconds", "lost"], rows)
    publish("faults", "What is never lost", f"{ABOUT.format(**told, processes=PROCESSES)}\n\n{page}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
