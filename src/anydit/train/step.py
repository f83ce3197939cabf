"""One training step: noise, loss, gradient, guard, update, average."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anydit.codecs import Codec
from anydit.codecs.base import Grouped, coarser, in_parts
from anydit.diffusion.losses import Objective
from anydit.inference.compile import autocast
from anydit.model.dit import DiT
from anydit.model.tokens import grid_of, token_mask
from anydit.tensors import MASK, Batch, Tokens, drop, mask_of, select
from anydit.train.checkpoint import WHOLE, Share
from anydit.train.config import LoopConfig, TrainConfig
from anydit.train.context import share_tokens
from anydit.train.draws import Draws
from anydit.train.ema import EMA
from anydit.train.guards import Norms
from anydit.train.optim import CLIP_EPS, moments_of, put_moments, switches
from anydit.train.parallel import ALONE, Processes, held_back
from anydit.train.posthoc import PROFILES, Averages
from anydit.train.routing import Detour
from anydit.weights import load_strictly

if TYPE_CHECKING:
    from anydit.kernels.update import OnePass
    from anydit.train.split import Split

M = TypeVar("M", bound=nn.Module)

LOSS = "loss"
"""The term that is minimised; the others are told beside it."""

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a step left, still on the device: mean loss, the gradient's norm, and whether it was applied (1 or 0).

    `terms`: what the log tells beside these, by name.
    """

    loss: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]
    applied: Float[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict[str, Tensor])


class Step(ABC, Generic[M]):
    """The state that training changes (weights, their average, the optimizer's) and the step that changes it.

    What needs no gradient is left as it is. `positions`: where this process's samples are in the whole batch. `layers`:
    the modules of the model whose weights are gathered at a time, where processes have parts of them. Then `trained`
    is this process's part of the parameters, and `ema` averages that part; the model may be on the CPU before, and need
    not fit into the device's memory. `shares`: of the learning rate, for parameters that do not get all of it.
    """

    def __init__(
        self,
        model: M,
        config: LoopConfig,
        positions: Int[Tensor, " b"],
        processes: Processes = ALONE,
        layers: Iterable[nn.Module] = (),
        shares: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.model, self.loop, self.processes = model, config, processes
        self.ema = EMA(model, config.ema_decay)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.split: Split | None = None
        if processes.mesh.splits:
            self.split = _split(model, layers, processes, config.timeout)
            self.trained = self.split.own
            self.ema.follow(self.trained)
        device = next(iter(self.trained.values())).device
        self.positions = positions.to(device)
        self.norms = None if config.spikes is None else Norms(config.spikes, device)
        self.optimizer = config.optimizer.build(self.trained, shares)
        self.one_pass: OnePass | None = None

    @cached_property
    def _shared(self) -> nn.Module:
        """The terms, with their gradients of all processes; made when all of them take their first step."""
        return self.processes.replicated(_Share(self), idle=self._idle)

    @property
    def _idle(self) -> bool:
        """Whether there are parameters that have no part in the loss."""
        return False

    def __call__(self, batch: Batch, step: int) -> Outcome:
        """Update the weights from this process's share of a batch at `step`, unless its loss or gradient is amiss."""
        self.model.train()
        parts = torch.arange(len(batch.x), device=batch.x.device).chunk(self.loop.accumulate)
        shares = [self._backward(batch, part, step, last=part is parts[-1]) for part in parts]
        sums = self.processes.total(torch.stack([torch.stack([*share.values()]) for share in shares]).sum(0))
        terms = dict(zip(shares[0], sums.unbind(), strict=True))
        loss = terms.pop(LOSS)
        norm = self._norm()
        applied = (loss.isfinite() & norm.isfinite()).float()
        if self.norms is not None:
            applied = applied * self.norms.usual(norm)
            self.norms.see(norm, applied)
        self._update(step, norm, applied)
        return Outcome(loss, norm, applied, terms)

    @abstractmethod
    def terms(self, batch: Batch, rows: Int[Tensor, " m"], step: int) -> Terms:
        """The share of some rows of a batch in its mean loss, and of what else is told of it."""

    @property
    def share(self) -> Share:
        """Which part of the state this process has."""
        return WHOLE if self.split is None else self.split.share

    def gather(self) -> None:
        """Where processes have parts of the average, put it together in `ema.module`, on the CPU; all must ask."""
        if self.split is not None:
            whole = {name: self.split.whole(name, rows).cpu() for name, rows in self.ema.own.items()}
            load_strictly(self.ema.module, whole, "average")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The block may use `ema.module` for samples: where it is kept on the CPU, it is on the device in there."""
        if self.split is None:
            yield
            return
        try:
            self.ema.module.to(self.positions.device)
            yield
        finally:
            self.ema.module.cpu()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All that training changes, as named groups of tensors; parameters that are not trained are not among them.

        Where processes have parts of it, this one's.
        """
        if self.split is not None:
            weights = {"model": {name: p.detach() for name, p in self.trained.items()}, "ema": dict(self.ema.own)}
        else:
            modules, kept = {"model": self.model, "ema": self.ema.module}, self._kept
            weights = {name: {k: v for k, v in m.state_dict().items() if k not in kept} for name, m in modules.items()}
        usual = {} if self.norms is None else {"norms": self.norms.state()}
        return {**weights, "optimizer": moments_of(self.optimizer, self.trained), **usual}

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]], source: object) -> None:
        """Put back what `state` gave; the norms may be missing, as in checkpoints from before there were any.

        Raises:
            ValueError: the tensors are not of this model or optimizer.
        """
        whole = self.split is None
        kept = self._kept if whole else {}
        load_strictly(self.model if whole else self.trained, {**kept, **groups["model"]}, f"{source}, model")
        load_strictly(self.ema.module if whole else self.ema.own, {**kept, **groups["ema"]}, f"{source}, ema")
        put_moments(self.optimizer, self.trained, groups["optimizer"], source)
        if self.norms is not None and "norms" in groups:
            self.norms.load_state(groups["norms"])

    @property
    def _kept(self) -> dict[str, nn.Parameter]:
        """The parameters that stay as they are."""
        return {name: p for name, p in self.model.named_parameters() if not p.requires_grad}

    def _backward(self, batch: Batch, rows: Int[Tensor, " m"], step: int, *, last: bool) -> Terms:
        """Add the gradient of some rows' share of the batch's mean loss; with the last, of all processes' shares."""
        with nullcontext() if last else held_back(self._shared):
            terms: Terms = self._shared(batch, rows, step)
            (terms[LOSS] * self.processes.different).backward()  # the mean over processes is then the sum
        return {name: term.detach() for name, term in terms.items()}

    def _norm(self) -> Float[Tensor, ""]:
        """Of the gradient of the whole model."""
        found = [p.grad for p in self.trained.values()] if self.split is None else self.split.collect()
        gradients = [gradient for gradient in found if gradient is not None]
        return self.processes.norm(torch.nn.utils.get_total_norm(gradients, foreach=True))

    def _update(self, step: int, norm: Float[Tensor, ""], applied: Float[Tensor, ""]) -> None:
        """Apply the gradient, shortened to at most the config's norm, where `applied` is 1.

        The optimizer reads both on the device, so that nothing waits for them, nor takes a pass of its own.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.loop.rate(step) * group["share"]
        divisor = ((norm + CLIP_EPS) / self.loop.clip).clamp(min=1)
        if self.one_pass is None:
            switches(self.optimizer, divisor, applied)
            self.optimizer.step()
            self.ema.update(step, applied)
        else:
            self.one_pass(divisor, applied, applied * (1 - self.ema.stays(step)))
        self.optimizer.zero_grad(set_to_none=True)


def _split(model: nn.Module, layers: Iterable[nn.Module], processes: Processes, patience: float) -> "Split":
    """Cut the model into pieces; only here is FSDP2 imported, which takes a second."""
    from anydit.train.split import Split

    return Split(model, layers, processes, patience)


class _Share(nn.Module):
    """A step's terms as a module's output, which is what processes can share."""

    def __init__(self, step: Step[Any]) -> None:
        super().__init__()
        self.model, self._terms = step.model, step.terms

    def forward(self, batch: Batch, rows: Int[Tensor, " m"], step: int) -> Terms:
        return self._terms(batch, rows, step)


class TrainStep(Step[DiT]):
    """A step of a diffusion model, on latents of a codec that stays as it is.

    `fields`: what encodes the fields that are coded; one that is not named is latents already.
    """

    def __init__(
        self,
        model: DiT,
        codec: Codec,
        objective: Objective,
        config: TrainConfig,
        positions: Int[Tensor, " b"],
        processes: Processes = ALONE,
        fields: Mapping[str, Grouped] | None = None,
    ) -> None:
        shares = {} if config.width is None else config.width.shares(model)
        super().__init__(model, config, positions, processes, model.blocks, shares)
        self.codec, self.objective, self.config = codec, objective, config
        self.draws = Draws(config, model.config.conditions)
        self.fields = fields or {}
        self.detour = None if config.routing is None else Detour(config.routing, model)
        self.averages = None if config.profiles is None else Averages(config.profiles, model)
        if config.kernels is not None:
            self.one_pass = config.kernels.one_pass(self.optimizer, self.trained, self.ema.own)
        if processes.mesh.context > 1:
            share_tokens(model, processes)

    def terms(self, batch: Batch, rows: Int[Tensor, " m"], step: int) -> Terms:
        with torch.no_grad():
            x0 = in_parts(self.codec.encode, batch.x[rows])
            told = select(self._told(batch), rows)
            for name, field in self.fields.items():
                told[name] = in_parts(field.encode, cast("Tensor", told[name]))
            if MASK in told:
                told[MASK] = coarser(cast("Tensor", told[MASK]), tuple(x0.shape[2:]))
        places = self.positions[rows]
        cond = drop(told, self.draws.dropped(step, places))
        noise, t = self.draws.noise(step, places, tuple(x0.shape[1:])), self.draws.times(step, places)
        with autocast(x0.device, self.config.bf16), self._routed(step, places, tuple(x0.shape[2:]), mask_of(cond)):
            return {LOSS: self.objective.loss(self.model, x0, noise, t, cond).sum() / self.config.batch}

    @property
    def _idle(self) -> bool:
        return any(not c.dropout for c in self.draws.conditions.values())  # their nulls

    def state(self) -> dict[str, dict[str, Tensor]]:
        return super().state() | ({} if self.averages is None else {PROFILES: self.averages.state()})

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]], source: object) -> None:
        super().load_state(groups, source)
        if self.averages is not None:
            self.averages.load_state(groups[PROFILES], source)

    def _update(self, step: int, norm: Float[Tensor, ""], applied: Float[Tensor, ""]) -> None:
        super()._update(step, norm, applied)
        if self.averages is not None:
            self.averages.update(step, applied)

    def _routed(
        self, step: int, places: Int[Tensor, " m"], size: tuple[int, ...], mask: Bool[Tensor, "m *space"] | None
    ) -> AbstractContextManager[None]:
        """Within it, some tokens of each sample pass by blocks, if the config says so."""
        if self.detour is None:
            return nullcontext()
        patch = self.model.config.patch
        exists = None if mask is None else token_mask(mask, patch)
        return self.detour.taken(self.draws.kept(step, places, prod(grid_of(size, patch)), exists))

    def _told(self, batch: Batch) -> dict[str, Tensor | Tokens]:
        """The conditions of this model; the data may know more."""
        return {name: v for name, v in batch.cond.items() if name in self.draws.conditions or name == MASK}
