"""Public data sets that come inside packages; nothing is downloaded."""

import numpy as np
import torch

from anydit.config import config
from anydit.data.arrays import ArraySamples, split
from anydit.data.base import Data, Facts, Part, Samples


@config
class Digits(Data):
    """scikit-learn's 1,797 handwritten digits, 8x8, values 0 to 16 (UCI, Alpaydin & Kaynak 1998).

    `held_out`: the share of digits kept from training.
    """

    held_out: float = 0.2

    def open(self, part: Part) -> Samples:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ValueError("data: Digits needs scikit-learn, which is missing; pip install 'anydit[digits]'") from None
        images, labels = load_digits(return_X_y=True)
        facts = Facts(1, (8, 8), {"label": tuple("0123456789")}, frozenset({"label"}))
        x = images.reshape(-1, 1, 8, 8).astype(np.float32)
        return ArraySamples(x, facts, {"label": torch.from_numpy(labels)}, rows=split(len(x), self.held_out, part))
