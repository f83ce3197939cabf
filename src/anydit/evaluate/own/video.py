"""Videos: single frames, changes from frame to frame, whether all frames show the same, motion, and what comes next."""

from collections.abc import Sequence
from functools import partial
from math import sqrt

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure as Plot
from PIL.Image import Image
from torch import Tensor

from anydit.data import KNOWN, Videos
from anydit.data.video.clips import Filmed, Moving
from anydit.data.video.view import EVERY_SECOND
from anydit.evaluate import classifier, distances
from anydit.evaluate.classifier import Classifier
from anydit.evaluate.compare import Figure
from anydit.evaluate.features import RandomNetwork, in_parts
from anydit.evaluate.own import Own, own
from anydit.evaluate.own.motion import Motion, at_walls, motion, tracks
from anydit.evaluate.pictures import rendered
from anydit.evaluate.sets import Sets, spread

REFERENCE = 512
"""Videos that are looked at, at most, where a figure needs no more: each has many values."""

FRAMES = 2
"""Frames of each video that are compared as pictures, evenly spread."""

VALUES = 2**20
"""Values that stand for all of those of many videos, at most."""

CPU = torch.device("cpu")
NAMES, STYLES = ("samples", "held-out data", "training data"), ("-", "--", ":")


@own.register
def _(view: Videos, x: Float[Tensor, "n c t h w"], sets: Sets) -> Own:
    train = sets.read_train(spread(len(sets.train), REFERENCE))
    parts = [x[spread(len(x), REFERENCE)], sets.real.x[spread(sets.count, REFERENCE)], train]
    figures, pictures = {"frames": frames(parts)} | changes(parts), dict[str, Image]()
    if isinstance(sets.held, Filmed) and sets.label is not None:
        figures |= identity(x, sets)
    if isinstance(sets.held, Moving) and x.shape[2] > 2:
        figures |= moves(x, sets, sets.held, view)
        pictures["Speed, first direction, and turns in a video"] = _motion_plot([_moved(x, view), *_real(sets, view)])
    if KNOWN in sets.real.cond:
        ahead, plot = next_frames(x, sets)
        figures |= ahead
        pictures["Error by frames ahead"] = plot
    return Own(figures, pictures)


def frames(parts: Sequence[Float[Tensor, "_ c t h w"]]) -> Figure:
    """The Fréchet distance of single frames. `parts`: samples, held-out data, training data.

    In few features, because there are few videos: those of a network trained on photographs are more than the frames.
    """
    flat = [some[:, :, spread(some.shape[2], FRAMES)].transpose(1, 2).flatten(0, 1) for some in parts]
    space = RandomNetwork(flat[2], CPU)
    drawn, held, train = (distances.moments(in_parts(space, some)) for some in flat)
    values = distances.frechet(drawn, train), distances.frechet(held, train)
    return Figure("Fréchet distance of frames", *values, None, f"in {space.name}; small is good")


def changes(parts: Sequence[Float[Tensor, "_ c t h w"]]) -> dict[str, Figure]:
    """How values change from frame to frame, and how much does in a video; against training data, in deviations."""
    steps = [some.diff(dim=2) for some in parts]
    per_video = [step.abs().flatten(1).mean(1) for step in steps]
    steps = [step.flatten()[spread(step.numel(), VALUES)] for step in steps]
    meaning = "distance between distributions, in deviations"
    figures = dict[str, Figure]()
    for name, title, some, more in (
        ("steps", "Steps from frame to frame", steps, "; blur, flicker and jumps raise it"),
        ("liveliness", "Change in a video", per_video, "; of each video's mean step: too still, too wild"),
    ):
        deviation = some[2].std().clamp(min=1e-12)
        drawn, held, _ = (distances.wasserstein(each / deviation, some[2] / deviation) for each in some)
        figures[name] = Figure(title, drawn, held, None, meaning + more)
    return figures


def identity(x: Float[Tensor, "n c t h w"], sets: Sets) -> dict[str, Figure]:
    """Whether a classifier trained on single real frames sees one class in all frames; and the one that is asked for.

    Where nothing asks for a class, it is that of the video whose other conditions a sample has.
    """
    assert sets.label is not None
    assert isinstance(sets.held, Filmed)
    stills = sets.held.stills
    progress = partial(sets.progress, "classifier of frames")
    judge = classifier.trained(stills, stills.open("train"), sets.label, CPU, progress)
    drawn, held = seen(judge, x), seen(judge, sets.real.x)
    same = [_share((each == each[:, :1]).all(1)) for each in (drawn, held)]
    figures = {
        "identity": Figure("Same in all frames", same[0], same[1], _error(same[0], len(x)),
                           "share of videos in whose frames a classifier sees one class"),
    }  # fmt: skip
    if sets.asked or sets.told or KNOWN in sets.real.cond:
        right = [_share(each == label[:, None]) for each, label in
                 ((drawn, sets.labels[sets.rows]), (held, sets.labels))]  # fmt: skip
        figures["frame_accuracy"] = Figure(
            "Frames of the right class", right[0], right[1], _error(right[0], len(x)), "share of all frames"
        )
    return figures


def seen(judge: Classifier, x: Float[Tensor, "n c t h w"]) -> Int[Tensor, "n t"]:
    """The class of each frame."""
    return judge.predict(x.transpose(1, 2).flatten(0, 1)).reshape(len(x), -1)


def moves(x: Float[Tensor, "n c t h w"], sets: Sets, held: Moving, view: Videos) -> dict[str, Figure]:
    """Recovered speeds, directions and turns, against those of training videos; and against what was told."""
    drawn, real, train = _moved(x, view), *_real(sets, view)
    both = (drawn, real)
    speed = [distances.wasserstein(each.speed, train.speed) for each in both]
    aims = [_shares(each.direction, 8) for each in (*both, train)]
    aim = [float((each - aims[2]).abs().sum() / 2) for each in aims]
    unsteady = [float(each.unsteady.mean()) for each in both]
    turns = [distances.wasserstein(_turns(each), _turns(train)) for each in both]
    walls = [_share(at_walls(each, held.walls)) for each in both]
    figures = {
        "speed": Figure("Speed", speed[0], speed[1], None, "distance between distributions, in pixels per second"),
        "direction": Figure("Direction", aim[0], aim[1], None, "share that would have to go another of eight ways"),
        "unsteady": Figure("Unsteadiness", unsteady[0], unsteady[1], None,
                           "how far a video's steps are from its usual ones, in pixels per second"),
        "turns": Figure("Turns", turns[0], turns[1], None, "distance between distributions of turns in a video"),
        "walls": Figure("Turns at a wall", walls[0], walls[1], None, "share of all turns"),
    }  # fmt: skip
    if not (sets.told or KNOWN in sets.real.cond):
        return figures
    was = held.velocity(sets.real.ids)
    angles = [float(_angle(each.velocity, to).mean()) for each, to in zip(both, (was[sets.rows], was), strict=True)]
    paces = [float((each.speed - to.norm(dim=1)).abs().mean())
             for each, to in zip(both, (was[sets.rows], was), strict=True)]  # fmt: skip
    return figures | {
        "heading": Figure("Direction against what is told", angles[0], angles[1], None, "degrees; by chance 90"),
        "pace": Figure("Speed against what is told", paces[0], paces[1], None, "mean error in pixels per second"),
    }


def next_frames(x: Float[Tensor, "n c t h w"], sets: Sets) -> tuple[dict[str, Figure], Image]:
    """How far samples are from what came after the known frames, beside what stands still; in deviations of values."""
    truth, known = sets.real.x[sets.rows], sets.real.tensor(KNOWN)[sets.rows]
    count = int((known[:, -1:] > 0).flatten(3).all(-1).all(0).sum())  # of frames that are known in all videos
    scale = sets.real.x.std()
    ours = _by_frame(x, truth, count) / scale
    still = _by_frame(truth[:, :, count - 1 : count].expand_as(truth), truth, count) / scale
    plot = Plot(figsize=(5, 3), layout="constrained")
    axes = plot.subplots()
    for values, of, style in ((ours, "samples", "-"), (still, "the last known frame", "--")):
        axes.plot(range(1, len(values) + 1), values.tolist(), style, label=of)
    axes.set(xlabel="frames ahead", ylabel="error, in deviations", ylim=(0, None))
    axes.legend()
    meaning = "root of the mean square, in deviations of the data"
    return {
        "next": Figure("Error of the next frame", float(ours[0]), 0.0, None, meaning),
        "last": Figure(f"Error {len(ours)} frames ahead", float(ours[-1]), 0.0, None, meaning),
        "ahead": Figure("Error of all frames ahead", float(ours.square().mean().sqrt()), 0.0, None, meaning),
        "still": Figure("The same if nothing moved", float(still.square().mean().sqrt()), 0.0, None, meaning),
    }, rendered(plot)


def _by_frame(x: Float[Tensor, "n c t h w"], truth: Float[Tensor, "n c t h w"], first: int) -> Float[Tensor, " ahead"]:
    return (x - truth)[:, :, first:].square().mean((0, 1, 3, 4)).sqrt()


def _moved(x: Float[Tensor, "n c t h w"], view: Videos) -> Motion:
    low, high = view.bounds
    return motion(tracks((x - low) / (high - low)), view.rate or EVERY_SECOND)


def _real(sets: Sets, view: Videos) -> tuple[Motion, Motion]:
    """Of held-out and of training videos, of which there are more, so that they are the reference."""
    train = sets.read_train(spread(len(sets.train), 2 * sets.count))
    return _moved(sets.real.x, view), _moved(train, view)


def _turns(found: Motion) -> Float[Tensor, " n"]:
    return found.turns.flatten(1).sum(1).float()


def _angle(a: Float[Tensor, "n 2"], b: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """In degrees."""
    return torch.rad2deg(torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1).acos())


def _shares(values: Int[Tensor, " n"], kinds: int) -> Float[Tensor, " kinds"]:
    return values.bincount(minlength=kinds) / len(values)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean()) if flags.numel() else 0.0


def _error(share: float, count: int) -> float:
    return sqrt(share * (1 - share) / count)


def _motion_plot(found: Sequence[Motion]) -> Image:
    """Of samples, held-out and training data: speeds, directions, and how often a video turns."""
    plot = Plot(figsize=(11, 3), layout="constrained")
    speeds, aims, turns = plot.subplots(1, 3)
    top = 1.2 * float(found[2].speed.max())
    for i, (each, name, style) in enumerate(zip(found, NAMES, STYLES, strict=True)):
        counts = torch.histc(each.speed.clamp(0, top), 30, 0, top)
        speeds.plot(torch.linspace(0, top, 30).tolist(), (counts / counts.sum()).tolist(), style, label=name)
        aims.bar([k + 0.27 * (i - 1) for k in range(8)], _shares(each.direction, 8).tolist(), 0.25)
        many = _shares(_turns(each).long().clamp(max=8), 9)
        turns.bar([k + 0.27 * (i - 1) for k in range(9)], many.tolist(), 0.25)
    speeds.set(xlabel="pixels per second", ylabel="share of videos")
    speeds.legend()
    aims.set_xticks(range(8), ("right", "right\ndown", "down", "left\ndown", "left", "left\nup", "up", "right\nup"))
    turns.set(xlabel="turns in a video")
    return rendered(plot)
