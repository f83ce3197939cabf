"""Tiny text encoders in the format of transformers, with random weights and tokenizers of a few words."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

WORDS = (
    "[PAD]",
    "[BEGIN]",
    "[END]",
    "[UNK]",
    *["a", "the", "three", "nine", "seven", "above", "below", "left", "right", "of", "it", "and"],
)
BEGIN, END = 1, 2


def save_encoder(folder: Path, family: str, width: int = 16, seed: int = 0) -> Path:
    """A folder with an encoder of a family, for texts of at most 12 tokens."""
    torch.manual_seed(seed)
    size: dict[str, Any] = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": BEGIN, "eos_token_id": END}
    layers: dict[str, Any] = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2, **size}
    if family == "bert":
        model: Any = BertModel(BertConfig(num_attention_heads=2, max_position_embeddings=12, **layers))
    elif family == "t5":
        model = T5EncoderModel(
            T5Config(d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=len(WORDS), pad_token_id=0)
        )
    else:
        kind = {"clip": CLIPTextModel, "clip-projected": CLIPTextModelWithProjection}[family]
        about = CLIPTextConfig(num_attention_heads=2, max_position_embeddings=12, projection_dim=8, **layers)
        model = kind(about)
    model.save_pretrained(folder)
    _tokenizer(family).save_pretrained(folder)
    return folder


def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    single = "$A [END]" if family == "t5" else "[BEGIN] $A [END]"
    words.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=single, special_tokens=[("[BEGIN]", BEGIN), ("[END]", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", bos_token="[BEGIN]", eos_token="[END]", unk_token="[UNK]"
    )
