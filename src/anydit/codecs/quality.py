"""How near reconstructions are to what they reconstruct: PSNR and SSIM, by torchmetrics."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

WINDOW = 11
"""Places along each axis that SSIM compares together, weighted by a Gaussian of deviation 1.5 (Wang 2004)."""


def psnr(y: Float[Tensor, "b c *space"], x: Float[Tensor, "b c *space"], extent: float) -> float:
    """The peak signal-to-noise ratio of all samples together, in decibels; `extent` is that of the data's values."""
    return float(_functions().peak_signal_noise_ratio(y, x, data_range=extent))


def ssim(y: Float[Tensor, "b c *space"], x: Float[Tensor, "b c *space"], extent: float) -> float | None:
    """The mean structural similarity, at most 1; None where samples have more than 3 axes, or one of fewer than 3.

    On samples with an axis shorter than `WINDOW` the window is as wide as that axis allows, and narrower.
    """
    if x.ndim not in (3, 4, 5):
        return None
    half = (min(WINDOW, *x.shape[2:]) - 1) // 2
    if half < 1:
        return None
    # torchmetrics takes a window's width from its Gaussian: to each side the whole part of 3.5 deviations and a half.
    sigma = [1.5 if half == (WINDOW - 1) // 2 else half / 3.5] * (x.ndim - 2)
    if x.ndim == 3:  # a series is an image of one row, and its window has no more
        y, x, sigma = y[:, :, None], x[:, :, None], [0.1, *sigma]
    # Its padding of the third axis follows the width of a window that is no Gaussian.
    options = {"data_range": extent, "sigma": sigma, "kernel_size": 2 * half + 1}
    return float(_functions().structural_similarity_index_measure(y, x, **options))


def _functions() -> Any:
    try:
        import torchmetrics.functional.image as functions
    except ImportError:
        raise ValueError(
            "PSNR and SSIM need torchmetrics, which is missing; pip install 'anydit[autoencoder]'"
        ) from None
    return functions
