"""Steps of which nothing was told yet: what they left stays on the device until it is asked for, of all at once."""

import zlib
from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

from anydit.config import Json
from anydit.train.parallel import Word
from anydit.train.step import Outcome

NOT_FINITE = "loss or gradient is not finite"


class Pending(NamedTuple):
    """A step as it was taken: what it left, its learning rate, and the ids of its samples, which processes say."""

    step: int
    outcome: Outcome
    lr: float
    word: Word


class Taken(NamedTuple):
    """The same, read: `told` is its line of the log."""

    step: int
    loss: float
    norm: float
    applied: bool
    told: Json

    @property
    def finite(self) -> bool:
        """Whether it could be applied at all."""
        return isfinite(self.loss + self.norm)

    @property
    def why(self) -> str:
        """Why it was not applied."""
        return f"gradient, of norm {self.norm:.3g}, is out of all proportion" if self.finite else NOT_FINITE


def taken(pending: Sequence[Pending], per_part: int) -> list[Taken]:
    """Steps, read off the device in one wait for all of them. `per_part`: processes that read the same samples."""
    found = list[Taken]()
    for step, outcome, lr, word in pending:
        loss, norm, applied = float(outcome.loss), float(outcome.grad_norm), bool(outcome.applied)
        ids = word.heard()[::per_part, :-1].contiguous()
        told: Json = {"step": step, "lr": lr, "ids": zlib.crc32(ids.numpy().tobytes())}
        told |= {"loss": loss, "loss_hex": loss.hex(), "grad_norm": norm, "skipped": not applied}
        told |= {name: float(term) for name, term in outcome.terms.items()}
        found.append(Taken(step, loss, norm, applied, told))
    return found
