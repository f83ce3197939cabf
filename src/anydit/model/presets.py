"""The published model sizes, one row each (Peebles & Xie 2022, table 1)."""

from typing import Any

from anydit.model.dit import DiTConfig

SIZES = {
    #      depth width heads
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}


def preset(name: str, patch: int | tuple[int, ...], axes: int = 2, **options: Any) -> DiTConfig:
    """A published size (S, B, L, XL) with a patch (of the paper's 2, 4, 8 or any), and any field of `DiTConfig` beside.

    `preset("XL", 2, channels=4, size=(32, 32), conditions={"label": Label(1000)}, learned_variance=True)` is DiT-XL/2.

    Raises:
        ValueError: there is no such size, or the fields make no model.
    """
    if name not in SIZES:
        raise ValueError(f"preset: got {name!r}, expected one of {', '.join(SIZES)}")
    depth, width, heads = SIZES[name]
    patches = (patch,) * axes if isinstance(patch, int) else patch
    return DiTConfig(depth=depth, width=width, heads=heads, patch=patches, **options)
