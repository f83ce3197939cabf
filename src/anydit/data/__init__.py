"""Data: one file for each modality. Importing this package makes every kind known by name."""

from anydit.data.arrays import Arrays, ArraySamples, ArrayView
from anydit.data.base import Data, Facts, Part, Samples, View, cache_folder
from anydit.data.decode import Crop, Pad, Stretch
from anydit.data.emoji import Emoji
from anydit.data.field_view import Axis, FieldView
from anydit.data.fields import Fields
from anydit.data.flow import Turbulence
from anydit.data.folder import ImageFolder
from anydit.data.huggingface import HuggingFace
from anydit.data.images import Images
from anydit.data.pairs import DigitPairs, PairHalves
from anydit.data.public import Digits, FashionMNIST
from anydit.data.series import KNOWN, Blocks, Forecast, Gaps, Last, Series, Weather
from anydit.data.series_view import SeriesView
from anydit.data.volume_view import VolumeView
from anydit.data.volumes import MNI152, Inside, Slab, Volumes, Whole

__all__ = [
    "KNOWN",
    "MNI152",
    "ArraySamples",
    "ArrayView",
    "Arrays",
    "Axis",
    "Blocks",
    "Crop",
    "Data",
    "DigitPairs",
    "Digits",
    "Emoji",
    "Facts",
    "FashionMNIST",
    "FieldView",
    "Fields",
    "Forecast",
    "Gaps",
    "HuggingFace",
    "ImageFolder",
    "Images",
    "Inside",
    "Last",
    "Pad",
    "PairHalves",
    "Part",
    "Samples",
    "Series",
    "SeriesView",
    "Slab",
    "Stretch",
    "Turbulence",
    "View",
    "VolumeView",
    "Volumes",
    "Weather",
    "Whole",
    "cache_folder",
]
