"""Codecs: what lies between the data's own scale and what the network sees."""

from anydit.codecs.base import Codec, CodecConfig
from anydit.codecs.normalize import Normalize

__all__ = ["Codec", "CodecConfig", "Normalize"]
