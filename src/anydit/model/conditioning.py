"""Conditions as the network takes them: a vector for all (time, classes, numbers, text), tokens, or a field.

Each condition has a null of its own, learned while training drops the condition; guidance uses that same null.
"""

from functools import partial
from math import inf, isfinite, pi
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anydit.config import config
from anydit.model.text import Text, TextTokens, TextVector, check_dropout
from anydit.model.time import TimeEmbedding, TimeVector
from anydit.tensors import MASK, Cond, Constants, Masked, Tokens, known, per_sample


@config
class Label:
    """One of `classes` classes, as an index, added to the condition vector. Values: `Int[b]`.

    `classes`: None takes the number from the data. `names`: for people, by index. `dropout`: how often training makes
    the class null; 0 means that no null is learned, and so no guidance by this condition.
    """

    classes: int | None = None
    dropout: float = 0.1
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.classes is not None and self.classes < 1:
            raise ValueError(f"classes: got {self.classes}, expected at least 1")
        if self.names and len(self.names) != self.classes:
            raise ValueError(f"names: got {len(self.names)} names, expected one for each of {self.classes} classes")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to the data."""
        return self.classes is not None


@config
class Numbers:
    """Several numbers at once, added to the condition vector. Values: `Float[b numbers]`, in the data's own units.

    `names`: of each number, with its unit; None takes them from the data. `mean`, `std`: what normalises each of them;
    None measures both from the data. `dropout`: as in `Label`.
    """

    names: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.names == ():
            raise ValueError("names: got none, expected a name for each number")
        _check_scale(self.mean, self.std, None if self.names is None else len(self.names), f"names {self.names}")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to the data."""
        return self.mean is not None


@config
class Field:
    """Values aligned with the sample, as extra input channels. Values: `Float[b channels *space]`, in their own units.

    `channels`: None takes the number from the data. `mean`, `std`: what normalises each channel; None measures both
    from the data. `dropout`: as in `Label`. `coded`: the values are one or several samples, channels after channels,
    and the codec encodes them as it does samples: the network compares like with like. `channels` are the latents'.
    """

    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dropout: float = 0.0
    coded: bool = False

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels: got {self.channels}, expected at least 1")
        _check_scale(self.mean, self.std, self.channels, f"channels {self.channels}")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to the data."""
        return self.mean is not None


Condition = Label | Numbers | Field | Text


class LabelVector(nn.Module):
    """A table of classes, with one row more for the null where training learns it."""

    def __init__(self, config: Label, width: int) -> None:
        super().__init__()
        if config.classes is None:
            raise ValueError("classes: got None, expected a number: resolve the config with its data first")
        self.classes = config.classes
        self.table = nn.Embedding(config.classes + (config.dropout > 0), width)

    def forward(self, label: Int[Tensor, " b"], present: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        """Look up each sample's row."""
        return self.table(label if present is None else torch.where(present, label, self.classes))

    def null(self, batch: int) -> Float[Tensor, "b width"]:
        """The null's row for every sample."""
        return self.table.weight[self.classes].expand(batch, -1)


class NumbersVector(nn.Module):
    """Normalised numbers and their Fourier features through a small network; the null is a vector of its own."""

    BANDS = 8

    def __init__(self, config: Numbers, width: int) -> None:
        super().__init__()
        if config.mean is None or config.std is None:
            raise ValueError("mean, std: got None, expected numbers: resolve the config with its data first")
        self.mean, self.std = config.mean, config.std
        self.constants = Constants()
        self.up = nn.Linear(len(config.mean) * (1 + 2 * self.BANDS), width)
        self.down = nn.Linear(width, width)
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, numbers: Float[Tensor, "b k"], present: Bool[Tensor, " b"] | None) -> Float[Tensor, "b width"]:
        """Embed each sample's numbers."""
        if numbers.shape[1] != len(self.mean):
            raise ValueError(f"cond: got {numbers.shape[1]} numbers for each sample, expected {len(self.mean)}")
        mean, std = self.constants.get(
            "scale", numbers.device, lambda: torch.tensor([self.mean, self.std], device="cpu")
        )
        octaves = self.constants.get("octaves", numbers.device, self._octaves)
        if present is not None:  # an unknown value may be anything, even NaN, which would reach the gradient
            numbers = torch.where(present[:, None], numbers, mean)
        x = (numbers - mean) / std
        angles = (x[:, None] * octaves).flatten(1)
        features = torch.cat([x, angles.sin(), angles.cos()], dim=-1).type_as(self.up.weight)
        vector = self.down(F.silu(self.up(features)))
        return vector if present is None else torch.where(present[:, None], vector, self.null(len(x)).type_as(vector))

    def _octaves(self) -> Float[Tensor, "bands 1"]:
        return 2.0 ** torch.arange(self.BANDS, device="cpu")[:, None] * (pi / 8)

    def null(self, batch: int) -> Float[Tensor, "b width"]:
        """The learned null for every sample."""
        return self.unknown.expand(batch, -1)


class Conditioner(nn.Module):
    """All conditions of a model: a sum of vectors, tokens to attend to, and channels beside the sample.

    Raises:
        ValueError: at a call, for a condition that the model does not have, one of another kind, or a null of one that
            learned none.
    """

    def __init__(self, time: TimeEmbedding, conditions: dict[str, Condition], width: int) -> None:
        super().__init__()
        self.conditions = conditions
        self.constants = Constants()
        self.time = TimeVector(time, width)
        self.vectors = nn.ModuleDict()
        self.texts = nn.ModuleDict()
        self.fields = nn.ParameterDict()
        for name, condition in conditions.items():
            if isinstance(condition, Label):
                self.vectors[name] = LabelVector(condition, width)
            elif isinstance(condition, Numbers):
                self.vectors[name] = NumbersVector(condition, width)
            elif isinstance(condition, Text):
                if condition.as_vector:
                    self.vectors[name] = TextVector(condition, width)
                if condition.as_tokens:
                    self.texts[name] = TextTokens(condition, width)
            elif condition.mean is None:
                raise ValueError(
                    f"{name}.mean, std: got None, expected numbers: resolve the config with its data first"
                )
            else:
                self.fields[name] = nn.Parameter(torch.zeros(len(condition.mean)))

    @property
    def channels(self) -> int:
        """How many channels the fields add to the sample."""
        return sum(len(unknown) for unknown in self.fields.values())

    def vector(self, t: Float[Tensor, " b"], cond: Cond) -> Float[Tensor, "b width"]:
        """The sum of the time's and every vector condition's embedding."""
        total: Tensor = self.time(t)
        for name, module in self.vectors.items():
            embed = cast("LabelVector | NumbersVector | TextVector", module)
            given = self._of(cond, name)
            total = total + (embed.null(len(t)) if given is None else cast("Tensor", module(*given)))
        return total

    def context(self, cond: Cond, batch: int) -> tuple[Float[Tensor, "b m width"], Bool[Tensor, "b m"]] | None:
        """The tokens of all texts, one after the other, and which of them exist; None without such a text."""
        parts: list[tuple[Tensor, Tensor]] = []
        for name, module in self.texts.items():
            given = self._of(cond, name)
            parts.append(cast("TextTokens", module).null(batch) if given is None else module(*given))
        if not parts:
            return None
        tokens, exists = zip(*parts, strict=True)
        return (tokens[0], exists[0]) if len(parts) == 1 else (torch.cat(tokens, dim=1), torch.cat(exists, dim=1))

    def beside(self, x: Float[Tensor, "b c *space"], cond: Cond) -> Float[Tensor, "b c_all *space"]:
        """The sample with every field's channels appended, normalised; a null is learned on that scale."""
        parts = [x]
        for name, unknown in self.fields.items():
            space = (1,) * (x.ndim - 2)
            null = unknown.type_as(x).reshape(-1, *space).expand(len(x), -1, *x.shape[2:])
            given = self._of(cond, name)
            if given is None:
                parts.append(null)
                continue
            value, present = given
            assert isinstance(value, Tensor)
            if value.shape != null.shape:
                raise ValueError(f"cond: {name}: got shape {tuple(value.shape)}, expected {tuple(null.shape)}")
            mean, std = self.constants.get(name, x.device, partial(self._scale, name)).reshape(2, -1, *space)
            value = ((value - mean) / std).type_as(x)
            parts.append(value if present is None else torch.where(per_sample(present, x), value, null))
        return torch.cat(parts, dim=1) if len(parts) > 1 else x

    def check(self, cond: Cond) -> None:
        """Refuse a condition that the model does not have; it would be ignored."""
        for name in cond.keys() - self.conditions.keys() - {MASK}:
            raise ValueError(f"cond: got {name!r}, expected {', '.join([*self.conditions, MASK])}")

    def _scale(self, name: str) -> Float[Tensor, "2 c"]:
        """A field's mean and deviation."""
        field = cast("Field", self.conditions[name])
        return torch.tensor([field.mean, field.std], device="cpu")

    def _of(self, cond: Cond, name: str) -> tuple[Tensor | Tokens, Bool[Tensor, " b"] | None] | None:
        """A condition's values and for which samples they hold; None where it is null for all."""
        given, config = cond.get(name), self.conditions[name]
        if (given is None or isinstance(given, Masked)) and not config.dropout:
            raise ValueError(f"cond: {name} is null for some sample, but with dropout 0 no null was learned; give it")
        if given is None:
            return None
        value, present = known(given)
        if isinstance(value, Tokens) != isinstance(config, Text):
            got, expected = ("Tokens", "a tensor") if isinstance(value, Tokens) else ("a tensor", "Tokens")
            raise ValueError(f"cond: {name}: got {got}, expected {expected} for {type(config).__name__}")
        return value, present


def _check_scale(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None, count: int | None, of_what: str
) -> None:
    """Refuse what cannot normalise `count` values."""
    if (mean is None) != (std is None):
        raise ValueError("mean, std: got only one of them, expected both or neither")
    for field, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != count:
            raise ValueError(f"{field}: got {len(values)} values, expected as many as {of_what}")
    if mean is not None and not all(map(isfinite, mean)):
        raise ValueError(f"mean: got {mean}, expected finite numbers")
    if std is not None and not all(0 < value < inf for value in std):
        raise ValueError(f"std: got {std}, expected finite numbers above 0")
