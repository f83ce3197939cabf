"""A turbulent flow in two dimensions, computed: what a model of fields is tried on where no data are at hand.

The velocity (u, v) of an incompressible fluid in a square of side 2 pi, periodic on both axes, x along the first:

    du/dt + (u . grad) u = - grad p + laplace u / reynolds - drag u + force (sin(waves y), 0) + stirring,   div u = 0

Solved for the vorticity w = dv/dx - du/dy by Fourier's modes (Kolmogorov flow: Chandler & Kerswell 2013, section 2).
The stirring is random, white in time, at wavenumbers from 2 to 6: what comes next is uncertain, as in the weather.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import sha256
from math import ceil, pi, sqrt
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anydit.config import check_at_least, check_positive, config
from anydit.data.base import Part, Samples, cache_folder
from anydit.data.fields.contents import Array
from anydit.data.fields.fields import Fields
from anydit.data.fields.files import write
from anydit.tensors import Stream

SCHEMA = 1
"""Of the equations and how they are solved: another number computes every flow anew."""

STEP = 1.6
"""The step of time times the points along an axis: well below where the method becomes unstable in these flows."""

TOGETHER = 16
"""Flows that are computed at the same time."""

STIRRED = (2, 6)
"""The least and the largest wavenumber that is stirred."""

FIRST_WAVE = 4.0
"""Around which wavenumber the first state has its energy."""


@dataclass(frozen=True)
class Flow:
    """The equations on a grid of `points` x `points`, for as many flows at once as there are Reynolds numbers.

    Computes in the type of `reynolds`. `stir`: the deviation of the vorticity that stirring alone would cause in a unit
    of time. `step`: of time, the longest; the fourth-order Runge-Kutta method, in which viscosity and drag are exact.
    """

    reynolds: Float[Tensor, " b"]
    points: int = 64
    waves: int = 4
    force: float = 1.0
    drag: float = 0.1
    stir: float = 0.0
    step: float = 0.025

    def start(self, seed: int) -> Tensor:
        """Coefficients of a random vorticity with a mean square of 1, each flow's its own."""
        kx, ky = self._modes
        k = (kx**2 + ky**2).sqrt() / FIRST_WAVE
        noise = Stream(seed, "flow").normal(0, torch.arange(len(self.reynolds)), (self.points, self.points))
        w = torch.fft.rfft2(noise.to(self.reynolds)) * k**2 * torch.exp(-(k**2)) * self._resolved
        return w / torch.fft.irfft2(w).square().mean((1, 2), keepdim=True).sqrt()

    def run(self, w: Tensor, interval: float, states: int, seed: int = 0) -> Iterator[Tensor]:
        """The vorticity's coefficients after each of `states` intervals of time from `w` on, stirred as `seed` says."""
        count = max(1, ceil(interval / self.step - 1e-9))
        h = interval / count
        kx, ky = self._modes
        half = torch.exp(-h / 2 * ((kx**2 + ky**2) / self.reynolds[:, None, None] + self.drag))
        whole = half**2
        stirring, band = Stream(seed, "stir"), self._stirred
        for state in range(states):
            for i in range(count):
                a = self._rate(w)
                b = self._rate(half * (w + h / 2 * a))
                c = self._rate(half * w + h / 2 * b)
                d = self._rate(whole * w + h * half * c)
                w = whole * w + h / 6 * (whole * a + 2 * half * (b + c) + d)
                if self.stir:
                    k = STIRRED[1]
                    w[:, torch.arange(-k, k + 1), : k + 1] += self._noise(stirring, state * count + i) * band * sqrt(h)
            yield w

    def velocity(self, w: Tensor, points: int | None = None) -> Float[Tensor, "b 2 m m"]:
        """The velocity on a grid of so many points, with those of the modes that such a grid tells apart."""
        n, m = self.points, points or self.points
        kept = min(n, m) // 2 - (min(n, m) % 2 == 0)  # of half the grid's points a sine is nowhere seen
        k = torch.arange(-kept, kept + 1)
        both = self._velocity(w)
        part = both.new_zeros(*both.shape[:2], m, m // 2 + 1)
        part[:, :, k % m, : kept + 1] = both[:, :, k % n, : kept + 1]
        return torch.fft.irfft2(part, s=(m, m)) * (m / n) ** 2

    @property
    def _modes(self) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "1 half"]]:
        """The wavenumbers along x and along y of a real field's coefficients."""
        kind, n = self.reynolds.dtype, self.points
        return torch.fft.fftfreq(n, 1 / n, dtype=kind)[:, None], torch.fft.rfftfreq(n, 1 / n, dtype=kind)[None]

    def vorticity(self, velocity: Float[Tensor, "b 2 m m"]) -> Tensor:
        """Coefficients of the vorticity of a velocity on a grid of as many points or fewer: what `velocity` undoes."""
        n, m = self.points, velocity.shape[-1]
        kept = m // 2 - (m % 2 == 0)
        k = torch.arange(-kept, kept + 1)
        u, v = torch.fft.rfft2(velocity.to(self.reynolds))[:, :, k % m, : kept + 1].unbind(1)
        w = torch.zeros(len(velocity), n, n // 2 + 1, dtype=u.dtype)
        w[:, k % n, : kept + 1] = 1j * (k[:, None] * v - k[kept:] * u)
        return w * (n / m) ** 2

    @property
    def _resolved(self) -> Bool[Tensor, "n half"]:
        """Modes low enough that no product of two is taken for one of them (the two-thirds rule of Orszag 1971)."""
        kx, ky = self._modes
        return (kx.abs() < self.points / 3) & (ky < self.points / 3)

    @property
    def _stirred(self) -> Float[Tensor, "n half"]:
        """How strongly each of the lowest modes is stirred: those of a band alike, for a mean square of `stir`**2."""
        low, high = STIRRED
        k = torch.arange(-high, high + 1, dtype=self.reynolds.dtype)
        length = (k[:, None] ** 2 + k**2).sqrt()
        band = ((length >= low) & (length <= high)).to(k)
        return (self.stir * self.points**2 / band.sum().sqrt() * band)[:, high:]

    def _noise(self, stirring: Stream, step: int) -> Tensor:
        """Random coefficients of the lowest modes of a real field, with mean squares of 1."""
        high = STIRRED[1]
        both = stirring.normal(step, torch.arange(len(self.reynolds)), (2 * high + 1, high + 1, 2)).to(self.reynolds)
        noise = torch.view_as_complex(both.contiguous()) / sqrt(2)
        noise[:, :high, 0] = noise[:, high + 1 :, 0].flip(1).conj()
        return noise

    def _velocity(self, w: Tensor) -> Tensor:
        """Coefficients of u and v, from the stream function s, of which w = - laplace s."""
        kx, ky = self._modes
        s = w / (kx**2 + ky**2).clamp(min=1)
        return torch.stack([1j * ky * s, -1j * kx * s], dim=1)

    def _rate(self, w: Tensor) -> Tensor:
        """What convection and the force change of w in a unit of time: - curl((u . grad) u) + curl(force)."""
        kx, ky = self._modes
        u, v = torch.fft.irfft2(self._velocity(w)).unbind(1)
        across, along = torch.fft.rfft2(torch.stack([u * v, v**2 - u**2])).unbind(0)
        rate = self._resolved * ((kx**2 - ky**2) * across + kx * ky * along)
        rate[:, 0, self.waves] -= self.force * self.waves * self.points**2 / 2
        return rate


@config
class Turbulence(Fields):
    """Kolmogorov flows from random starts, computed once and kept as a NetCDF file in the cache folder.

    `reynolds`: its least and its largest value, between which the trajectories' lie evenly in their logarithm; it is
    the number "reynolds". `trajectories` of `states` states each, `interval` of time apart, from `settled` on. `stir`:
    as in `Flow`. `size`: of the grid that is kept, whose modes are some of those of the grid that is computed on, which
    has `points` along each axis.
    """

    numbers: tuple[str, ...] = ("reynolds",)
    held_out: float = 0.2
    size: tuple[int, int] = (32, 32)
    reynolds: tuple[float, float] = (50.0, 200.0)
    trajectories: int = 100
    states: int = 80
    interval: float = 0.25
    stir: float = 1.0
    settled: float = 20.0
    points: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        Fields.__post_init__(self)  # pyright: ignore[reportUnknownMemberType]
        if self.path != Path():
            raise ValueError(f"data.path: got {self.path}, expected none: Turbulence computes its data")
        for name in ("trajectories", "states"):
            check_at_least(f"data.{name}", getattr(self, name), 1)
        for name in ("interval", "settled"):
            check_positive(f"data.{name}", getattr(self, name))
        if not 0 < self.reynolds[0] <= self.reynolds[1]:
            raise ValueError(f"data.reynolds: got {self.reynolds}, expected the lower one first, above 0")
        if self.size[0] != self.size[1] or not 4 <= self.size[0] <= self.points:
            raise ValueError(f"data.size: got {self.size}, expected a square of 4 to data.points {self.points} points")

    def open(self, part: Part) -> Samples:
        same: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Fields)}
        same["path"] = self.file()
        return Fields(**same).open(part)

    def flow(self, reynolds: Float[Tensor, " b"]) -> Flow:
        """The equations of these flows, at Reynolds numbers of one's own."""
        return Flow(reynolds, self.points, stir=self.stir, step=STEP / self.points)

    def file(self) -> Path:
        """The file of the flows, computed if it is not there yet."""
        about = (SCHEMA, self.size, self.reynolds, self.trajectories, self.states, self.interval, self.settled)
        name = sha256(json.dumps([*about, self.stir, self.points, self.seed]).encode()).hexdigest()[:16]
        file = cache_folder() / "flows" / f"{name}.nc"
        if not file.is_file():
            print(f"Computing {self.trajectories} turbulent flows, some minutes, once: {file}", file=sys.stderr)
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{uuid4().hex}.nc")
            try:
                self._compute(temporary)
                temporary.rename(file)
            finally:
                temporary.unlink(missing_ok=True)
        return file

    def _compute(self, file: Path) -> None:
        """Compute the flows, and write their velocity."""
        low, high = self.reynolds
        reynolds = low * (high / low) ** torch.linspace(0, 1, self.trajectories)
        # In an order in which every stretch has all sizes: which are held out is drawn by number.
        reynolds = reynolds[Stream(self.seed, "reynolds").integers(0, torch.arange(self.trajectories), 2**31).argsort()]
        velocity = np.empty((2, self.trajectories, self.states, *self.size), np.float32)
        for some in torch.arange(self.trajectories).split(TOGETHER):
            flow, seed = self.flow(reynolds[some]), 2 * (self.seed * self.trajectories + int(some[0]))
            (w,) = flow.run(flow.start(seed), self.settled, 1, seed)
            for i, later in enumerate(flow.run(w, self.interval, self.states, seed + 1)):
                velocity[:, some, i] = flow.velocity(later, self.size[0]).transpose(0, 1).numpy()
        places = 2 * pi / self.size[0] * np.arange(self.size[0])
        axes = {axis: Array((axis,), places, {"boundary": "periodic"}) for axis in ("x", "y")}
        axes["time"] = Array(("time",), self.interval * np.arange(self.states))
        dims = ("sample", "time", "x", "y")
        of = {f"velocity_{axis}": Array(dims, velocity[i]) for i, axis in enumerate("xy")}
        write(file, axes | of | {"reynolds": Array(("sample",), reynolds.numpy())})
