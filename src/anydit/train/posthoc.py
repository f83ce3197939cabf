"""Averages of any length, made when training is over (Karras 2023, arXiv 2312.02696, section 3 and appendix C).

While it goes on, averages of a few lengths are kept in which the weights of step t count as a power of t, and written
down at intervals. Any other average over the training is near to a sum of those, and least squares finds which. The
counts in that sum are made to add up to 1, which the paper leaves open, and its authors' code has by dividing by their
sum: else weights that do not change would shrink in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import check_at_least, config
from anydit.train.ema import Average, M
from anydit.weights import load_strictly, load_tensors, save_tensors

PROFILES = "profiles"
"""The folder in a run's that holds what was written down."""

LONGEST = 1 / sqrt(12)
"""The length of the plain mean over all steps; an average that grows with the age of weights is of no use."""


@config
class Profiles:
    """Averages to keep beside the usual one, of which `anydit average` makes others of any length.

    `lengths`: of each, the deviation of the times that it averages over, as a share of the training so far; two are
    enough. `every`: steps between those that are written down.
    """

    lengths: tuple[float, ...] = (0.05, 0.1)
    every: int = 500

    def __post_init__(self) -> None:
        if len({*self.lengths}) != len(self.lengths) or not self.lengths:
            raise ValueError(f"train.profiles.lengths: got {self.lengths}, expected different numbers, at least one")
        for length in self.lengths:
            check_length("train.profiles.lengths", length)
        check_at_least("train.profiles.every", self.every, 1)


def check_length(name: str, length: float) -> None:
    """Refuse what is no length of an average."""
    if not 0 < length < LONGEST:
        raise ValueError(f"{name}: got {length}, expected above 0 and below {LONGEST:.4f}, a share of the training")


class PowerAverage(Average[M]):
    """The average in which the weights of step t, the first being 1, count as t to the power that gives a `length`."""

    def __init__(self, module: M, length: float) -> None:
        super().__init__(module)
        self.power = power(length)

    def stays(self, step: int) -> float:
        return (step / (step + 1)) ** (self.power + 1)


class Averages:
    """The averages of a training, by their lengths."""

    def __init__(self, about: Profiles, module: nn.Module) -> None:
        self.about = about
        self.each = {f"{length:g}": PowerAverage(module, length) for length in about.lengths}

    def update(self, step: int, applied: Float[Tensor, ""]) -> None:
        """As the average that sampling uses."""
        for average in self.each.values():
            average.update(step, applied)

    def state(self) -> dict[str, Tensor]:
        """All of them, as `LENGTH/PARAMETER`."""
        modules = {length: average.module.state_dict() for length, average in self.each.items()}
        return {f"{length}/{name}": tensor for length, own in modules.items() for name, tensor in own.items()}

    def load_state(self, tensors: Mapping[str, Tensor], source: object) -> None:
        """Put back what `state` gave.

        Raises:
            ValueError: the tensors are not of these.
        """
        for length, average in self.each.items():
            own = {key.partition("/")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{length}/")}
            load_strictly(average.module, own, f"{source}, the average of length {length}")

    def due(self, step: int) -> bool:
        """Whether they are to be written down after `step` steps."""
        return step % self.about.every == 0

    def write(self, run: Path, step: int) -> None:
        """Write them down as they are after `step` steps."""
        (run / PROFILES).mkdir(exist_ok=True)
        save_tensors(run / PROFILES / f"step-{step:09d}.safetensors", self.state())

    def forget(self, run: Path, after: int) -> None:
        """Remove what was written down after that step, the newest first: it is of a course that was given up."""
        for step, file in sorted(_written(run).items(), reverse=True):
            if step > after:
                file.unlink()


@cache
def power(length: float) -> float:
    """The power of time by whose profile an average is `length` long (equation 126, solved)."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


@dataclass(frozen=True)
class Made:
    """An average made afterwards: its weights, its length, and up to which step it goes.

    `misfit`: how far its profile in time is from the one that was asked for, as a share of that.
    """

    weights: dict[str, Tensor]
    length: float
    step: int
    misfit: float


def averaged(run: Path, length: float, step: int | None = None) -> Made:
    """The average of a run's weights over `length` of its training, up to `step` or to what was last written down.

    Raises:
        ValueError: the run kept no averages, or none of that step; the length is out of range.
    """
    check_length("length", length)
    files = _written(run)
    if not files:
        raise ValueError(f"run: got {run}, which kept no averages; expected one trained with --train.profiles Profiles")
    last = max(files) if step is None else step
    if last not in files:
        raise ValueError(f"step: got {last}, expected one of {', '.join(map(str, files))}, which were written down")
    lengths = dict.fromkeys(key.partition("/")[0] for key in load_tensors(files[last]))
    kept = [(time, own) for time in files if time <= last for own in lengths]
    counts, misfit = fitted([(time, float(own)) for time, own in kept], (last, length))
    return Made(_sum(files, dict(zip(kept, counts, strict=True))), length, last, misfit)


def _written(run: Path) -> dict[int, Path]:
    """The files of a run's averages, by step."""
    return {int(f.stem.removeprefix("step-")): f for f in sorted((run / PROFILES).glob("step-*.safetensors"))}


def _sum(files: Mapping[int, Path], counts: Mapping[tuple[int, str], float]) -> dict[str, Tensor]:
    """The sum of what was written down, each so many times; in doubles, since large numbers of either sign cancel."""
    total: dict[str, Tensor] = {}
    for time in sorted({time for time, _ in counts}):
        for key, tensor in load_tensors(files[time]).items():
            length, _, name = key.partition("/")
            part = counts[time, length] * tensor.double()
            total[name] = total[name] + part if name in total else part
    return {name: tensor.float() for name, tensor in total.items()}


def fitted(kept: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> tuple[list[float], float]:
    """How much of each kept average adds up to the wanted one, and how far from it that is, as a share of it.

    Each is given by the step up to which it goes and its length. Least squares between their profiles in time, among
    counts that add up to 1 (with a multiplier of Lagrange's as the last unknown).
    """
    last, length = wanted
    kept, wanted = [(time / last, own) for time, own in kept], (1.0, length)
    products = np.array([[_product(a, b) for b in kept] for a in kept])
    aims = np.array([_product(a, wanted) for a in kept])
    whole = _product(wanted, wanted)
    bordered = np.pad(products, (0, 1), constant_values=1.0)
    bordered[-1, -1] = 0.0
    counts = np.linalg.lstsq(bordered, np.append(aims, 1.0))[0][:-1]
    left = whole - 2 * counts @ aims + counts @ products @ counts
    return counts.tolist(), sqrt(max(0.0, float(left)) / whole)


def _product(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The integral over time of the product of two profiles, each (p + 1) t^p / end^(p + 1) up to its end."""
    (end_a, p), (end_b, q) = ((end, power(length)) for end, length in (a, b))
    first = min(end_a, end_b)
    shares = (first / end_a) ** p * (first / end_b) ** q / max(end_a, end_b)
    return (p + 1) * (q + 1) / (p + q + 1) * shares
