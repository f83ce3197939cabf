"""Videos: digits that move, by class and from their first frames, each beside held-out videos and what is trivial.

    python benchmarks/modalities_video.py [--only text | axial] [--gpu] [--runs FOLDER]

--only text is digits that are told in words; --only axial the same network by class in factorised attention, in space
and then in time. Both are of a size for a CPU, and in no other table.
"""

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from modality import Trained, page, trained
from results import picture, table
from torch import Tensor

from anydit.data import Data, MovingDigits
from anydit.data.sheet import side_by_side
from anydit.evaluate import classifier, distances
from anydit.evaluate.compare import Figure
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import in_parts, seen
from anydit.evaluate.own import own
from anydit.evaluate.own.motion import tracks
from anydit.evaluate.own.video import seen as look
from anydit.evaluate.sets import Sets, opened, spread
from anydit.inference.rollout import rollout_along
from anydit.model.attention import Axial
from anydit.recipes.video import moving_digits, moving_digits_gpu, moving_digits_next, moving_digits_text

CPU = torch.device("cpu")
VIDEOS, SHOWN = 500, 8
"""Held-out videos, and those that are shown."""

AHEAD = """\
Root mean square error by frames ahead, in deviations; clips have {length} frames, of which {known} are given. Besides:
the share of videos in whose frame a classifier sees the digit of the first ones; and how far, in pixels, the median
video's step is from those of its first frames."""

LONG_SECONDS = 5.0
"""How far videos are rolled out that were learned from clips of a second."""

NOISE, JUMBLED = "noise with each pixel's mean and deviation", "frames of different real videos"

TOLD = ("identity", "frame_accuracy", "frames", "steps", "speed", "direction", "unsteady", "turns", "walls")


def drawn(done: Trained, data: str) -> tuple[list[list[object]], str]:
    """Videos by class: whether their frames show the digit that was asked for, and how they move."""
    figures = evaluate(done.pipeline, done.recipe.data, samples=VIDEOS).figures
    noise, jumbled = trivial(opened(done.pipeline, done.recipe.data, VIDEOS), done.recipe.data)
    shown = [
        ("frechet", "Fréchet video distance, classifier's features", noise, NOISE),
        ("frames", "Fréchet distance of frames", noise, NOISE),
        ("frame_accuracy", "frames with the digit asked for", jumbled, JUMBLED),
        ("identity", "videos with one digit in all frames", jumbled, JUMBLED),
        ("speed", "speed, distance in pixels per second", jumbled, JUMBLED),
    ]
    rows = [done.row("video", data, title, *_both(figures[name]), other[name], which)
            for name, title, other, which in shown]  # fmt: skip
    lines = [[figures[name].title, *_both(figures[name]), noise[name], jumbled[name], figures[name].meaning]
             for name in ("frechet", *TOLD)]  # fmt: skip
    head = ["moving digits by class", "samples", "held-out", "noise", "jumbled", "what it is"]
    return rows, f"{table(head, lines)}\n\nJumbled are real frames, each of another video."


def trivial(sets: Sets, data: Data) -> tuple[dict[str, float], dict[str, float]]:
    """The figures of noise, and of jumbled frames; their Fréchet distances are in the report's features."""
    assert sets.label is not None
    judge = classifier.trained(data, sets.train, sets.label, CPU, see=seen(sets.view))
    reference = distances.moments(in_parts(judge, sets.read_train(torch.arange(len(sets.train)))))
    return tuple(
        {name: figure.samples for name, figure in own(sets.view, x, sets).figures.items()}
        | {"frechet": distances.frechet(distances.moments(in_parts(judge, x)), reference)}
        for x in (_noise(sets), _jumbled(sets))
    )


def _both(figure: Figure) -> tuple[float, object]:
    return figure.samples, "-" if figure.floor is None else figure.floor


def _noise(sets: Sets) -> Float[Tensor, "n c t h w"]:
    """Noise with the mean and the deviation of each value of training videos, as dark and as bright as they may be."""
    train = sets.read_train(spread(len(sets.train), 2000))
    noise = torch.randn(sets.drawn, *train.shape[1:], generator=torch.Generator().manual_seed(0))
    return (noise * train.std(0) + train.mean(0)).clamp(*sets.view.bounds or (None, None))


def _jumbled(sets: Sets) -> Float[Tensor, "n c t h w"]:
    """Real frames, each from a video of its own."""
    train = sets.read_train(spread(len(sets.train), sets.drawn))
    return torch.stack([train[:, :, t].roll(t, 0) for t in range(train.shape[2])], dim=2)


def ahead(done: Trained, data: str) -> tuple[list[object], str, Float[Tensor, "two n c t h w"]]:
    """Frames after the given ones, and far beyond the clips that were learned from, beside what is trivial."""
    config = done.recipe.data
    assert isinstance(config, MovingDigits)
    assert config.task is not None
    known, length = config.task.frames, config.space[0]
    real = replace(config, seconds=LONG_SECONDS, task=None).open("held_out").read(torch.arange(VIDEOS))
    truth = real.x
    x = rollout_along(done.pipeline, truth[:, :, :known], truth.shape[2], seed=0)
    scale = truth.std()
    mean = config.open("train").read(torch.arange(1000)).x.mean((0, 2), keepdim=True)
    others = {"the last frame known": truth[:, :, known - 1 : known], "the mean frame": mean[:, :, 0][:, :, None]}
    errors = {"anydit": x, **others}
    by_frame = {name: _errors(some.expand_as(truth), truth)[known:] / scale for name, some in errors.items()}
    trained_on = slice(0, length - known)
    single = {name: float(error[trained_on].square().mean().sqrt()) for name, error in by_frame.items()}
    best = min(others, key=lambda name: single[name])
    row = done.row("video", data, f"error of {length - known} frames ahead, in deviations", single["anydit"], "-",
                   single[best], best)  # fmt: skip
    steps = [i for i in (1, 2, 4, 8, 16, 24, 36) if i <= truth.shape[2] - known]
    by_frame |= _kept(config, known, real.tensor("label"), {"anydit": x, "real": truth})
    lines = [[i, *(float(each[i - 1]) for each in by_frame.values())] for i in steps]
    text = AHEAD.format(length=length, known=known)
    return row, f"{text}\n\n{table(['frames', *by_frame], lines)}", torch.stack([truth[:SHOWN], x[:SHOWN]])


def _kept(
    config: MovingDigits, known: int, digits: Int[Tensor, " n"], videos: dict[str, Float[Tensor, "n c t h w"]]
) -> dict[str, Float[Tensor, " t"]]:
    """By frames ahead: the share of videos that still show their digit; and how unsteadily the median video moves."""
    stills = config.open("held_out").stills
    judge = classifier.trained(stills, stills.open("train"), "label", CPU)
    found = dict[str, Tensor]()
    for name, x in videos.items():
        found[f"its digit, {name}"] = (look(judge, x) == digits[:, None]).float().mean(0)[known:]
        steps = tracks(x / 16).diff(dim=1).abs()
        usual = steps[:, : known - 1].median(dim=1, keepdim=True).values
        found[f"unsteady, {name}"] = (steps - usual).abs().norm(dim=2).median(dim=0).values[known - 1 :]
    return found


def _errors(x: Float[Tensor, "n c t h w"], truth: Float[Tensor, "n c t h w"]) -> Float[Tensor, " t"]:
    return (x - truth).square().mean((0, 1, 3, 4)).sqrt()


def rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The rows of the table over all modalities, and below it what is told of videos besides."""
    recipe, name = (moving_digits_gpu(), "moving-digits-gpu") if gpu else (moving_digits(), "moving-digits")
    done = trained(recipe, runs / name)
    data = "moving digits, {} x {} x {}".format(*done.recipe.data.space or ())
    found, figures = drawn(done, data)
    digits, view = [i % 10 for i in range(20)], done.pipeline.config.view
    x = done.pipeline.sample(20, {"label": digits})
    by_class = picture("video-class", view.picture(x, [str(d) for d in digits], 2), "video-class")
    if gpu:
        return found, f"{figures}\n\n{by_class}"
    row, leads, pair = ahead(trained(moving_digits_next(), runs / "moving-digits-next"), data)
    what = f"Each real video over one that goes on from its first frames, for {LONG_SECONDS:g} s."
    below = picture("video-next", side_by_side(view, pair[0], pair[1], columns=2),
                    "real videos over ones that go on from their first frames")  # fmt: skip
    return [*found, row], "\n\n".join([figures, by_class, leads, what, below])


def by_text(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """How often the digit that a text says is seen, and how far from the way that it says."""
    recipe = moving_digits_text()
    data = "moving digits, by text"
    done = trained(recipe, runs / "moving-digits-text")
    figures = evaluate(done.pipeline, recipe.data, samples=VIDEOS).figures
    rows = [
        done.row("video", data, "share with the digit that the text says", *_both(figures["text"]),
                 figures["shuffled"].samples, "texts shuffled"),
        done.row("video", data, "degrees from the direction told", *_both(figures["heading"]),
                 90, "chance"),
    ]  # fmt: skip
    lines = [[figures[name].title, *_both(figures[name]), figures[name].meaning] for name in (*TOLD, "pace")]
    below = table(["moving digits by text", "samples", "held-out", "what it is"], lines)
    texts = list(recipe.data.open("held_out").read(torch.arange(SHOWN)).texts["text"])
    x = done.pipeline.sample(SHOWN, {"text": texts})
    sheet = picture("video-text", done.pipeline.config.view.picture(x, texts, 1), "video-text")
    return rows, f"{below}\n\nEach over the text that it was told, cut where it is too long:\n\n{sheet}"


def factorised(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """Digits by class by the recipe's network, but for its attention."""
    whole = moving_digits()
    recipe = replace(whole, model=replace(whole.model, attention=Axial(((1, 2), (0,)))))
    return drawn(trained(recipe, runs / "moving-digits-axial"), "moving digits, factorised attention")


if __name__ == "__main__":
    page("video", "Videos: digits that move", __doc__, rows, {"text": by_text, "axial": factorised})
