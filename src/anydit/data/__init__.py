"""Data: one file for each modality. Importing this package makes every kind known by name."""

from anydit.data.arrays import Arrays, ArraySamples, ArrayView
from anydit.data.base import Data, Facts, Part, Samples, View, cache_folder
from anydit.data.decode import Crop, Pad, Stretch
from anydit.data.emoji import Emoji
from anydit.data.folder import ImageFolder
from anydit.data.huggingface import HuggingFace
from anydit.data.images import Images
from anydit.data.pairs import DigitPairs, PairHalves
from anydit.data.public import Digits, FashionMNIST

__all__ = [
    "ArraySamples",
    "ArrayView",
    "Arrays",
    "Crop",
    "Data",
    "DigitPairs",
    "Digits",
    "Emoji",
    "Facts",
    "FashionMNIST",
    "HuggingFace",
    "ImageFolder",
    "Images",
    "Pad",
    "PairHalves",
    "Part",
    "Samples",
    "Stretch",
    "View",
    "cache_folder",
]
