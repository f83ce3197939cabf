"""What is said of all that a task holds: how often the truth lies in the intervals."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from anydit.inference.config import Sampling
from anydit.inverse.classical import least_variation
from anydit.inverse.corrections import Proximal
from anydit.inverse.eigen import Eigen
from anydit.inverse.operators import MRI, Inpainting
from anydit.inverse.reconstruct import reconstruct
from anydit.inverse.scan.comparison import covered, fit
from anydit.inverse.scan.solve import Solution, Way, solve
from anydit.inverse.scan.task import Job, Task, of_samples
from tests.inverse.test_adapter import IMAGE, pipeline


@pytest.fixture(autouse=True)
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Total variation in few iterations: nothing here is said of it."""
    monkeypatch.setattr("anydit.inverse.scan.solve.least_variation", partial(least_variation, iterations=20))


def solved(task: Task, samples: int) -> Solution:
    return solve(pipeline(), task, Way(Proximal(), Sampling(steps=3), samples), {}, lambda *_: None)


def images(n: int) -> torch.Tensor:
    return 16 * torch.rand(n, *IMAGE, generator=torch.Generator().manual_seed(0))


def test_the_truth_is_counted_in_the_intervals_that_so_many_samples_tell():
    task = of_samples(pipeline(), images(3), Inpainting(), 0.02, None)
    (job,), solution = task.jobs, solved(task, 9)
    found = reconstruct(pipeline(), job.y, job.physics, how=Proximal(), samples=9, sampling=Sampling(steps=3))
    expected = {share: found.coverage(images(3), share).mean().item() for share in (0.5, 0.8)}
    assert solution.within == pytest.approx(expected) and 0 < expected[0.5] < expected[0.8] < 1
    parts = " / ".join(f"{100 * part:.0f} %" for part in expected.values())
    assert covered(solution) == f"truth within the 50 % / 80 % interval: {parts}"


def test_all_measurements_count_alike_however_they_are_solved():
    task = of_samples(pipeline(), images(3), Inpainting(), 0.02, None)
    (job,) = task.jobs
    jobs = [Job(job.y[rows], job.physics, images(3)[rows]) for rows in (slice(0, 2), slice(2, 3))]
    apart = [solved(Task([one], 0.02), 3).within[0.5] for one in jobs]
    second = reconstruct(
        pipeline(), jobs[1].y, job.physics, how=Proximal(), samples=3, sampling=Sampling(steps=3), seed=1
    )
    last = second.coverage(images(3)[2:], 0.5).mean().item()
    assert solved(Task(jobs, 0.02), 3).within[0.5] == pytest.approx((2 * apart[0] + last) / 3)


def test_nothing_is_said_of_the_truth_where_too_few_samples_tell_or_nobody_knows_it():
    task = of_samples(pipeline(), images(2), Inpainting(), 0.02, None)
    assert solved(task, 2).within == {} and covered(solved(task, 2)) is None
    (job,) = task.jobs
    unknown = Task([Job(job.y, job.physics), job], 0.02)
    assert solved(unknown, 3).within == {} and covered(solved(unknown, 3)) is None


def test_samples_that_do_not_fit_what_was_measured_are_told():
    solution = solved(of_samples(pipeline(), images(2), Inpainting(known=0.5), 0.02, None), 2)
    for residual, said in (
        (4.0, "samples do not fit: they are 4 deviations"),
        (1.1, None),
        (0.4, "are 0.4 deviations"),
    ):
        told = fit(replace(solution, residual=torch.full((4,), residual)))
        assert told is None if said is None else said in (told or "")


def test_what_was_found_of_the_physics_is_kept_for_no_longer_than_it_serves():
    task = of_samples(pipeline(), images(2), MRI(acceleration=2, center=0.25, coils=2), 0.02, None)
    (job,) = task.jobs
    asked = list[torch.Tensor]()
    job.physics._eigen = lambda *of: asked.append(Eigen._eigen(job.physics, *of)) or asked[-1]
    solved(task, 2)
    assert len(asked) == 1 and job.physics.modes is None


def test_slices_of_a_volume_are_drawn_from_the_same_noise():
    """What is measured alike comes out alike, however many slices there are and wherever they are."""
    task = of_samples(pipeline(), images(1), Inpainting(), 0.02, None)
    (job,) = task.jobs
    alike = Task([Job(job.y.repeat(2, 1, 1, 1), job.physics)], 0.02)
    first, second = solved(alike, 2).mean
    assert not torch.allclose(first, second, atol=0.1)
    first, second = solved(replace(alike, slices=True), 2).mean
    torch.testing.assert_close(first, second)
    apart = solved(Task([job, Job(job.y, job.physics)], 0.02, slices=True), 2)
    torch.testing.assert_close(apart.mean, torch.stack([first, second]))
    assert apart.deviation is not None and apart.deviation.max() > 0.1, "samples of one differ"
