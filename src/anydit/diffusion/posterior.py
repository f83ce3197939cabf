"""The reverse step from t to s < t given the data, on any path: its mean and the bounds on its variance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from anydit.diffusion.paths import Path, Times
from anydit.tensors import doubles


@dataclass(frozen=True)
class Posterior:
    """q(x_s | x_t, x_0) is normal with mean `x0_weight x0 + xt_weight xt` and variance `lower`.

    `upper` is the variance of x_t given x_s, which bounds that of the reverse step from above (Ho 2020, section 3.2).
    All are doubles, `Float[b]`: between neighbouring steps they are differences of nearly equal numbers.
    """

    x0_weight: Times
    xt_weight: Times
    lower: Times
    upper: Times


def posterior(path: Path, t: Float[Tensor, " b"], s: Float[Tensor, " b"]) -> Posterior:
    """The reverse step on `path` (Ho 2020, eq. 7, with alpha and sigma free as in Kingma 2021, appendix A)."""
    t, s = doubles(t), doubles(s)
    ratio = path.alpha(t) / path.alpha(s)
    upper = path.sigma(t) ** 2 - (ratio * path.sigma(s)) ** 2
    share = upper / path.sigma(t) ** 2
    return Posterior(
        x0_weight=path.alpha(s) * share,
        xt_weight=ratio * (path.sigma(s) / path.sigma(t)) ** 2,
        lower=share * path.sigma(s) ** 2,
        upper=upper,
    )
