"""Your own images: a folder, tar files, or a Hugging Face data set."""

from pathlib import Path

from anydit.codecs import Normalize
from anydit.data import Data, HuggingFace, ImageFolder, Images, ImageShards
from anydit.inference.config import Sampling
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def images() -> Recipe:
    """A folder of your images, one subfolder per class or flat: --data.path FOLDER --data.size HEIGHT WIDTH.

    anydit train images --data.path ~/photos --data.size 48 64
    """
    return _recipe(ImageFolder(path=Path("images"), size=(64, 64)))


def shards() -> Recipe:
    """Images in tar files, as WebDataset writes them: --data.path FOLDER --data.size HEIGHT WIDTH.

    anydit train shards --data.path ~/shards --data.size 64 64
    """
    return _recipe(ImageShards(path=Path("shards"), size=(64, 64)))


def huggingface() -> Recipe:
    """A Hugging Face data set of images, by name or saved on disk: --data.name NAME_OR_FOLDER --data.size H W.

    anydit train huggingface --data.name ./saved_to_disk --data.size 32 32
    """
    return _recipe(HuggingFace(name="", size=(64, 64)))


def _recipe(data: Data) -> Recipe:
    return Recipe(
        model=DiTConfig(width=384, depth=12, heads=6, patch=(4, 4), conditions={"label": Label()}, position=Rope()),
        codec=Normalize.to_unit(0, 1),
        sampling=Sampling(steps=25),
        view=Images(low=0, high=1),
        data=data,
        train=TrainConfig(
            steps=20_000,
            batch=64,
            optimizer=AdamW(lr=3e-4),
            schedule=LinearDecay(warmup=200),
            ema_decay=0.9995,
            bf16=True,
            sample_every=500,
            save_every=500,
        ),
    )
