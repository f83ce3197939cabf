"""Low-rank adaptation (Hu 2021, arXiv 2106.09685): small changes to chosen products are trained, all else stays.

peft puts them into the network in place, which remains the same class; opening what was trained needs no peft.
"""

import re
from collections.abc import Set
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from anydit.config import check_at_least, config
from anydit.model.dit import DiT

BASE, PAIR = ".base_layer", re.compile(r"(\.lora_[AB])\.default\b")
"""What peft puts into the names of a product's own weights, and of a pair's."""


@config
class LoRA:
    """What to train of a model, and nothing else: W + alpha / rank B A for some products, other parameters whole.

    `rank`: of each change; more can learn more, and is larger. `alpha`: how strongly it acts; None takes the rank.
    `targets`: the products that change, by the ends of their names. `also`: parameters to train whole, by the starts of
    theirs. What is new or resized, beside the model to begin with, is trained whole without being named.
    """

    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_at_least("rank", self.rank, 1)
        if not self.targets:
            raise ValueError("targets: got none, expected ends of products' names, such as attention.qkv")
        if self.alpha is not None and not 0 < self.alpha < inf:
            raise ValueError(f"alpha: got {self.alpha}, expected a finite number above 0")

    @property
    def scale(self) -> float:
        """What a pair's product is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def products(self, model: DiT) -> list[str]:
        """The names of the products that change.

        Raises:
            ValueError: an end of `targets`, or a start of `also`, is in no name.
        """
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        for target in self.targets:
            if not any(_ends(name, target) for name in linear):
                raise ValueError(f"train.adapter.targets: got {target!r}, expected ends of names as {linear[-3:]}")
        own = [name for name, _ in model.named_parameters()]
        for start in self.also:
            if not any(name.startswith(start) for name in own):
                raise ValueError(f"train.adapter.also: got {start!r}, expected starts of names as {own[:3]}")
        return [name for name in linear if any(_ends(name, target) for target in self.targets)]


def adapt(model: DiT, lora: LoRA, whole: Set[str], seed: int) -> None:
    """Put pairs into `model` and freeze all else, but for the parameters of the names `whole` and `lora.also`.

    The pairs are a function of `seed`; at first they change nothing, since each B is zero.

    Raises:
        ValueError: peft is missing, or a name of `lora` is in no module.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ValueError("train.adapter: LoRA needs peft, which is missing; pip install 'anydit[lora]'") from None
    alpha: Any = lora.scale * lora.rank  # peft says it has to be whole, and divides it all the same
    config = LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=lora.products(model), bias="none")
    with torch.random.fork_rng(devices=[]):  # peft draws A; it is drawn again below
        inject_adapter_in_model(config, model)
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in model.named_parameters():
        plain = plain_name(name)
        pair = PAIR.search(name)
        named = plain in whole or any(plain.startswith(start) for start in lora.also)
        parameter.requires_grad_(pair is not None or named)
        if pair is not None and pair[1] == ".lora_A":
            bound = 1 / sqrt(parameter.shape[1])
            parameter.data.uniform_(-bound, bound, generator=generator)


def plain_name(name: str) -> str:
    """A parameter's name in an adapted model, without what peft puts into it."""
    return PAIR.sub(r"\1", name.replace(BASE, ""))


def trained(model: nn.Module, average: nn.Module) -> dict[str, Tensor]:
    """Of `average`, a copy of `model`, the tensors that are trained in `model`, under their plain names."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {plain_name(name): tensor for name, tensor in average.state_dict().items() if name in names}


def share(model: nn.Module) -> str:
    """How much of a model is trained, in words."""
    counts = {plain_name(name): (p.numel(), p.requires_grad) for name, p in model.named_parameters()}
    own = sum(n for n, is_trained in counts.values() if is_trained)
    whole = sum(n for name, (n, _) in counts.items() if ".lora_" not in name)
    return f"Trains {own:,} parameters beside a model of {whole:,}: {100 * own / whole:.2f} %."


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
