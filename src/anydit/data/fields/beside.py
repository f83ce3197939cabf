"""What files say beside the values of fields, by the conventions of NetCDF: what is kept of it, and what is not."""

from collections.abc import Iterable, Iterator, Mapping

from anydit.config import config
from anydit.data.fields.contents import Contents, Variable

KEPT = ("standard_name", "long_name", "positive", "axis")
"""The attributes that are written as they were read, of variables and of axes; `positive` says where heights go."""

BESIDE = ("coordinates", "bounds", "climatology", "grid_mapping", "cell_measures")
"""The attributes that name other arrays, which tell of the grid and are no fields on it."""


@config
class About:
    """What a file says `of` a variable or an axis by an attribute's `name`."""

    of: str
    name: str
    text: str


def about(told: Mapping[str, Variable]) -> tuple[About, ...]:
    """The attributes that are kept, by what they are of."""
    found = ((of, name, variable.attributes.get(name)) for of, variable in told.items() for name in KEPT)
    return tuple(About(of, name, text) for of, name, text in found if isinstance(text, str) and text)


def named(variable: Variable) -> Iterator[str]:
    """The arrays that tell of a variable's grid, as it names them."""
    for attribute in BESIDE:
        told = variable.attributes.get(attribute)
        for word in told.split() if isinstance(told, str) else ():
            # "crs: x y" and "area: cells" have names of axes, or of what is measured, beside those of arrays.
            if attribute != "cell_measures" or not word.endswith(":"):
                yield word.rstrip(":").lstrip("/")


def beside(contents: Contents) -> set[str]:
    """The arrays of a file that tell of the grid of others, by name."""
    told = (contents.coordinate(v, name) for v in contents.variables.values() for name in named(v))
    return {variable.name for variable in told if variable is not None}


def lost(variables: Iterable[Variable], kept: Iterable[Variable]) -> list[str]:
    """What the variables and their axes name that is not written: all but the `kept` coordinates of these axes."""
    known = list(kept)
    names = dict.fromkeys(name.rpartition("/")[2] for v in (*variables, *known) for name in named(v))
    axes = {axis for v in variables for axis in v.axes} | {v.own_name for v in known}
    return [name for name in names if name not in axes]
