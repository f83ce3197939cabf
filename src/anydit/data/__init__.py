"""Data: one file for each modality. Importing this package makes every kind known by name."""

from anydit.data.arrays import Arrays, ArraySamples, ArrayView
from anydit.data.audio.audio import Audio
from anydit.data.audio.files import Mix, Pieces, Refused, Resample
from anydit.data.audio.speech import SpokenDigits
from anydit.data.audio.view import AudioView, Flac, Ogg, Wav
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
from anydit.data.images.shards import ImageShards
from anydit.data.images.view import Images
from anydit.data.known import KNOWN
from anydit.data.molecules.molecules import Molecules
from anydit.data.molecules.small import SmallMolecules
from anydit.data.molecules.view import MoleculeView
from anydit.data.series.series import Blocks, Forecast, Gaps, Last, Series, Weather
from anydit.data.series.view import SeriesView
from anydit.data.video.clips import First
from anydit.data.video.digits import MovingDigits
from anydit.data.video.folder import VideoFolder
from anydit.data.video.view import GIF, MP4, Videos
from anydit.data.volumes.slices import Bands, Moved, Slices, SliceView
from anydit.data.volumes.view import VolumeView
from anydit.data.volumes.volumes import MNI152, EachSize, Inside, Slab, Volumes, Whole

__all__ = [
    "GIF",
    "KNOWN",
    "MNI152",
    "MP4",
    "ArraySamples",
    "ArrayView",
    "Arrays",
    "Aspects",
    "Audio",
    "AudioView",
    "Axis",
    "Bands",
    "Blocks",
    "Crop",
    "Data",
    "DigitPairs",
    "Digits",
    "EachSize",
    "Emoji",
    "Facts",
    "FashionMNIST",
    "FieldView",
    "Fields",
    "First",
    "Flac",
    "Forecast",
    "Gaps",
    "HuggingFace",
    "ImageFolder",
    "ImageShards",
    "Images",
    "Inside",
    "Last",
    "Mix",
    "MoleculeView",
    "Molecules",
    "Moved",
    "MovingDigits",
    "Ogg",
    "Pad",
    "PairHalves",
    "Part",
    "Pieces",
    "Refused",
    "Resample",
    "Samples",
    "Series",
    "SeriesView",
    "Sizes",
    "Slab",
    "SliceView",
    "Slices",
    "SmallMolecules",
    "SpokenDigits",
    "Stretch",
    "Turbulence",
    "VideoFolder",
    "Videos",
    "View",
    "VolumeView",
    "Volumes",
    "Wav",
    "Weather",
    "Whole",
    "cache_folder",
]
