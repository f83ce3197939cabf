"""How far anydit's output is from that of each published network, read from its format and written to it again.

    python benchmarks/parity.py

Weights are random and tiny, and none is zero. An original is the library that has the model, or else its equations,
written down in tests/interop/references.py. A figure is the norm of the difference as a share of the output's.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from results import publish, table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.interop.families import FAMILIES, relative


def main() -> None:
    """The table, on a page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows: list[list[object]] = []
    for name, family in FAMILIES.items():
        original = f"diffusers {version('diffusers')}" if family.reference == "diffusers" else family.reference
        again = relative(family.again()) if family.again else "not written"
        rows.append([name, family.form, original, relative(family.outputs()), again])
    head = ["family", "format", "original", "read", "written"]
    body = (
        f"Relative difference of the output, in float32; the bound that the tests hold is 1e-5.\n\n{table(head, rows)}"
    )
    publish("parity", "Published networks: the same output", body)


if __name__ == "__main__":
    main()
