"""Data: one file for each modality. Importing this package makes every kind known by name."""

from anydit.data.arrays import Arrays, ArraySamples, ArrayView
from anydit.data.base import Data, Facts, Part, Samples, View, cache_folder
from anydit.data.decode import Crop, Pad, Stretch
from anydit.data.folder import ImageFolder
from anydit.data.huggingface import HuggingFace
from anydit.data.images import Images
from anydit.data.public import Digits, FashionMNIST

__all__ = [
    "ArraySamples",
    "ArrayView",
    "Arrays",
    "Crop",
    "Data",
    "Digits",
    "Facts",
    "FashionMNIST",
    "HuggingFace",
    "ImageFolder",
    "Images",
    "Pad",
    "Part",
    "Samples",
    "Stretch",
    "View",
    "cache_folder",
]
