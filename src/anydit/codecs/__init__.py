"""Codecs: what lies between the data's own scale and what the network sees."""

from anydit.codecs.autoencoder import Autoencoder, AutoencoderConfig, KLAutoencoder
from anydit.codecs.base import Codec, CodecConfig, Survey
from anydit.codecs.latents import Latents
from anydit.codecs.mel import LogMel
from anydit.codecs.normalize import Isotropic, Normalize
from anydit.codecs.published import Published
from anydit.codecs.representation import RAE
from anydit.codecs.sources import load
from anydit.codecs.text import Mean, Own, TextEncoder
from anydit.codecs.tiles import Tiles
from anydit.codecs.whiten import Whiten

__all__ = [
    "RAE",
    "Autoencoder",
    "AutoencoderConfig",
    "Codec",
    "CodecConfig",
    "Isotropic",
    "KLAutoencoder",
    "Latents",
    "LogMel",
    "Mean",
    "Normalize",
    "Own",
    "Published",
    "Survey",
    "TextEncoder",
    "Tiles",
    "Whiten",
    "load",
]
