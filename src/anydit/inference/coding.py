"""Data to latents and back, as a pipeline does it: so many samples at a time as memory allows, or in tiles."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from anydit.codecs import Codec, Tiles
from anydit.codecs import tiles as tiling
from anydit.codecs.base import Grouped, apart, coarser, in_parts
from anydit.data.changes import last
from anydit.inference.conditions import Given, as_numbers
from anydit.inference.config import PipelineConfig
from anydit.model.dit import coded_fields


def field_codecs(config: PipelineConfig, codec: Codec) -> dict[str, Grouped]:
    """What encodes each coded field: its own codec, else that of the samples.

    Raises:
        ValueError: a field's own codec has weights, of which its config did not say so.
    """
    own = {name: each.build().frozen() for name, each in config.field_codecs.items()}
    for name, each in own.items():
        if each.state_dict():
            got = f"{type(each).__name__}, which has weights"
            raise ValueError(f"field_codecs.{name}: got {got}, expected a codec without; its config lacks has_weights")
    return {name: Grouped(own.get(name, codec), count) for name, count in coded_fields(config.model).items()}


def encoded(codec: Codec, x: Float[Tensor, "n c *space"], device: torch.device) -> Float[Tensor, "n c_z *space_z"]:
    """The latents of samples, on the CPU."""
    with torch.no_grad():
        return in_parts(lambda part: codec.encode(part.to(device)).cpu(), x)


def encoded_field(
    field: Grouped, name: str, value: Given, size: tuple[int, ...], device: torch.device
) -> Float[Tensor, "n kz *space"]:
    """The latents of a field that is made of samples of `size`, for all or for each, on the CPU.

    Raises:
        ValueError: the field is of another size, or its channels do not make so many samples.
    """
    x = as_numbers(name, value)
    x = x[None] if x.ndim == len(size) + 1 else x
    if tuple(x.shape[2:]) != size or not x.shape[1] or x.shape[1] % field.count:
        expected = f"[n, channels, {', '.join(map(str, size))}] with the channels of {field.count} samples"
        raise ValueError(f"cond: {name}: got shape {tuple(x.shape)}, expected {expected}")
    z = encoded(field.codec, apart(x, field.count), device)  # so many samples at a time as memory allows
    return z.unflatten(0, (-1, field.count)).flatten(1, 2)


def base(name: str | None, cond: Mapping[str, Given], x: Float[Tensor, "n c *space"]) -> Float[Tensor, "..."]:
    """What samples `x` are changes of: the last sample in the field condition `name`, for all or for each; else 0."""
    if name is None:
        return x.new_zeros(())
    field = as_numbers(name, cond[name])
    return last(field[None] if field.ndim < x.ndim else field, x.shape[1])


def decoded(
    codec: Codec,
    z: Float[Tensor, "n c_z *space_z"],
    size: tuple[int, ...],
    device: torch.device,
    tiles: Tiles | None = None,
) -> Float[Tensor, "n c *space"]:
    """Data of `size` on their own scale, on the CPU."""
    with torch.inference_mode():
        if tiles is None:
            return in_parts(lambda part: codec.decode(part.to(device)).float().cpu(), z, size)
        return torch.cat([tiling.decode(codec.decode, one, size, tiles) for one in z.to(device).split(1)])


def kept(
    keep: Shaped[Tensor, "..."], n: int, size: tuple[int, ...], space: tuple[int, ...]
) -> Bool[Tensor, "n 1 *space"]:
    """Which latents to keep, those of which all places of data are kept.

    Raises:
        ValueError: `keep` does not say of each place of `n` samples of `size` whether to keep it.
    """
    if keep.dtype != torch.bool:
        raise ValueError(f"keep: got {keep.dtype}, expected a boolean tensor")
    if tuple(keep.shape) != (n, 1, *size):
        raise ValueError(f"keep: got shape {tuple(keep.shape)}, expected {(n, 1, *size)}, as x has but for channels")
    return keep if size == space else ~coarser(~keep[:, 0], space)[:, None]
