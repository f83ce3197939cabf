"""A modality's own figures: one file beside this one for each, which `anydit/evaluate/__init__.py` imports.

Such a file registers a function for its modality's View: `@own.register`, `def _(view: MyView, x, sets) -> Own`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from anydit.data import View
from anydit.evaluate.compare import Figure
from anydit.evaluate.sets import Sets


@dataclass(frozen=True)
class Own:
    """Figures by name, each with its floor, pictures by what is written under them on the page, and notes."""

    figures: Mapping[str, Figure] = field(default_factory=dict[str, Figure])
    pictures: Mapping[str, Image] = field(default_factory=dict[str, Image])
    notes: tuple[str, ...] = ()


@singledispatch
def own(view: View, x: Float[Tensor, "n c *space"], sets: Sets) -> Own:
    """The figures of samples `x`, under the conditions `sets.rows` of held-out data, that only this view has; or none.

    The same `x` are in every other figure; `sets.real` and `sets.read_train` are the data to compare with.
    """
    return Own()
