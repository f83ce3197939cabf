"""Samples as changes of what is known: of the state before in a forecast, which most of the next one is already."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from anydit.data.base import Samples, Wrapped
from anydit.data.buckets import each_size
from anydit.tensors import Batch


def last(field: Float[Tensor, "n k *space"], channels: int) -> Float[Tensor, "n c *space"]:
    """The last sample of so many channels in a field of several, one after the other."""
    return field[:, -channels:]


def changes(samples: Samples, name: str | None) -> Samples:
    """The same samples, each less the last sample in its field condition `name` (None: as they are).

    Raises:
        ValueError: the data have no such field, or it does not hold whole samples.
    """
    if name is None:
        return samples

    def changed(part: Samples) -> Samples:
        held, channels = part.facts.fields.get(name), part.facts.channels
        if held is None or held % channels:
            got = "the data have none" if held is None else f"it has {held} channels"
            raise ValueError(
                f"change_of: got {name}, of which {got}; expected a field of samples of {channels} channels"
            )
        return Changes(part, name)

    return each_size(samples, changed)


@dataclass(frozen=True)
class Changes(Wrapped):
    """`changes` of samples of one size."""

    name: str

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        batch = self.samples.read(ids)
        return replace(batch, x=batch.x - last(batch.tensor(self.name), batch.x.shape[1]))
