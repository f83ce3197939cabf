"""Conditions as a person gives them (`{"label": 3}`) to those that a model takes, checked against its config."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from anydit.codecs import TextEncoder
from anydit.codecs.text import opened
from anydit.model.conditioning import Condition, Field, Label, Numbers, Text
from anydit.tensors import MASK, Tokens, changed

Array = Shaped[np.ndarray, "..."]

Given = int | float | str | Sequence[Any] | Tensor | Tokens | Array | np.generic
"""A value, or several: plain, in a list, tuple or range, or as NumPy or PyTorch has them."""


def prepared(
    given: Mapping[str, Given] | None, conditions: Mapping[str, Condition], n: int, space: tuple[int, ...]
) -> dict[str, Tensor | Tokens]:
    """Tensors for `n` samples of shape `space`; one value alone holds for all of them.

    Lists, tuples, ranges, arrays and tensors are all the same here, and so are Python's numbers and NumPy's.

    Raises:
        ValueError: names the condition, what came and what the model expects.
    """
    out = dict[str, Tensor | Tokens]()
    for name, value in (given or {}).items():
        if name == MASK:
            out[name] = as_mask(value, n, space)
        elif name not in conditions:
            raise ValueError(
                f"cond: got {name!r}, expected one of: {', '.join(conditions) or 'none (unconditional model)'}"
            )
        else:
            condition = conditions[name]
            out[name] = _MAKE[type(condition)](name, value, condition, n, space)
    for name, condition in conditions.items():
        if name not in out and not condition.dropout:
            raise ValueError(f"cond: {name} is missing; this model was trained with it always present")
    return out


def encoded_texts(
    given: Mapping[str, Given],
    conditions: Mapping[str, Condition],
    encoders: Mapping[str, TextEncoder],
    device: torch.device,
) -> dict[str, Given]:
    """`given` with texts as tokens; on `device` an encoder computes.

    Raises:
        ValueError: what is given for a text is none; its encoder is unknown, not there, or another than trained with.
    """
    out = dict(given)
    for name, value in given.items():
        if not isinstance(conditions.get(name), Text) or isinstance(value, Tokens):
            continue
        texts: Any = [value] if isinstance(value, str) else _plain(value)
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"cond: {name}: got {value!r}, expected a text, or one for each sample")
        if name not in encoders:
            raise ValueError(
                f"cond: {name}: got text, expected Tokens: the model was saved without its text encoder; "
                f'pipeline.encoders["{name}"] = anydit.TextEncoder(FOLDER) adds one'
            )
        try:
            out[name] = opened(encoders[name], device)(texts)
        except ValueError as error:
            raise ValueError(f"encoders.{name}.{error}") from None
    return out


def _label(name: str, value: Given, config: Label, n: int, space: tuple[int, ...]) -> Tensor:
    plain: Any = _plain(value)
    index = torch.tensor([_class(name, item, config) for item in (plain if isinstance(plain, list) else [plain])])
    return _for_all(name, index, n, 0)


def _plain(value: Any) -> Any:
    """Python's own values, in lists, of whatever holds them."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _class(name: str, item: Any, config: Label) -> int:
    """A class by index, or by its name."""
    classes = config.classes or 0
    if isinstance(item, str) and item in config.names:
        return config.names.index(item)
    number = int(item) if isinstance(item, str) and item.lstrip("-").isdigit() else item
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < classes:
        names = f" or one of: {', '.join(config.names[:20])}" if config.names else ""
        raise ValueError(f"cond: {name}: got {item!r}, expected a class from 0 to {classes - 1}{names}")
    return number


def _numbers(name: str, value: Given, config: Numbers, n: int, space: tuple[int, ...]) -> Tensor:
    numbers, names = as_numbers(name, value), config.names or ()
    count = len(names)
    if numbers.ndim == 0 or (numbers.ndim == 1 and count > 1):
        numbers = numbers.reshape(1, -1)
    numbers = numbers.reshape(-1, 1) if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or numbers.shape[1] != count:
        raise ValueError(
            f"cond: {name}: got shape {tuple(numbers.shape)}, expected {count} numbers: {', '.join(names)}"
        )
    return _for_all(name, numbers, n, 1)


def _field(name: str, value: Given, config: Field, n: int, space: tuple[int, ...]) -> Tensor:
    values, shape = as_numbers(name, value), (config.channels, *space)
    values = values[None] if values.ndim == len(shape) else values
    if tuple(values.shape[1:]) != shape:
        raise ValueError(f"cond: {name}: got shape {tuple(values.shape)}, expected [{n}, {', '.join(map(str, shape))}]")
    return _for_all(name, values, n, len(shape))


def _text(name: str, value: Given, config: Text, n: int, space: tuple[int, ...]) -> Tokens:
    if not isinstance(value, Tokens):
        raise ValueError(f"cond: {name}: got {value!r}, expected Tokens, as the model's text encoder makes them")
    values, exists = value.values, value.exists
    if values.ndim != 3 or exists.dtype != torch.bool or exists.shape != values.shape[:2] or not values.shape[1]:
        got = f"values {tuple(values.shape)} with exists {tuple(exists.shape)} of {exists.dtype}"
        raise ValueError(f"cond: {name}: got {got}, expected values [b n d], n at least 1, and booleans [b n]")
    return changed(value, lambda part: _for_all(name, part, n, part.ndim - 1))


def as_mask(value: Given, n: int, space: tuple[int, ...]) -> Bool[Tensor, "n *space"]:
    """Which places of each sample exist.

    Raises:
        ValueError: it is not a boolean for each place.
    """
    exists = torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) and value.dtype == np.bool_ else value
    if not isinstance(exists, Tensor) or exists.dtype != torch.bool or tuple(exists.shape[1:]) != space:
        raise ValueError(f"cond: {MASK}: expected a boolean tensor of shape [{n}, {', '.join(map(str, space))}]")
    return _for_all(MASK, exists, n, len(space))


def as_numbers(name: str, value: Given) -> Tensor:
    """Finite numbers, of whatever kind they came.

    Raises:
        ValueError: they are none.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().to(torch.float32)
    else:
        try:
            array = np.asarray(value if isinstance(value, np.ndarray) else _plain(value))
            if array.dtype.kind not in "biuf":
                raise ValueError
        except ValueError:
            raise ValueError(f"cond: {name}: got {value!r}, expected numbers") from None
        with np.errstate(over="ignore"):
            tensor = torch.from_numpy(array.astype(np.float32))
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"cond: {name}: got NaN or infinity, expected finite numbers")
    return tensor


def _for_all(name: str, values: Tensor, n: int, value_axes: int) -> Tensor:
    """One value for every sample, from as many values or from one."""
    if len(values) not in (1, n):
        raise ValueError(f"cond: {name}: got {len(values)} values, expected 1 or {n}, one for each sample")
    return values.expand(n, *(-1,) * value_axes) if len(values) == 1 else values


_MAKE: dict[type, Callable[[str, Given, Any, int, tuple[int, ...]], Tensor | Tokens]] = {
    Label: _label,
    Numbers: _numbers,
    Field: _field,
    Text: _text,
}
