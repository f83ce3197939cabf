"""Audio: spoken digits by class, by text, and as waveforms, beside noise with the mean spectrum of words.

    python benchmarks/modalities_audio.py [--only text | wave] [--gpu] [--runs FOLDER]

Both of --only are sizes for a CPU, and in no other table.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from modality import Trained, page, trained
from results import picture, table
from torch import Tensor

from anydit.data import Samples
from anydit.evaluate import classifier, distances
from anydit.evaluate.classifier import Classifier
from anydit.evaluate.compare import Figure
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import in_parts, seen
from anydit.evaluate.own import own
from anydit.evaluate.sets import Sets, opened
from anydit.recipes.audio import spoken_digits, spoken_digits_gpu, spoken_digits_text, spoken_digits_wave

SAMPLES = 420
"""Words that are drawn, one for each held-out one."""

DATA, NOISE = "spoken digits, 0.64 s at 8 kHz", "noise with the mean spectrum"
CPU = torch.device("cpu")


def steady(sets: Sets) -> Float[Tensor, "n 1 t"]:
    """Noise that has the words' mean spectrum, as long as held-out ones: what knows of no sound when it is."""
    some = sets.filled(sets.read_train(torch.arange(len(sets.train))))
    exists = ~sets.real.x.isnan()
    power = torch.fft.rfft(some).abs().square().mean((0, 1)) * some.shape[2] / _mean_length(sets.train)
    noise = torch.randn(sets.real.x.shape, generator=torch.Generator().manual_seed(0))
    x = torch.fft.irfft(torch.fft.rfft(noise, norm="ortho") * power.sqrt(), n=noise.shape[2])
    return torch.where(exists, x, torch.nan)


def _mean_length(train: Samples) -> float:
    lengths = train.facts.lengths
    return sum(length * count for length, count in lengths) / sum(count for _, count in lengths)


def figures_of(x: Tensor, sets: Sets, judge: Classifier, reference: Tensor) -> dict[str, float]:
    """Of sounds that stand beside held-out ones, in their order."""
    heard = sets.filled(x)
    right = (judge.predict(heard) == sets.real.tensor("label")).float().mean()
    away = distances.frechet(distances.moments(in_parts(judge, heard)), distances.moments(reference))
    levels = own(sets.view, x, sets).figures
    return {"accuracy": float(right), "frechet": away, **{name: f.samples for name, f in levels.items()}}


def judged(done: Trained) -> tuple[dict[str, Figure], dict[str, float], dict[str, float]]:
    """The report's figures; those of noise; and of held-out words that went through the recipe's codec."""
    data = done.recipe.data
    figures = evaluate(done.pipeline, data, samples=SAMPLES).figures
    sets = opened(done.pipeline, data, None)
    judge = classifier.trained(data, sets.train, "label", CPU, see=seen(sets.view))
    reference = in_parts(judge, sets.filled(sets.read_train(torch.arange(len(sets.train)))))
    with torch.inference_mode():
        back = done.pipeline.codec.decode(done.pipeline.codec.encode(sets.filled(sets.real.x)))
    back = torch.where(sets.real.x.isnan(), torch.nan, back)
    return dict(figures), *(figures_of(x, sets, judge, reference) for x in (steady(sets), back))


def rows(gpu: bool, runs: Path) -> tuple[list[list[object]], str]:
    """The rows of the table over all modalities, and what the spectrogram alone costs."""
    done = trained(spoken_digits_gpu() if gpu else spoken_digits(), runs / f"spoken-digits{'-gpu' if gpu else ''}")
    figures, noise, back = judged(done)
    named = {
        "accuracy": "share heard as the digit asked for",
        "frechet": "Fréchet distance, classifier's features",
        "levels": "levels in bands, error in dB",
    }
    of_all = [
        done.row("audio", DATA, title, figures[name].samples, figures[name].floor, noise[name], NOISE)
        for name, title in named.items()
    ]
    more = {**named, "spectrum": "mean spectrum, error in dB", "changes": "changes of levels, error in dB",
            "loudness": "loudness, error in dB", "audible": "audible time, error in s"}  # fmt: skip
    below = table(
        ["figure", "samples", "held-out", "held-out through the spectrogram", NOISE],
        [[title, figures[n].samples, figures[n].floor, back[n], noise[n]] for n, title in more.items()],
    )
    x = done.pipeline.sample(30, {"label": [i % 10 for i in range(30)]})
    sheet = done.pipeline.config.view.picture(x, [str(i % 10) for i in range(30)], 10)
    shown = picture("audio-gpu" if gpu else "audio", sheet, "words by class")
    return of_all, f"All figures of the spectrograms by class:\n\n{below}\n\n{shown}"


def by_text(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """How often the digit is heard that a text says."""
    done = trained(spoken_digits_text(), runs / "spoken-digits-text")
    figures = evaluate(done.pipeline, done.recipe.data, samples=SAMPLES).figures
    chance = figures["shuffled"].samples
    row = done.row("audio", f"{DATA}, by text", "share heard as the text says", figures["text"].samples,
                   figures["text"].floor, chance, "texts shuffled")  # fmt: skip
    return [row], ""


def as_waves(_: bool, runs: Path) -> tuple[list[list[object]], str]:
    """How often the digit is heard that a waveform was asked to be."""
    recipe = spoken_digits_wave()
    done = trained(recipe, runs / "spoken-digits-wave")
    figures = evaluate(done.pipeline, recipe.data, samples=SAMPLES).figures
    sets = opened(done.pipeline, recipe.data, None)
    judge = classifier.trained(recipe.data, sets.train, "label", CPU, see=seen(sets.view))
    chance = float((judge.predict(sets.filled(steady(sets))) == sets.real.tensor("label")).float().mean())
    row = done.row("audio", f"{DATA}, waveform", "share heard as the digit asked for", figures["accuracy"].samples,
                   figures["accuracy"].floor, chance, NOISE)  # fmt: skip
    return [row], ""


if __name__ == "__main__":
    page("audio", "Audio: spoken digits", __doc__, rows, {"text": by_text, "wave": as_waves})
