"""What a network's output means. Each prediction is `a x0 + b noise` for coefficients of the path; all else follows."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from anydit.config import config
from anydit.diffusion.paths import Path, Times
from anydit.tensors import per_sample

Samples = Float[Tensor, "b c *space"]


class Prediction(ABC):
    """The network's output as a combination of data and noise."""

    @abstractmethod
    def coefficients(self, path: Path, t: Times) -> tuple[Times, Times]:
        """A and b of `output = a x0 + b noise`."""

    def target(self, path: Path, x0: Samples, noise: Samples, t: Times) -> Samples:
        """What the network should answer."""
        a, b = self.coefficients(path, t)
        return per_sample(a, x0) * x0 + per_sample(b, x0) * noise

    def x0(self, path: Path, xt: Samples, output: Samples, t: Times) -> Samples:
        """The data that an output implies: solves `xt = alpha x0 + sigma noise` and `output = a x0 + b noise`."""
        a, b = self.coefficients(path, t)
        determinant = b * path.alpha(t) - a * path.sigma(t)
        return per_sample(b / determinant, xt) * xt - per_sample(path.sigma(t) / determinant, xt) * output

    def sensitivity(self, path: Path, t: Times) -> Times:
        """How far x0 moves for each unit that the output is off: |d x0 / d output|."""
        a, b = self.coefficients(path, t)
        return (path.sigma(t) / (b * path.alpha(t) - a * path.sigma(t))).abs()


@config
class Noise(Prediction):
    """The noise itself (Ho 2020). Not for a path that ends in pure noise: there it says nothing about the data."""

    def coefficients(self, path: Path, t: Times) -> tuple[Times, Times]:
        return t.new_zeros(t.shape), t.new_ones(t.shape)


@config
class X0(Prediction):
    """The data itself."""

    def coefficients(self, path: Path, t: Times) -> tuple[Times, Times]:
        return t.new_ones(t.shape), t.new_zeros(t.shape)

    def x0(self, path: Path, xt: Samples, output: Samples, t: Times) -> Samples:
        return output  # solving for it would divide 0 by 0 at t = 0

    def sensitivity(self, path: Path, t: Times) -> Times:
        return t.new_ones(t.shape)


@config
class V(Prediction):
    """v = alpha noise - sigma x0 (Salimans & Ho 2022)."""

    def coefficients(self, path: Path, t: Times) -> tuple[Times, Times]:
        return -path.sigma(t), path.alpha(t)


@config
class Velocity(Prediction):
    """The velocity d xt / dt of flow matching (Lipman 2022)."""

    def coefficients(self, path: Path, t: Times) -> tuple[Times, Times]:
        return path.d_alpha(t), path.d_sigma(t)


AnyPrediction = Noise | X0 | V | Velocity


def noise_in(path: Path, xt: Samples, x0: Samples, t: Times) -> Samples:
    """The noise that `xt` holds if its data is `x0`; t must be above 0."""
    return (xt - per_sample(path.alpha(t), xt) * x0) / per_sample(path.sigma(t), xt)


def velocity_in(path: Path, xt: Samples, x0: Samples, t: Times) -> Samples:
    """D xt / dt if the data is `x0`; t must be above 0."""
    noise = noise_in(path, xt, x0, t)
    return per_sample(path.d_alpha(t), xt) * x0 + per_sample(path.d_sigma(t), xt) * noise
