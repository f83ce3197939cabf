"""Latent against pixel at equal time on Fashion-MNIST: quality, speed and memory, side by side.

    anydit train fashion-codec                   # the autoencoder, in runs/fashion-codec
    python benchmarks/latent.py                  # ten minutes for each of three models

The models are the recipe `fashion` (pixels, in patches of 7x7), the same in patches of 4x4, which has as many tokens as
latents have, and `fashion-latent` (latents of `fashion-codec`). How long a step takes is measured with steps of all of
them in turns; then each is trained with as many steps as fit. With one thread the clock is the processor's own, so that
what else runs on the machine does not count. All are judged by the same classifier. Memory is what a training step
keeps for its backward pass, and what the network's weights take.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from results import PAGES, publish, table
from torch import Tensor

from anydit.codecs import Latents, load
from anydit.config import from_json
from anydit.data import FashionMNIST, Images
from anydit.data.loader import read_ahead
from anydit.evaluate.classifier import Classifier, trained
from anydit.evaluate.compare import reconstruction
from anydit.evaluate.distances import Moments, frechet, moments
from anydit.evaluate.features import in_parts
from anydit.inference.device import find_device
from anydit.inference.pipeline import Pipeline
from anydit.recipes.fashion import fashion
from anydit.recipes.latent import fashion_latent
from anydit.train.base import Site, Trainable, Work
from anydit.train.codec import CodecRecipe, reconstructed
from anydit.train.loop import train
from anydit.train.profile import profile
from anydit.train.recipe import Recipe
from anydit.weights import RUN_FILE, read_config, write_config

FILES = ("pixels", "same-tokens", "latents")
"""The sheets of samples, by model."""

ROUNDS, STEPS = 5, 3
"""Of each recipe in turns, to tell how long a step takes; the first round warms up."""


def clock() -> float:
    """Seconds: of the processor where one thread does all the work, else of the wall."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def step_seconds(recipes: dict[str, Trainable[Any]], folder: Path, device: torch.device) -> dict[str, float]:
    """How long a step of each recipe takes: the median, with steps of all in turns."""
    works = dict[str, Work[Any]]()
    for name, recipe in recipes.items():
        samples = recipe.data.open("train")
        works[name] = recipe.resolved(samples, print, device).begin(samples, Site(folder / "none", device))
    batches = {name: read_ahead(work.samples, work.order, 0) for name, work in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS + 1):
        for name, work in works.items():
            for _ in range(STEPS):
                began = clock()
                work.step(next(batches[name]).to(device), number)
                if number:
                    seconds[name].append(clock() - began)
    return {name: median(times) for name, times in seconds.items()}


def judged(classifier: Classifier, x: Tensor, labels: Tensor, against: Moments) -> list[object]:
    """Fréchet distance and accuracy."""
    x = x.clamp(0, 255)
    return [frechet(moments(in_parts(classifier, x)), against), float((classifier.predict(x) == labels).float().mean())]


def speeds(recipes: dict[str, Trainable[Any]], runs: Path, device: torch.device) -> dict[str, float]:
    """What `step_seconds` found, now or when `runs` was begun."""
    file = runs / "seconds.json"
    if not file.is_file():
        runs.mkdir(parents=True, exist_ok=True)
        write_config(file, step_seconds(recipes, runs, device))
    return {name: read_config(file)[name] for name in recipes}


def made(recipe: Recipe, each: float, seconds: float, out: Path) -> Pipeline:
    """A model trained for so many seconds, at `each` a step, or what is there of it trained further."""
    steps = max(1, round(seconds / each))
    loop = replace(recipe.train, steps=steps, sample_every=max(1, steps // 2), save_every=max(1, steps // 2))
    return train(replace(recipe, train=loop), out, find_device())


def row(
    name: str, recipe: Recipe, pipeline: Pipeline, each: float, labels: Tensor, judge: tuple[Classifier, Moments]
) -> tuple[Tensor, list[object]]:
    """A trained model's samples, and its row but for the seconds of its training."""
    began = clock()
    x = pipeline.sample(len(labels), {"label": labels}, guidance=1.0)
    sampling = clock() - began
    cost = profile(replace(recipe, model=pipeline.config.model, codec=pipeline.config.codec), pipeline.device)
    return x, [
        name,
        str(pipeline.config.model.grid[0] * pipeline.config.model.grid[1]),
        recipe.train.batch / each,
        len(labels) / sampling,
        cost.activation_bytes / 2**20,
        cost.parameter_bytes / 2**20,
        *judged(judge[0], x, labels, judge[1]),
    ]


def main() -> None:
    """Train the models, publish the table and a sheet of each one's samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", type=Path, default=Path("runs/fashion-codec"), help="the run of the autoencoder")
    parser.add_argument("--seconds", type=float, default=600.0, help="of training for each model")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--runs", type=Path, default=Path("runs/latent"), help="keep them here, and go on with them")
    parser.add_argument("--models", type=int, nargs="+", choices=range(3), default=range(3), help="these alone")
    parser.add_argument("--train", action="store_true", help="train them and stop, so that one can go on later")
    arguments = parser.parse_args()
    device, small = find_device(), fashion()
    own = from_json(CodecRecipe, read_config(arguments.codec / RUN_FILE))
    recipes = {
        "pixels, patches of 7x7": small,
        "pixels, patches of 4x4": replace(small, model=replace(small.model, patch=(4, 4))),
        "latents, patches of 2x2": replace(fashion_latent(), codec=Latents(path=arguments.codec)),
    }
    each = speeds({"codec": own, **recipes}, arguments.runs, device)
    some_of = {i: name for i, name in enumerate(recipes) if i in arguments.models}
    pipelines = {
        i: made(recipes[name], each[name], arguments.seconds, arguments.runs / str(i)) for i, name in some_of.items()
    }
    if arguments.train:
        return
    data, codec = FashionMNIST(), load(arguments.codec)
    training, held_out = data.open("train"), data.open("held_out")
    classifier = trained(data, training, "label", device, lambda done: None)
    labels = torch.arange(arguments.samples) % 10
    real = held_out.read(torch.arange(len(held_out)))
    some = training.read(torch.arange(arguments.samples))
    judge = (classifier, moments(in_parts(classifier, real.x)))
    again = reconstructed(codec.to(device), some.x, device)
    near = reconstruction(again.clamp(0, 255), some.x, (0.0, 255.0))
    spent = each["codec"] * own.train.steps
    rows = [
        [name, *[""] * 5, *judged(classifier, x, some.tensor("label"), judge[1])]
        for name, x in (("real (training images)", some.x), ("their reconstructions", again))
    ]
    sheets = dict[str, Tensor]()
    for i, name in some_of.items():
        sheets[FILES[i]], line = row(name, recipes[name], pipelines[i], each[name], labels, judge)
        rows.append(line)
        print(line, flush=True)
    head = ["", "tokens", "training images/s", "samples/s", "activations MiB", "weights MiB"]
    head += ["Fréchet distance", "accuracy"]
    clocked = "the processor's" if device.type == "cpu" and torch.get_num_threads() == 1 else "the wall's"
    note = (
        f"{arguments.seconds:.0f} s of training for each model, by {clocked} clock; {spent:.0f} s for the autoencoder "
        f"before that. {arguments.samples} samples without guidance in 25 steps, against 10,000 test images. "
        f"Reconstructions have a PSNR of {near['psnr'].samples:.1f} dB and an SSIM of {near['ssim'].samples:.3f}."
    )
    pictures = "\n\n".join(f"![{name}](latent-{name}.png)" for name in sheets)
    body = f"{table(head, rows)}\n\n{note} Samples of the models, in the order of the table:\n\n{pictures}"
    publish("latent", "Latents against pixels at equal time", body)
    for name, x in sheets.items():
        Images(low=0, high=255).picture(x[:60], columns=10).save(PAGES / f"latent-{name}.png")


if __name__ == "__main__":
    main()
