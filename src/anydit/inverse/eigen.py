"""Exact proximal steps of operators on images that are small enough for a matrix.

This module needs deepinv; `pip install 'anydit[inverse]'` brings it.
"""

from math import prod

import deepinv
import torch
from jaxtyping import Float
from torch import Tensor

MOST_VALUES, AT_ONCE = 4096, 256
"""Of an image for which the eigenvectors are found, once; and how many columns of the matrix are made at once."""


class Eigen(deepinv.physics.LinearPhysics):
    """An operator whose `prox_l2` is exact by the eigenvectors of its normal matrix where samples are small.

    Conjugate gradients, which larger ones take, need hundreds of iterations where noise is small.
    """

    modes: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: Tensor | float, *_: object, **__: object) -> Tensor:
        z, gamma = proximal(self, z, y, gamma)
        shape = tuple(z.shape[1:])
        if prod(shape) > MOST_VALUES:
            return super().prox_l2(z, y, gamma)
        if self.modes is None or self.modes[0] != shape or self.modes[1].device != z.device:
            self.modes = (shape, *self._eigen(shape, z.device))
        _, size, vectors = self.modes
        gamma = gamma.flatten(1)
        move = self.A_adjoint(y - self.A(z)).flatten(1) @ vectors * (gamma / (1 + gamma * size))
        return z + (move @ vectors.T).reshape(z.shape)  # of `z + gamma A* y` rounding would be all that is left

    def forget(self) -> None:
        """Free the eigenvectors; they are found anew where they are needed again."""
        self.modes = None

    def _eigen(self, shape: tuple[int, ...], device: torch.device) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
        """Eigenvalues and eigenvectors of the transpose of A times A."""
        n = prod(shape)
        with torch.no_grad():
            columns = [
                self.A_adjoint(self.A(torch.eye(n, device=device)[i : i + AT_ONCE].unflatten(1, shape))).flatten(1)
                for i in range(0, n, AT_ONCE)
            ]
            gram = torch.cat(columns).double()
            size, vectors = torch.linalg.eigh((gram + gram.T) / 2)
        return size.clamp(min=0).float(), vectors.float()


def proximal(
    physics: deepinv.physics.LinearPhysics, z: Tensor | float | None, y: Tensor, gamma: Tensor | float
) -> tuple[Float[Tensor, "b c *space"], Tensor]:
    """Arguments of a proximal step as deepinv takes them: images, and `gamma` as `[b 1 *1]`, one number for each.

    `z`: a number is an image of it, None one of zeros. `gamma`: a number, or one for each image in any shape.
    """
    if not isinstance(z, Tensor):
        z = torch.full_like(physics.A_adjoint(y), z or 0.0)
    gamma = torch.as_tensor(gamma, dtype=z.dtype, device=z.device)
    return z, gamma.reshape(-1, *(1,) * (z.ndim - 1)).expand(len(z), *(1,) * (z.ndim - 1))
