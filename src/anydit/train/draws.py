"""What a training step draws at random: the same for a sample whichever process has it, and whenever a run goes on."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from anydit.diffusion.times import stratified
from anydit.model.conditioning import Condition
from anydit.tensors import Stream
from anydit.train.config import TrainConfig


@dataclass(frozen=True)
class Draws:
    """The randomness of a training step: a pure function of (seed, step, the sample's global position in the batch)."""

    config: TrainConfig
    conditions: dict[str, Condition]

    def times(self, step: int, positions: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Times to train at."""
        u = Stream(self.config.seed, "time").uniform(step, positions)
        return self.config.times.at(stratified(u, positions, self.config.batch) if self.config.stratified else u)

    def noise(self, step: int, positions: Int[Tensor, " b"], shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
        """The noise to add."""
        return Stream(self.config.seed, "noise").normal(step, positions, shape)

    def dropped(self, step: int, positions: Int[Tensor, " b"]) -> dict[str, Bool[Tensor, " b"]]:
        """Which conditions to make null."""
        shares = {name: condition.dropout for name, condition in self.conditions.items() if condition.dropout}
        if not shares:
            return {}
        every = Stream(self.config.seed, "drop all").uniform(step, positions) <= self.config.drop_all
        return {
            name: every | (Stream(self.config.seed, f"drop {name}").uniform(step, positions) <= share)
            for name, share in shares.items()
        }

    def kept(
        self, step: int, positions: Int[Tensor, " b"], tokens: int, exists: Bool[Tensor, "b n"] | None
    ) -> Int[Tensor, "b m"]:
        """Which tokens of each sample go through all blocks, where others pass by some."""
        assert self.config.routing is not None
        return self.config.routing.kept(Stream(self.config.seed, "route"), step, positions, tokens, exists)
