"""One table over all modalities: what 10 minutes of two CPU cores, or of one GPU, make of each.

    python benchmarks/modalities.py [--gpu] [--only volumes series] [--runs FOLDER]

Each row trains a recipe as it is. Its figure stands beside that of held-out data and of what is trivial to make. What
benchmarks/modalities_NAME.py has found in the same folder of runs is taken as it is.
"""

import importlib
from pathlib import Path

from modality import HEAD, asked, kept, minutes, once
from results import publish, table

STEM = "modalities_"

BELOW = """\
More of each is on its own page, with its command: that of benchmarks/modalities_NAME.py. For fields, held-out is the
solver's own ensemble, which nothing can be ahead of. Held-out crops of volumes are of the half that mirrors the one
that is trained on."""


def names() -> list[str]:
    """The modalities that have rows."""
    return sorted(file.stem.removeprefix(STEM) for file in Path(__file__).parent.glob(f"{STEM}*.py"))


def main() -> None:
    """Train everything that has not been; print and publish the table."""
    parser = asked(__doc__)
    parser.add_argument("--only", nargs="+", choices=names(), default=names(), help="these modalities alone")
    arguments = parser.parse_args()
    taken = [name for name in arguments.only if kept(name, arguments.gpu, arguments.runs).is_file()]
    before = f"Rows that are those of their pages, as they were found: {', '.join(taken)}." if taken else ""
    rows = list[list[object]]()
    for name in arguments.only:
        rows += once(name, importlib.import_module(STEM + name).rows, arguments.gpu, arguments.runs)[0]
    some = [] if arguments.only == names() else arguments.only
    body = (table(HEAD, rows), BELOW, before, minutes())
    page = "-".join(["modalities", *some, *(["gpu"] if arguments.gpu else [])])
    publish(page, "Every modality from the same model", "\n\n".join(part for part in body if part))


if __name__ == "__main__":
    main()
