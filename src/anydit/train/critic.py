"""A critic of reconstructions: a network that tells patches of them from patches of data, and what misleads it."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from anydit.config import check_at_least, check_positive, config
from anydit.train.optim import AdamW, moments_of, put_moments, switches
from anydit.weights import load_strictly

GROUPS = 8
"""Of its group norms."""


@config
class CriticConfig:
    """A patch discriminator (Isola 2016, Esser 2020), by MONAI, trained on the hinge loss beside the autoencoder.

    `weight`: of misleading it, in the autoencoder's loss. `start`: the step from which on it is trained and misled.
    `width`: channels of its first layer. `layers`: each doubles the channels; all but the last halve the axes.
    """

    weight: float = 0.1
    start: int = 1000
    width: int = 32
    layers: int = 2
    optimizer: AdamW = AdamW(lr=2e-4, betas=(0.5, 0.9))

    def __post_init__(self) -> None:
        check_positive("train.critic.weight", self.weight)
        check_at_least("train.critic.start", self.start, 0)
        check_at_least("train.critic.layers", self.layers, 1)
        if self.width < 1 or self.width % GROUPS:
            raise ValueError(f"train.critic.width: got {self.width}, expected a multiple of {GROUPS}")


class Critic:
    """The network, its optimizer, and what it has been shown since it learned last."""

    def __init__(self, about: CriticConfig, shape: tuple[int, ...], seed: int, device: torch.device) -> None:
        self.about, self._shown = about, list[tuple[Tensor, Tensor]]()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)  # not the autoencoder's own numbers
            self.network: Any = _monai()(
                len(shape) - 1, about.width, shape[0], num_layers_d=about.layers, norm=("GROUP", {"num_groups": GROUPS})
            ).to(device)
        self.trained = dict(self.network.named_parameters())
        self.optimizer = about.optimizer.build(self.trained)

    def misled(self, made: Tensor, y: Tensor, step: int) -> Float[Tensor, ""]:
        """The autoencoder's share of the game: less where reconstructions pass for data. Both are kept for `learn`."""
        if step < self.about.start:
            return made.new_zeros(())
        self._shown.append((made.detach(), y.detach()))
        return -self.about.weight * self._judged(made).mean()

    def learn(self, step: int, applied: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Learn from what was shown, if the autoencoder's step was applied; returns the hinge loss."""
        self.optimizer.zero_grad(set_to_none=True)  # of misleading it
        total = applied.new_zeros(())
        for made, y in self._shown:
            loss = (F.relu(1 + self._judged(made)).mean() + F.relu(1 - self._judged(y)).mean()) / len(self._shown)
            loss.backward()
            total += loss.detach()
        if self._shown:
            switches(self.optimizer, None, applied * total.isfinite())
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self._shown.clear()
        return total

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Its weights and the optimizer's state, as named groups of tensors."""
        return {"critic": self.network.state_dict(), "critic-optimizer": moments_of(self.optimizer, self.trained)}

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]], source: object) -> None:
        """Put back what `state` gave.

        Raises:
            ValueError: the tensors are not of this critic.
        """
        load_strictly(self.network, groups["critic"], f"{source}, critic")
        put_moments(self.optimizer, self.trained, groups["critic-optimizer"], source)

    def _judged(self, y: Tensor) -> Tensor:
        """A number for each patch: above 0 for data, below for reconstructions."""
        return self.network(y)[-1].float()


def _monai() -> Any:
    try:
        from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
    except ImportError:
        raise ValueError("train.critic needs MONAI, which is missing; pip install 'anydit[autoencoder]'") from None
    return PatchDiscriminator
