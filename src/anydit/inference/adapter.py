"""Adapters: small weights that change a base model's, which stays in a folder of its own (Hu 2021, arXiv 2106.09685).

The folder of an adapter has `adapter.json` and `adapter.safetensors` where another has `model.safetensors`. Opening one
merges it: each product W with a pair becomes W + scale B A, and what was trained whole takes the place of the base's.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from anydit.config import config, from_json, to_json
from anydit.inference.config import config_file, load_config
from anydit.model.dit import DiT
from anydit.weights import WEIGHTS_FILE, checksum, load_beside, read_config, write_config

ADAPTER_FILE, ADAPTER_WEIGHTS = "adapter.json", "adapter.safetensors"
LOW, HIGH = ".lora_A.weight", ".lora_B.weight"
"""How the names of a pair end, `Float[rank in]` and `Float[out rank]`, after the name of their product."""


@config
class Adapter:
    """What an adapter's weights change: those in the folder `base`, seen from its own, by `scale` B A.

    `sha256`: of the base's tensors.
    """

    base: str
    sha256: str
    scale: float

    def base_weights(self, folder: Path) -> dict[str, Tensor]:
        """The base's tensors; `folder` is the adapter's.

        Raises:
            ValueError: the base is not there, or not what the adapter was trained on.
        """
        base = folder / self.base
        where = f"expected the model that {folder} was trained on; its place stands in {folder / ADAPTER_FILE}"
        if not config_file(base).is_file():
            raise ValueError(f"adapter.base: got {self.base}, where no model is; {where}")
        tensors = load_beside(config_file(base), WEIGHTS_FILE)
        if checksum(tensors) != self.sha256:
            raise ValueError(f"adapter.base: got {self.base} with other weights (another sha256); {where}")
        return tensors


def merged(base: Mapping[str, Tensor], own: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The base's tensors, with the adapter's pairs added to their products, and its whole tensors in place of them."""
    out = dict(base) | {name: tensor for name, tensor in own.items() if not name.endswith((LOW, HIGH))}
    for name, low in own.items():
        if name.endswith(LOW):
            stem = name.removesuffix(LOW)
            product, high = out[f"{stem}.weight"], own[stem + HIGH]
            out[f"{stem}.weight"] = (product.double() + scale * (high.double() @ low.double())).to(product.dtype)
    return out


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model."""
    return (folder / ADAPTER_FILE).is_file()


def load_adapter(folder: Path) -> Adapter:
    """What the adapter in `folder` says of itself."""
    return from_json(Adapter, read_config(folder / ADAPTER_FILE))


def save_adapter(folder: Path, adapter: Adapter) -> None:
    """Write what an adapter says of itself; its weights go beside it."""
    write_config(folder / ADAPTER_FILE, to_json(adapter))


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The whole weights of the network in a run or an exported folder, an adapter's merged with its base's.

    Raises:
        ValueError: they are missing, damaged or of another config, or an adapter's base is not there.
    """
    file = config_file(folder)
    if not is_adapter(folder):
        return load_beside(file, WEIGHTS_FILE)
    adapter = load_adapter(folder)
    tensors = merged(adapter.base_weights(folder), load_beside(file, ADAPTER_WEIGHTS), adapter.scale)
    with torch.device("meta"):
        names = DiT(load_config(folder).model).state_dict()
    return {name: tensor for name, tensor in tensors.items() if name in names}  # less what the model left out
