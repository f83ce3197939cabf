"""What every level shares: the batch, conditions with a null per sample, the denoiser seam, counter-based noise."""

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import nan, pi, prod
from typing import NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

MASK = "mask"
"""The condition that says which positions of a sample exist (`Bool[b *space]`); it is never dropped."""


class Tokens(NamedTuple):
    """A condition of several tokens for each sample, as a text encoder makes them; what `exists` denies is padding.

    `pooled`: one vector of each whole text, where the encoder makes one.
    """

    values: Float[Tensor, "b n d"]
    exists: Bool[Tensor, "b n"]
    pooled: Float[Tensor, "b p"] | None = None


class Masked(NamedTuple):
    """A condition that is known for some samples only: where `present` is False the model uses its learned null."""

    value: Tensor | Tokens
    present: Bool[Tensor, " b"]


Cond = Mapping[str, Tensor | Masked | Tokens]
"""What is known about each sample, by the condition's name; a name that is absent is null for the whole batch."""

C = TypeVar("C", bound=Tensor | Masked | Tokens)


@dataclass(frozen=True)
class Batch:
    """Samples `x: Float[b c *space]`, what is known about them, and their ids in the data set (`Int[b]`).

    `texts`: by the condition's name, a text for each sample; an encoder makes `Tokens` in `cond` of them.
    """

    x: Tensor
    cond: Mapping[str, Tensor | Tokens]
    ids: Tensor
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`, copied without waiting where the memory allows it."""
        cond = {name: changed(value, lambda v: v.to(device, non_blocking=True)) for name, value in self.cond.items()}
        return Batch(self.x.to(device, non_blocking=True), cond, self.ids, self.texts)

    def pinned(self) -> "Batch":
        """The batch in memory that is copied to a GPU while the processor goes on."""
        cond = {name: changed(value, Tensor.pin_memory) for name, value in self.cond.items()}
        return Batch(self.x.pin_memory(), cond, self.ids, self.texts)

    def tensor(self, name: str) -> Tensor:
        """The values of a condition that is no `Tokens`: labels, numbers, a field."""
        value = self.cond[name]
        assert isinstance(value, Tensor)
        return value


@dataclass(frozen=True)
class Denoised:
    """A denoiser's answer: the expected data `x0: Float[b c *space]`.

    `variance`, where the network learned it, is the weight with which the log of the step's upper bound on the reverse
    variance enters, against its lower bound's: from 0 to 1, but not clamped (Nichol & Dhariwal 2021, eq. 15).
    """

    x0: Tensor
    variance: Tensor | None = None


@runtime_checkable
class Denoiser(Protocol):
    """The seam between networks and everything that uses one."""

    def denoise(self, xt: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond) -> Denoised:
        """Estimate the data behind `xt` at times `t`, one per sample (0 is data, 1 is noise)."""
        ...


class Constants:
    """Tensors that follow from a config: made once for each key and device, in no state, left alone by `module.to`."""

    def __init__(self) -> None:
        self._made: dict[tuple[Hashable, torch.device], Tensor] = {}

    def get(self, key: Hashable, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
        """What `make` returned for this key, on `device`."""
        if (key, device) not in self._made:
            with torch.inference_mode(False):  # made while sampling, it must still serve training
                self._made[key, device] = make().to(device)
        return self._made[key, device]


def per_sample(values: Shaped[Tensor, " b"], like: Tensor) -> Tensor:
    """Shape one value per sample so that it broadcasts over `like: [b ...]`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def doubles(values: Tensor) -> Tensor:
    """`values` in double precision: where they are, but on the CPU in place of Apple's GPUs, which have none."""
    return values.to(_exact(values.device)).double()  # in this order, or they might be made on the way


def _exact(device: torch.device) -> torch.device:
    return torch.device("cpu") if device.type == "mps" else device


def changed(condition: C, change: Callable[[Tensor], Tensor]) -> C:
    """A condition with `change` applied to each of its tensors."""
    if isinstance(condition, Tensor):
        return cast("C", change(condition))
    if isinstance(condition, Masked):
        return cast("C", Masked(changed(condition.value, change), change(condition.present)))
    values, exists, pooled = condition
    return cast("C", Tokens(change(values), change(exists), None if pooled is None else change(pooled)))


def known(condition: Tensor | Masked | Tokens) -> tuple[Tensor | Tokens, Bool[Tensor, " b"] | None]:
    """A condition's values, and for which samples they hold (None: for all)."""
    return (condition.value, condition.present) if isinstance(condition, Masked) else (condition, None)


def mask_of(cond: Cond) -> Bool[Tensor, " b *space"] | None:
    """Which positions of the samples exist (None: all)."""
    return cast("Tensor", known(cond[MASK])[0]) if MASK in cond else None


def existing(x: Float[Tensor, "b c *space"], cond: Mapping[str, Tensor | Masked | Tokens]) -> Tensor:
    """Samples as they are where the mask says that they exist, and NaN elsewhere."""
    mask = mask_of(cond)
    return x if mask is None else x.masked_fill(~mask[:, None], nan)


def drop(cond: Cond, where: Mapping[str, Bool[Tensor, " b"]]) -> Cond:
    """`cond` with each named condition made null for the samples where its flag is set."""
    out = dict(cond)
    for name, dropped in where.items():
        value, present = known(cond[name])
        out[name] = Masked(value, ~dropped if present is None else present & ~dropped)
    return out


def null(cond: Cond, always: Set[str] = frozenset()) -> Cond:
    """`cond` with every condition null but those that are `always` given; the mask stays, being part of the sample."""
    return {name: value for name, value in cond.items() if name == MASK or name in always}


def concatenate(conds: Sequence[Cond], batch: int) -> Cond:
    """Conditions of several batches of the same size `batch`, as those of one; a name absent from one is null there.

    Tokens are padded to the longest.
    """
    out: dict[str, Tensor | Masked | Tokens] = {}
    for name in dict.fromkeys(name for cond in conds for name in cond):
        like = next(known(cond[name])[0] for cond in conds if name in cond)
        parts = [known(cond[name]) if name in cond else None for cond in conds]
        value = _together([like if part is None else part[0] for part in parts])
        if all(part is not None and part[1] is None for part in parts):
            out[name] = value
            continue
        device = (like.exists if isinstance(like, Tokens) else like).device
        yes, no = (torch.full((batch,), flag, dtype=torch.bool, device=device) for flag in (True, False))
        out[name] = Masked(value, torch.cat([no if p is None else yes if p[1] is None else p[1] for p in parts]))
    return out


def _together(values: Sequence[Tensor | Tokens]) -> Tensor | Tokens:
    """The values of one condition for several batches, as those of one."""
    if isinstance(values[0], Tensor):
        return torch.cat(cast("list[Tensor]", values))
    tokens = cast("Sequence[Tokens]", values)
    short = [max(each.values.shape[1] for each in tokens) - each.values.shape[1] for each in tokens]
    vectors = [each.pooled for each in tokens if each.pooled is not None]
    assert len(vectors) in (0, len(tokens))
    return Tokens(
        torch.cat([F.pad(each.values, (0, 0, 0, by)) for each, by in zip(tokens, short, strict=True)]),
        torch.cat([F.pad(each.exists, (0, by)) for each, by in zip(tokens, short, strict=True)]),
        torch.cat(vectors) if vectors else None,
    )


def select(cond: Mapping[str, C], index: slice | Tensor) -> dict[str, C]:
    """The conditions of some samples of a batch."""
    return {name: changed(condition, lambda part: part[index]) for name, condition in cond.items()}


@dataclass(frozen=True)
class Stream:
    """A named sequence of random numbers, without state: a pure function of (seed, name, step, position, element).

    Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The bits are the same on every
    device and for every split of a batch among processes; normals agree to float32 rounding.
    """

    seed: int
    name: str

    def uniform(self, step: int, positions: Int[Tensor, " b"], shape: Sequence[int] = ()) -> Tensor:
        """`Float[b *shape]`, uniform in (0, 1]; `positions` are the samples' global places."""
        bits = self._bits(step, positions, prod(shape))
        uniform = ((doubles(bits) + 0.5) * 2.0**-32).float()
        return uniform.reshape(len(positions), *shape).to(positions.device)

    def normal(self, step: int, positions: Int[Tensor, " b"], shape: Sequence[int] = ()) -> Tensor:
        """`Float[b *shape]`, standard normal, by the Box-Muller transform."""
        count = prod(shape)
        u = self.uniform(step, positions, (2, (count + 1) // 2))
        radius, angle = (-2 * u[:, 0].log()).sqrt(), 2 * pi * u[:, 1]
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return both[:, :count].reshape(len(positions), *shape)

    def integers(self, step: int, positions: Int[Tensor, " b"], high: int) -> Int[Tensor, " b"]:
        """`Int[b]`, uniform in [0, high), for `high` far below 2**32."""
        return (self._bits(step, positions, 1)[:, 0] * high >> 32).to(positions.device)

    def _bits(self, step: int, positions: Int[Tensor, " b"], count: int) -> Int[Tensor, "b n"]:
        """`count` random words of 32 bits for each position, where doubles are."""
        positions, blocks = positions.to(_exact(positions.device)), (count + 3) // 4
        stream = zlib.crc32(self.name.encode())
        c0 = torch.arange(blocks, device=positions.device).expand(len(positions), blocks)
        c1 = positions.long()[:, None].expand(-1, blocks)
        words = (c0, c1, torch.full_like(c0, step), torch.full_like(c0, stream))
        return torch.stack(philox(words, (self.seed & _LOW, self.seed >> 32 & _LOW)), dim=-1).flatten(1)[:, :count]


_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[int, int], rounds: int = 10) -> Words:
    """Philox 4x32 of four counter words and two key words, each 32 bits held in an int64."""
    c0, c1, c2, c3 = counter
    for r in range(rounds):
        # The int64 product wraps, but its 64 bits are right; the shift drags the sign along, which the mask removes.
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        k0, k1 = ((k + r * w) & _LOW for k, w in zip(key, _WEYL, strict=True))
        c0, c1, c2, c3 = (b >> 32 & _LOW) ^ c1 ^ k0, b & _LOW, (a >> 32 & _LOW) ^ c3 ^ k1, a & _LOW
    return c0, c1, c2, c3
