"""Latent against pixel at equal wall-clock on Fashion-MNIST: quality, speed and memory, side by side.

    python benchmarks/latent.py                  # ten minutes for each model, and an autoencoder before: 40 minutes
    python benchmarks/latent.py --seconds 120

The models are the recipes `fashion` (pixels) and `fashion-latent` (latents of `fashion-codec`), each with as many steps
as it takes in the same time; the latent one a second time with the autoencoder's training counted in. All are judged by
the same classifier. Memory is what a training step keeps for its backward pass, and what the network's weights take.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from results import PAGES, publish, table
from torch import Tensor

from anydit.codecs import Latents
from anydit.data import FashionMNIST, Images
from anydit.evaluate.classifier import Classifier, trained
from anydit.evaluate.compare import reconstruction
from anydit.evaluate.distances import Moments, frechet, moments
from anydit.evaluate.features import in_parts
from anydit.inference.pipeline import Pipeline, find_device
from anydit.recipes.fashion import fashion
from anydit.recipes.latent import fashion_codec, fashion_latent
from anydit.train.log import read
from anydit.train.loop import LOG_FILE, train
from anydit.train.profile import profile
from anydit.train.recipe import Recipe

WARM = 40
"""Steps that tell how long a step takes."""


def seconds_of(out: Path) -> float:
    """What the steps of a run took."""
    return sum(entry["seconds"] for entry in read(out / LOG_FILE))


def timed(recipe: Recipe, seconds: float, out: Path, device: torch.device) -> tuple[Pipeline, float]:
    """The recipe, trained for about so many seconds, and how many it took."""

    def with_steps(steps: int) -> Recipe:
        return replace(recipe, train=replace(recipe.train, steps=steps, sample_every=steps, save_every=steps))

    train(with_steps(WARM), out.with_name(f"{out.name}-warm"), device)
    entries = read(out.with_name(f"{out.name}-warm") / LOG_FILE)[WARM // 2 :]
    each = sum(entry["seconds"] for entry in entries) / len(entries)
    pipeline = train(with_steps(max(WARM, round(seconds / each))), out, device)
    return pipeline, seconds_of(out)


def judged(classifier: Classifier, x: Tensor, labels: Tensor, against: Moments) -> list[object]:
    """Fréchet distance and accuracy."""
    x = x.clamp(0, 255)
    return [frechet(moments(in_parts(classifier, x)), against), float((classifier.predict(x) == labels).float().mean())]


def row(
    name: str, recipe: Recipe, seconds: float, out: Path, labels: Tensor, judge: tuple[Classifier, Moments]
) -> tuple[Tensor, list[object]]:
    """A model trained for so many seconds: its samples, and its row."""
    device = find_device()
    pipeline, took = timed(recipe, seconds, out, device)
    began = time.perf_counter()
    x = pipeline.sample(len(labels), {"label": labels}, guidance=1.0)
    sampling = time.perf_counter() - began
    steps = len(read(out / LOG_FILE))
    whole = replace(recipe, model=pipeline.config.model, codec=pipeline.config.codec)
    cost = profile(whole, device)
    return x, [
        name,
        took,
        steps * recipe.train.batch / took,
        len(labels) / sampling,
        cost.activation_bytes / 2**20,
        cost.parameter_bytes / 2**20,
        *judged(judge[0], x, labels, judge[1]),
    ]


def main() -> None:
    """Train all three, publish the table and a sheet of each one's samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of training for each model")
    parser.add_argument("--samples", type=int, default=2000)
    arguments = parser.parse_args()
    device, data = find_device(), FashionMNIST()
    training, held_out = data.open("train"), data.open("held_out")
    classifier = trained(data, training, "label", device, lambda done: None)
    labels = torch.arange(arguments.samples) % 10
    real = held_out.read(torch.arange(len(held_out)))
    some = training.read(torch.arange(arguments.samples))
    judge = (classifier, moments(in_parts(classifier, real.x)))
    sheets = dict[str, Tensor]()
    with tempfile.TemporaryDirectory() as folder:
        codec_folder = Path(folder) / "codec"
        recipe = fashion_codec()
        codec = train(recipe, codec_folder, device)
        spent = seconds_of(codec_folder)
        with torch.inference_mode():
            again = codec.decode(codec.encode(some.x.to(device))).cpu()
        near = reconstruction(again.clamp(0, 255), some.x, (0.0, 255.0))
        latent = replace(fashion_latent(), codec=Latents(path=codec_folder))
        rows = [
            ["real (training images)", "", "", "", "", "", *judged(classifier, some.x, some.cond["label"], judge[1])],
            ["their reconstructions", spent, "", "", "", "", *judged(classifier, again, some.cond["label"], judge[1])],
        ]
        contenders = (
            ("pixels, `fashion`", fashion(), arguments.seconds),
            ("latents, `fashion-latent`", latent, arguments.seconds),
            ("latents, autoencoder's time counted in", latent, max(arguments.seconds - spent, 30.0)),
        )
        for name, each, seconds in contenders:
            out = Path(folder) / f"run-{len(rows)}"
            sheets[name], line = row(name, each, seconds, out, labels, judge)
            rows.append(line)
    head = ["", "training s", "images/s", "samples/s", "activations MiB", "weights MiB", "Fréchet distance", "accuracy"]
    note = (
        f"{arguments.samples} samples without guidance in 25 steps, against 10,000 test images. The autoencoder's "
        f"reconstructions have a PSNR of {near['psnr'].samples:.1f} dB and an SSIM of {near['ssim'].samples:.3f}."
    )
    publish("latent", "Latents against pixels at equal time", f"{table(head, rows)}\n\n{note}")
    for file, x in zip(("pixels", "latents"), sheets.values(), strict=False):
        Images(low=0, high=255).picture(x[:60], columns=10).save(PAGES / f"latent-{file}.png")


if __name__ == "__main__":
    main()
