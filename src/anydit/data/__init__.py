"""Data: one file for each modality. Importing this package makes every kind known by name."""

from anydit.data.arrays import Arrays, ArraySamples, ArrayView
from anydit.data.base import Data, Facts, Part, Samples, View, cache_folder
from anydit.data.fields.fields import Fields
from anydit.data.fields.flow import Turbulence
from anydit.data.fields.view import Axis, FieldView
from anydit.data.images.aspects import Aspects, Sizes
from anydit.data.images.decode import Crop, Pad, Stretch
from anydit.data.images.emoji import Emoji
from anydit.data.images.folder import ImageFolder
from anydit.data.images.huggingface import HuggingFace
from anydit.data.images.pairs import DigitPairs, PairHalves
from anydit.data.images.public import Digits, FashionMNIST
from anydit.data.images.view import Images
from anydit.data.molecules.molecules import Molecules
from anydit.data.molecules.small import SmallMolecules
from anydit.data.molecules.view import MoleculeView
from anydit.data.series.series import KNOWN, Blocks, Forecast, Gaps, Last, Series, Weather
from anydit.data.series.view import SeriesView
from anydit.data.volumes.view import VolumeView
from anydit.data.volumes.volumes import MNI152, Inside, Slab, Volumes, Whole

__all__ = [
    "KNOWN",
    "MNI152",
    "ArraySamples",
    "ArrayView",
    "Arrays",
    "Aspects",
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
    "MoleculeView",
    "Molecules",
    "Pad",
    "PairHalves",
    "Part",
    "Samples",
    "Series",
    "SeriesView",
    "Sizes",
    "Slab",
    "SmallMolecules",
    "Stretch",
    "Turbulence",
    "View",
    "VolumeView",
    "Volumes",
    "Weather",
    "Whole",
    "cache_folder",
]
