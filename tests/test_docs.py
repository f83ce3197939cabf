"""What the documentation shows runs: every command and every block of Python, on a run of a tiny model."""

import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from anydit import Label, Pipeline, PipelineConfig, Recipe, Sampling, preset
from anydit.cli import COMMANDS, main
from anydit.data import MovingDigits, SmallMolecules, SpokenDigits, Volumes
from anydit.diffusion.paths import DDPM, Linear
from anydit.diffusion.predictions import Noise, Velocity
from anydit.interop import convert, flow, sit
from anydit.interop.diffusers import MAX_PERIOD
from anydit.interop.source import read
from anydit.inverse.classical import least_variation
from anydit.model.dit import DiTConfig
from anydit.model.modulation import Shared
from anydit.model.text import Cross, Joint, Text
from anydit.model.time import TimeEmbedding
from anydit.model.tokens import SinCos
from anydit.recipes import RECIPES
from anydit.train import loop
from anydit.train.loop import train
from anydit.train.lora import LoRA
from anydit.train.posthoc import Profiles
from anydit.train.start import Start, begun
from tests.codecs.tiny import saved
from tests.codecs.tiny_text import save_encoder
from tests.train.tiny import tiny
from tests.train.tiny_codec import tiny_codec, tiny_latent
from tests.train.tiny_text import captioned

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

FEW = {
    "evaluate.classifier.MOST_SEEN": 1000,
    "evaluate.classifier.MOST_SEEN_3D": 1000,
    "evaluate.evaluate.REFERENCE_AT_MOST": 100,
    "evaluate.sets.DRAW_AT_MOST": 100,
    "evaluate.sets.ENOUGH": 100,
    "train.room.TRIES": 1,
    "train.profile.product_ceiling": lambda *_: 1.0,
    "train.trial.REPEATS": 1,
    "inverse.scan.solve.least_variation": partial(least_variation, iterations=20),
}
"""Samples that commands look at, times that they measure, how long they search: what they print means nothing here."""

Block = tuple[str, str, str]


def blocks(page: Path) -> list[Block]:
    """The language, the title and the text of each block."""
    return [(m[1], m[2] or "", m[3]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_from_an_array_to_samples_it_is_thirty_lines():
    _, title, text = blocks(ROOT / "docs" / "how-to" / "bring-your-data.md")[0]
    assert title == "swings.py" and len(text.splitlines()) <= 30


def save_published(folder: Path, time: TimeEmbedding) -> None:
    """A model of the published form, with one block and random weights."""
    conditions, codec = {"label": Label(1000)}, convert.PUBLISHED_LATENTS
    model = preset("S", 2, channels=4, size=(4, 4), conditions=conditions, learned_variance=True, time=time)
    Pipeline(PipelineConfig(model=replace(model, depth=1), path=DDPM(), prediction=Noise(), codec=codec)).save(folder)


def save_flow(folder: Path) -> None:
    """Small models in the formats of SiT and LightningDiT, and what normalises the latter's latents."""
    model = preset("S", 1, channels=5, size=(3, 3), conditions={"label": Label(1000)}, time=sit.TIME)
    Pipeline(PipelineConfig(model=replace(model, depth=1), codec=convert.PUBLISHED_LATENTS)).save(folder / "flow")
    flow.to_sit(folder / "flow", folder / "SiT-XL-2-256x256.pt")
    flow.to_lightningdit(folder / "flow", folder / "lightningdit-xl-imagenet256-800ep.pt")
    torch.save({"mean": torch.zeros(1, 5, 1, 1), "std": torch.ones(1, 5, 1, 1)}, folder / "latents_stats.pt")


def save_worded(folder: Path) -> None:
    """Small models of text in diffusers' formats."""
    model = DiTConfig(32, 1, 2, (2, 2), channels=4, size=(4, 4), position=SinCos(interpolate=True))
    cross, joint = ({"text": Text(8, 6, entry, dropout=0.0)} for entry in (Cross(), Joint()))
    models = (
        ("PixArt-Sigma-XL-2-512-MS", convert.to_pixart, replace(model, conditions=cross, modulation=Shared()), DDPM()),
        ("stable-diffusion-3.5-medium", convert.to_sd3, replace(model, conditions=joint), Linear()),
    )
    for place, write, own, path in models:
        prediction = Noise() if isinstance(path, DDPM) else Velocity()
        config = PipelineConfig(model=own, path=path, prediction=prediction, codec=convert.PUBLISHED_LATENTS)
        Pipeline(config).save(folder / "worded" / place)
        write(folder / "worded" / place, folder / place)


def save_adapter(base: Path, out: Path) -> None:
    """An adapter beside a run, trained for a step."""
    start, recipe = Start.of(base, *read(base)), tiny()
    recipe = replace(recipe, train=replace(recipe.train, steps=1, adapter=LoRA(rank=2)))
    train(begun(recipe, start.origin), out, "cpu", lambda _: None, start)


def save_small(name: str, runs: Path) -> None:
    """A run of a recipe with a tiny network, and few crops of volumes, few videos, or few words."""
    recipe = RECIPES[name]()
    data = replace(recipe.data, crops=32) if isinstance(recipe.data, Volumes) else recipe.data
    data = replace(data, count=40, held_out_count=40) if isinstance(data, MovingDigits) else data
    data = replace(data, takes=1) if isinstance(data, SpokenDigits) else data
    data = replace(data, turns=1, properties=("gyration",)) if isinstance(data, SmallMolecules) else data
    model = replace(recipe.model, width=16, depth=1, heads=2)
    short = replace(recipe.train, steps=1, batch=4, bf16=False)
    train(replace(recipe, model=model, data=data, train=short, sampling=Sampling(steps=2)), runs / name, "cpu", print)


def save_flows(runs: Path) -> None:
    """Runs of the recipes of a flow, on a few small ones."""
    for name in ("flow", "flow-forecast"):
        recipe = RECIPES[name]()
        few = {"trajectories": 40, "states": 4, "settled": 0.25, "points": 16, "size": (8, 8)}
        model = replace(recipe.model, width=16, depth=1, heads=2)
        short = replace(recipe.train, steps=1, batch=4, bf16=False)
        small = replace(recipe, model=model, data=replace(recipe.data, **few), train=short)
        train(replace(small, sampling=Sampling(steps=2)), runs / name, "cpu", lambda _: None)


def save_profiled(out: Path) -> None:
    """A run of digits that kept averages, trained for two steps."""
    recipe = tiny()
    short = replace(recipe.train, steps=2, profiles=Profiles(every=1))
    train(replace(recipe, train=short), out, "cpu", lambda _: None)


@pytest.fixture(scope="module")
def run_of_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which runs/digits is there, badly trained, and small models stand for the published ones."""
    folder = tmp_path_factory.mktemp("docs")
    recipe = tiny()
    train(replace(recipe, train=replace(recipe.train, steps=2)), folder / "runs" / "digits", "cpu", lambda _: None)
    for name in (
        "brain", "weather-forecast", "weather-gaps", "moving-digits", "moving-digits-next", "spoken-digits",
        "small-molecules", "brain-slices",
    ):  # fmt: skip
        save_small(name, folder / "runs")
    save_flows(folder / "runs")
    save_profiled(folder / "runs" / "profiled")
    save_published(folder / "published", TimeEmbedding())
    convert.to_dit(folder / "published", folder / "DiT-XL-2-256x256.pt")
    saved(folder / "sd-vae-ft-ema")
    save_flow(folder)
    save_worded(folder)
    save_adapter(folder / "runs" / "digits", folder / "runs" / "adapted")
    save_published(folder / "similar", TimeEmbedding(max_period=MAX_PERIOD))
    convert.to_diffusers(folder / "similar", folder / "DiT-XL-2-256")
    codec, latent = folder / "runs" / "fashion-codec", folder / "runs" / "fashion-latent"
    train(captioned(save_encoder(folder / "encoder", "bert")), folder / "runs" / "captions", "cpu", lambda _: None)
    (folder / "runs" / "pairs").symlink_to("captions")
    (folder / "runs" / "gyration").symlink_to("small-molecules")
    train(tiny_codec(steps=2), codec, "cpu", lambda _: None)
    train(tiny_latent(codec, steps=2), latent, "cpu", lambda _: None)
    return folder


@pytest.fixture
def place(run_of_digits: Path, monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Puts the test beside that run, and makes trainings short; returns the recipes that were to be trained."""
    trained = list[Recipe]()

    def short(recipe: Recipe, out: Path | str, *rest: Any, start: Start | None = None) -> Any:
        trained.append(recipe)
        return train(replace(recipe, train=replace(recipe.train, steps=1)), out, "cpu", lambda _: None, start)

    def checked(recipe: Recipe, *rest: Any, **named: Any) -> None:
        trained.append(recipe)

    monkeypatch.chdir(run_of_digits)
    for place, value in FEW.items():
        monkeypatch.setattr(f"anydit.{place}", value)
    # Classifiers that have seen so little are not for other tests.
    monkeypatch.setattr("anydit.evaluate.classifier.cache_folder", lambda: run_of_digits / "cache")
    monkeypatch.setattr("anydit.cli.train.train", checked)  # imports it, so before what it imports is another
    monkeypatch.setattr(loop, "train", short)
    return trained


def typed(text: str) -> list[list[str]]:
    """The words of each call of anydit in a block of shell."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["anydit"]]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=name)
def test_page(page: Path, place: list[Recipe]):
    names: dict[str, Any] = {}
    for language, title, text in blocks(page):
        if language == "python":
            exec(compile(text, name(page), "exec"), names)
            if title:
                Path(title).write_text(text, encoding="utf-8")
        for words in typed(text) if language == "sh" else []:
            before = len(place)
            assert main(words) == 0, words
            assert len(place) == before + (words[0] == "train" and "--help" not in words)


@pytest.mark.parametrize("command", COMMANDS)
def test_example_of_the_overview_is_on_a_page(command: str):
    texts = [text for page in PAGES for language, _, text in blocks(page) if language == "sh"]
    assert COMMANDS[command].example.split() in [words for text in texts for words in typed(text)]
