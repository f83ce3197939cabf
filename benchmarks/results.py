"""How a benchmark's table gets onto its page in docs/results/: with command, hardware, versions and date."""

import json
import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import dropwhile, takewhile
from pathlib import Path

import torch
from PIL.Image import Image

PAGES = Path(__file__).parent.parent / "docs" / "results"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers to the right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    right = [all(not isinstance(row[i], str) for row in rows) for i in range(len(header))]
    line = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    rows_of_text = [list(header), line, *cells]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows_of_text
    )


@dataclass(frozen=True)
class Kept:
    """Rows of a table in a JSON file, by problem and method, their first two cells, so that none is found twice.

    `again`: what the names of methods begin with that are found anew.
    """

    file: Path
    rows: dict[tuple[str, str], list[object]]

    @classmethod
    def of(cls, file: Path, again: Sequence[str] = ()) -> "Kept":
        """What was found before."""
        rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        return cls(file, {(row[0], row[1]): row for row in rows if not row[1].startswith(tuple(again))})

    def row(self, problem: str, method: str, find: Callable[[], list[object]]) -> list[object]:
        """One of them, which is found now if it was not before; `find` makes its further cells."""
        if (problem, method) not in self.rows:
            self.rows[problem, method] = [problem, method, *find()]
            self.file.write_text(json.dumps([*self.rows.values()]), encoding="utf-8")
        return self.rows[problem, method]


def options(parser: ArgumentParser) -> None:
    """Those of benchmarks that keep rows: where, and which of them are found anew."""
    parser.add_argument("--runs", type=Path, default=Path("runs/reconstruct"), help="keep runs and rows here, go on")
    parser.add_argument(
        "--again", nargs="+", default=[], metavar="METHOD", help="find rows anew whose method begins so"
    )


def hardware() -> str:
    """What this ran on, in a line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return f"{_cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def publish(page: str, title: str, body: str) -> None:
    """Print the table, and write it as docs/results/PAGE.md; of a path on this machine the page says the name alone."""
    given = (Path(each).name if Path(each).is_absolute() else each for each in sys.argv[1:])
    command = "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *given])
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "anydit"))
    note = f"`{command}` on {hardware()}; {versions}; {date.today().isoformat()}."
    print(f"\n{title}\n\n{body}\n\n{note}")
    PAGES.mkdir(parents=True, exist_ok=True)
    (PAGES / f"{page}.md").write_text(f"# {title}\n\n{body}\n\n{note}\n", encoding="utf-8")


def read(page: str, header: Sequence[str]) -> tuple[list[list[object]], str]:
    """What `publish` wrote: the rows of the first table, which has this header, and how the page was made.

    Raises:
        ValueError: the page begins with another table.
    """
    lines = (PAGES / f"{page}.md").read_text(encoding="utf-8").splitlines()
    first = takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines))
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in first]
    if not cells or cells[0] != list(header):
        raise ValueError(f"{page}: got a page without a table of {', '.join(header)}; make it anew")
    notes = [line for line in lines if line.startswith(("`python benchmarks/", "The minutes are"))]
    return [[_number(cell) for cell in row] for row in cells[2:]], " ".join(reversed(notes))


def picture(name: str, sheet: Image, about: str) -> str:
    """Save a picture beside the pages, and return how one of them shows it."""
    PAGES.mkdir(parents=True, exist_ok=True)
    sheet.save(PAGES / f"{name}.png")
    return f"![{about}]({name}.png)"


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _number(text: str) -> object:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
