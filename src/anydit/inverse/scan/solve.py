"""Reconstructs all that a task holds, beside what needs no model, and says how good each is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anydit.codecs.quality import psnr, ssim
from anydit.inference.conditions import Given
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inverse.classical import least_variation, plainly
from anydit.inverse.corrections import AnyCorrection
from anydit.inverse.eigen import Eigen
from anydit.inverse.measurement import Measurement
from anydit.inverse.reconstruct import Reconstruction, fewest, gradients_at_once, reconstruct
from anydit.inverse.scan.task import Job, Task

SHARES = (0.5, 0.8, 0.95)
"""Of intervals of which is said how often they hold the truth."""


@dataclass(frozen=True)
class Found:
    """What one way of reconstructing found, `[n c *space]` on the data's own scale, and how far from the measurement.

    `residual`: in deviations of the noise, of which 1 is what the noise explains.
    """

    name: str
    x: Float[Tensor, "n c *space"]
    residual: Float[Tensor, " n"]


@dataclass(frozen=True)
class Solution:
    """All ways, the model's last; how far samples differ, if there are several; how far each is off; what it cost.

    `within`: how often the truth, if it is known, lies in the interval of each share that so many samples can tell.
    """

    ways: tuple[Found, ...]
    deviation: Float[Tensor, "n c *space"] | None
    truth: Float[Tensor, "n c *space"] | None
    residual: Float[Tensor, " samples"]
    within: Mapping[float, float]
    calls: int
    seconds: float

    @property
    def mean(self) -> Float[Tensor, "n c *space"]:
        """The model's best guess."""
        return self.ways[-1].x

    def quality(
        self, way: Found, bounds: tuple[float, float] | None, rows: slice = slice(None)
    ) -> tuple[float, float | None] | None:
        """PSNR in decibels and SSIM, if the truth is known; of data without bounds for the range of the truth."""
        if self.truth is None:
            return None
        low, high = bounds or (float(self.truth.min()), float(self.truth.max()))
        extent = max(high - low, 1e-12)
        return psnr(way.x[rows], self.truth[rows], extent), ssim(way.x[rows], self.truth[rows], extent)


@dataclass(frozen=True)
class Way:
    """How to draw: how what was measured is taken in, so many samples of each, by a sampler, from a seed."""

    how: AnyCorrection
    sampling: Sampling
    samples: int = 8
    seed: int = 0


def solve(
    pipeline: Pipeline, task: Task, way: Way, cond: Mapping[str, Given], progress: Callable[[int, int], None]
) -> Solution:
    """Reconstruct every measurement of a task; `progress` is told how many are done, and of how many.

    Slices are drawn from the same noise, each alone as likely as from any other: what tells neighbours apart is then
    what was measured, and a volume does not flicker.

    Raises:
        ValueError: as `anydit.inverse.reconstruct`.
    """

    def draw(y: Tensor, job: Job, own: Mapping[str, Given], seed: int) -> Reconstruction:
        return reconstruct(pipeline, y, job.physics, {**cond, **own}, how=way.how, samples=way.samples,
                           sigma=task.sigma, sampling=way.sampling, seed=seed)  # fmt: skip

    at_once = max(1, gradients_at_once(pipeline) // max(1, way.samples))
    parts = [(job, slice(i, i + at_once)) for job in task.jobs for i in range(0, len(job.y), at_once)]
    ways, deviations, residuals = dict[str, list[Found]](), list[Tensor](), list[Tensor]()
    within = {share: list[Tensor]() for share in SHARES if way.samples >= fewest(share)}
    done, total, start, calls = 0, sum(len(job.y) for job in task.jobs), time.monotonic(), 0
    for index, (job, rows) in enumerate(parts):
        measured = task.measured(job, pipeline, rows)
        each_slice = measured.y.split(1) if task.slices else [measured.y]
        own = {name: values[rows] for name, values in job.cond.items()}
        one = _together([draw(y, job, own, way.seed if task.slices else way.seed + index) for y in each_slice])
        for each in (*_without_model(measured), _found(f"mean of {way.samples}", one.mean, measured)):
            ways.setdefault(each.name, []).append(each)
        calls, done = one.calls, done + len(one.mean)
        residuals.append(one.residual.flatten())
        if way.samples > 1:
            deviations.append(one.deviation)
        if job.truth is not None:
            for share, each in within.items():
                each.append(one.coverage(job.truth[rows], share).flatten(1).mean(1))
        if rows.stop >= len(job.y):
            _forget(job)
        progress(done, total)
    truth = _truth(task)
    return Solution(
        tuple(Found(name, torch.cat([p.x for p in some]), torch.cat([p.residual for p in some]))
              for name, some in ways.items()),
        torch.cat(deviations) if deviations else None,
        truth,
        torch.cat(residuals),
        {} if truth is None else {share: float(torch.cat(each).mean()) for share, each in within.items()},
        calls,
        time.monotonic() - start,
    )  # fmt: skip


def _forget(job: Job) -> None:
    """Free what was found of its physics: it can be larger than all slices together."""
    modules = job.physics.modules() if isinstance(job.physics, nn.Module) else ()
    for module in modules:
        if isinstance(module, Eigen):
            module.forget()


def _together(some: Sequence[Reconstruction]) -> Reconstruction:
    """Those of several measurements as one."""
    samples, residual = (torch.cat(each, dim=1) for each in zip(*((r.samples, r.residual) for r in some), strict=True))
    return Reconstruction(samples, residual, some[0].calls)


def _without_model(measured: Measurement) -> Iterator[Found]:
    """What the measurement shows by itself and, of images and volumes, the least total variation."""
    with torch.no_grad():
        plain = plainly(measured)
        yield _found("measurement", plain, measured)
        if plain.ndim in (4, 5):
            yield _found("total variation", least_variation(measured), measured)


def _found(name: str, x: Tensor, measured: Measurement) -> Found:
    with torch.no_grad():
        return Found(name, x.cpu(), measured.residual(x.to(measured.y.device)).cpu())


def _truth(task: Task) -> Float[Tensor, "n c *space"] | None:
    known = [job.truth for job in task.jobs if job.truth is not None]
    return torch.cat(known) if len(known) == len(task.jobs) else None
