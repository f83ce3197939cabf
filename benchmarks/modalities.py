"""One table over all modalities: what about 10 minutes of two CPU cores, or of one GPU, make of each.

    python benchmarks/modalities.py [--gpu] [--anew volumes series]

Rows are those of the modalities' own pages in docs/results/, which benchmarks/modalities_NAME.py makes: it trains each
recipe as it is. A figure stands beside that of held-out data and of what is trivial to make.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from modality import HEAD, asked, page_of
from results import PAGES, publish, read, table

STEM = "modalities_"

BELOW = """\
More of each is on its own page. For fields, held-out is the solver's own ensemble, which nothing can be ahead of.
Held-out crops of volumes are of the half that mirrors the one that is trained on. Rows are those of the pages:"""


def names() -> list[str]:
    """The modalities that have rows."""
    return sorted(file.stem.removeprefix(STEM) for file in Path(__file__).parent.glob(f"{STEM}*.py"))


def there(gpu: bool) -> dict[str, str]:
    """The pages that have been made, by modality and, where a page is of a part of its rows only, that part."""
    found = dict[str, str]()
    for name in names():
        files = [PAGES / f"{page_of(name, gpu)}.md", *sorted(PAGES.glob(f"{name}-*.md"))]
        stems = [file.stem for file in files if file.is_file() and file.stem.endswith("-gpu") == gpu]
        found |= {stem.removesuffix("-gpu").replace("-", ", "): stem for stem in stems}
    return found


def made(name: str, given: argparse.Namespace) -> None:
    """Make a modality's page."""
    words = [sys.executable, str(Path(__file__).with_name(f"{STEM}{name}.py")), "--runs", str(given.runs)]
    subprocess.run([*words, "--gpu"] if given.gpu else words, check=True)


def main() -> None:
    """Make the pages that are to be made; print and publish the table."""
    parser = asked(__doc__)
    parser.add_argument("--anew", nargs="+", choices=names(), default=[], help="make these pages first, for minutes")
    given = parser.parse_args()
    for name in given.anew:
        made(name, given)
    pages = there(given.gpu)
    rows, notes = list[list[object]](), list[str]()
    for name, page in pages.items():
        some, note = read(page, HEAD)
        rows += some
        notes.append(f"- [{name}]({page}.md): {note}")
    absent = [name for name in names() if name not in pages]
    if absent:
        notes.append(f"- There are none yet of {', '.join(absent)}.")
    publish(page_of("modalities", given.gpu), "Every modality from the same model",
            "\n\n".join((table(HEAD, rows), BELOW, "\n".join(notes))))  # fmt: skip


if __name__ == "__main__":
    main()
