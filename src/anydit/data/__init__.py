"""Data: one file for each modality. Importing this package makes every kind known by name."""

from anydit.data.arrays import Arrays, ArraySamples, ArrayView
from anydit.data.base import Data, Facts, Part, Samples, View
from anydit.data.images import Images
from anydit.data.public import Digits, FashionMNIST

__all__ = [
    "ArraySamples",
    "ArrayView",
    "Arrays",
    "Data",
    "Digits",
    "Facts",
    "FashionMNIST",
    "Images",
    "Part",
    "Samples",
    "View",
]
