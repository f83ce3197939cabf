"""One training step: noise, loss, gradient, guard, update, average."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anydit.codecs import Codec
from anydit.diffusion.losses import Objective
from anydit.diffusion.times import stratified
from anydit.inference.compile import autocast
from anydit.model.conditioning import Condition
from anydit.model.dit import DiT
from anydit.tensors import MASK, Batch, Stream, drop, select
from anydit.train.ema import EMA
from anydit.train.recipe import TrainConfig
from anydit.weights import load_strictly


@dataclass(frozen=True)
class Outcome:
    """What a step left, still on the device: mean loss, the gradient's norm, and whether it was applied (1 or 0)."""

    loss: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]
    applied: Float[Tensor, ""]


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
        return {
            name: Stream(self.config.seed, f"drop {name}").uniform(step, positions) <= condition.dropout
            for name, condition in self.conditions.items()
            if condition.dropout
        }


class TrainStep:
    """The state that training changes (weights, their average, the optimizer's) and the step that changes it.

    `positions`: where the samples that this process gets are in the whole batch.
    """

    def __init__(
        self, model: DiT, codec: Codec, objective: Objective, config: TrainConfig, positions: Int[Tensor, " b"]
    ) -> None:
        self.model, self.codec, self.objective, self.config = model, codec, objective, config
        self.positions = positions.to(next(model.parameters()).device)
        self.draws = Draws(config, model.config.conditions)
        self.ema = EMA(model, config.ema_decay)
        self.optimizer = config.optimizer.build(p for p in model.parameters() if p.requires_grad)

    def __call__(self, batch: Batch, step: int) -> Outcome:
        """Update the weights from one whole batch at `step`, unless loss or gradient is not finite."""
        self.model.train()
        parts = torch.arange(len(batch.x), device=batch.x.device).chunk(self.config.accumulate)
        loss = torch.stack([self._backward(batch, part, step) for part in parts]).sum()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=True)
        applied = (loss.isfinite() & norm.isfinite()).float()
        self._update(step, applied)
        return Outcome(loss, norm, applied)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All that training changes, as named groups of tensors; parameters that are not trained are not among them."""
        moments = {
            f"{name}:{key}": torch.as_tensor(value)
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
            for key, value in self.optimizer.state[parameter].items()
        }
        kept = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        modules = {"model": self.model, "ema": self.ema.module}
        weights = {name: {k: v for k, v in m.state_dict().items() if k not in kept} for name, m in modules.items()}
        return {**weights, "optimizer": moments}

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]], source: object) -> None:
        """Put back what `state` gave.

        Raises:
            ValueError: the tensors are not of this model or optimizer.
        """
        kept = {name: p for name, p in self.model.named_parameters() if not p.requires_grad}
        load_strictly(self.model, {**kept, **groups["model"]}, f"{source}, model")
        load_strictly(self.ema.module, {**kept, **groups["ema"]}, f"{source}, ema")
        parameters = dict(self.model.named_parameters())
        states: dict[str, dict[str, Tensor]] = {}
        for key, value in groups["optimizer"].items():
            name, _, moment = key.rpartition(":")
            if name not in parameters:
                raise ValueError(
                    f"checkpoint: {source} has optimizer state for {name!r}, which the model does not have"
                )
            states.setdefault(name, {})[moment] = value
        for name, state in states.items():
            # The step counter stays where the fused kernel wants it; moments lie beside their parameter.
            self.optimizer.state[parameters[name]] = {k: v.to(parameters[name].device) for k, v in state.items()}

    def _backward(self, batch: Batch, rows: Int[Tensor, " m"], step: int) -> Float[Tensor, ""]:
        """Add the gradient of some rows' share of the batch's mean loss."""
        with torch.no_grad():
            x0 = self.codec.encode(batch.x[rows])
        # The data may know more than this model is told.
        told = {name: v for name, v in batch.cond.items() if name in self.draws.conditions or name == MASK}
        places = self.positions[rows]
        cond = drop(select(told, rows), self.draws.dropped(step, places))
        noise, t = self.draws.noise(step, places, tuple(x0.shape[1:])), self.draws.times(step, places)
        with autocast(x0.device, self.config.bf16):
            loss = self.objective.loss(self.model, x0, noise, t, cond).sum() / self.config.batch
        loss.backward()
        return loss.detach()

    def _update(self, step: int, applied: Float[Tensor, ""]) -> None:
        """Apply the gradient where `applied` is 1. The optimizer reads that on the device, so nothing waits for it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(step)
        setattr(self.optimizer, "found_inf", 1 - applied)  # noqa: B010, the fused kernel's switch that skips a step
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(step, applied)
