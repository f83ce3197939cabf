"""List the recipes, or show one whole.

anydit recipes
anydit recipes digits
"""

import json
from inspect import getdoc

from anydit.config import to_json
from anydit.recipes import RECIPES, find


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    if len(argv) > 1 or any(word.startswith("-") for word in argv):
        raise ValueError(f"recipe: got {' '.join(argv)}, expected one recipe, and no flags")
    if argv:
        print(json.dumps(to_json(find(argv[0])()), indent=2))
        return 0
    width = max(map(len, RECIPES)) + 1
    for name, make in RECIPES.items():
        print(f"{name:{width}}{(getdoc(make) or '').splitlines()[0]}")
    print("\nTrain one:  anydit train digits        All its fields:  anydit train digits --help")
    return 0
