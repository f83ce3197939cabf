"""A network, a path and a prediction, together a denoiser."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from anydit.diffusion.paths import Path
from anydit.diffusion.predictions import Prediction
from anydit.tensors import Cond, Denoised


@runtime_checkable
class Network(Protocol):
    """What a denoiser needs of a network: `network(xt, t, cond)`, of any class."""

    def __call__(self, x: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """The prediction: `Float[b c *space]`, or twice the channels where the variance is learned."""
        ...


@dataclass(frozen=True)
class NetworkDenoiser:
    """Reads a network's output as the expected data, and as the variance where the network learned it."""

    network: Network
    path: Path
    prediction: Prediction
    learned_variance: bool = False

    def denoise(self, xt: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond) -> Denoised:
        """Call the network once."""
        output = self.network(xt, t, cond).type_as(xt)
        if not self.learned_variance:
            return Denoised(self.prediction.x0(self.path, xt, output, t))
        output, variance = output.chunk(2, dim=1)
        return Denoised(self.prediction.x0(self.path, xt, output, t), (variance + 1) / 2)
