"""What a recipe leaves open comes from its data, and what these contradict is refused."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from anydit.codecs import Normalize
from anydit.config import config, from_json, to_json
from anydit.data import ArrayView, Data, Facts, Images, Part, Samples
from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiTConfig
from anydit.model.text import Cross, Text
from anydit.overrides import overridden
from anydit.tensors import Batch, Tokens
from anydit.train.loop import train
from anydit.train.recipe import Recipe
from anydit.train.resolve import refilled, resolved
from tests.train.tiny import tiny, tiny_with


@dataclass
class Few:
    """Seven samples in memory, with a class, two numbers and a field of two channels each."""

    facts: Facts = field(
        default_factory=lambda: Facts(2, (4, 6), {"label": ("a", "b", "c")}, {"numbers": ("Re", "Ma")}, {"near": 2})
    )

    def __len__(self) -> int:
        return 7

    def read(self, ids):
        x = torch.arange(7.0)[ids][:, None, None, None].expand(-1, 2, 4, 6)
        numbers = torch.stack([ids.float(), torch.full((len(ids),), 4.0)], dim=1)
        near = torch.stack([10 * x[:, 0], torch.ones_like(x[:, 0])], dim=1)
        return Batch(x, {"label": ids % 3, "numbers": numbers, "near": near}, ids)


def open_recipe(**conditions) -> Recipe:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2, 2), conditions=conditions)
    return replace(tiny(), model=model, codec=Normalize())


def test_everything_open_is_filled_in_from_the_data():
    said: list[str] = []
    recipe = resolved(open_recipe(label=Label(), numbers=Numbers(), near=Field(dropout=0.2)), Few(), said.append)
    assert not said and recipe.model.complete and recipe.codec.complete
    assert recipe.model.channels == 2 and recipe.model.size == (4, 6)
    assert recipe.model.conditions["label"] == Label(3, names=("a", "b", "c"))
    numbers = recipe.model.conditions["numbers"]
    assert numbers == Numbers(("Re", "Ma"), mean=(3.0, 4.0), std=(2.0, 1.0))
    assert recipe.model.conditions["near"] == Field(2, mean=(30.0, 1.0), std=(20.0, 1.0), dropout=0.2)
    assert recipe.codec == Normalize((3.0, 3.0), (2.0, 2.0))
    assert resolved(recipe, Few()) == recipe
    assert from_json(Recipe, to_json(recipe)) == recipe


@dataclass
class Told(Few):
    """The same seven samples, and a text of which an encoder made tokens."""

    facts: Facts = field(default_factory=lambda: Facts(2, (4, 6), texts=("text",)))
    pooled: bool = True

    def read(self, ids):
        pooled = torch.zeros(len(ids), 8) if self.pooled else None
        tokens = Tokens(torch.zeros(len(ids), 3, 5), torch.ones(len(ids), 3, dtype=torch.bool), pooled)
        return Batch(super().read(ids).x, {"text": tokens}, ids)


def test_a_text_has_the_widths_of_its_encoder():
    for pooled, width in ((True, 8), (False, None)):
        recipe = resolved(open_recipe(text=Text(entry=Cross(), dropout=0.3)), Told(pooled=pooled))
        assert recipe.model.conditions == {"text": Text(5, width, Cross(), 0.3)}
        assert recipe.model.complete and resolved(recipe, Told(pooled=pooled)) == recipe
    with pytest.raises(ValueError, match=r"model\.conditions\.text\.width: got 6, expected 5, which the encoder has"):
        resolved(open_recipe(text=Text(6)), Told())
    with pytest.raises(ValueError, match=r"model\.conditions\.text: got Label, expected Text, which the data has"):
        resolved(open_recipe(text=Label()), Told())
    said: list[str] = []
    resolved(open_recipe(), Told(), said.append)
    assert said == ["The model is not told of text, which the data has; --model.conditions.text Text tells it."]


def test_conditions_that_the_data_lack_are_left_out_and_said():
    said: list[str] = []
    asked = {"other": Label(), "speed": Numbers(dropout=0.3), "map": Field(dropout=0.1)}
    recipe = resolved(open_recipe(label=Label(), numbers=Numbers(), near=Field(), **asked), Few(), said.append)
    assert list(recipe.model.conditions) == ["label", "numbers", "near"]
    assert said == ["The model is not conditioned on other or speed or map: the data has none."]


def test_what_the_data_has_and_the_model_is_not_told_is_said_with_the_flag_that_tells_it():
    said: list[str] = []
    recipe = resolved(open_recipe(numbers=Numbers()), Few(), said.append)
    flags = ["--model.conditions.label Label", "--model.conditions.near Field"]
    assert [line.partition("; ")[2].removesuffix(" tells it.") for line in said] == flags
    words = [word for flag in flags for word in flag.split()]
    told = resolved(overridden(open_recipe(numbers=Numbers()), words, "test"), Few(), said.append)
    assert set(told.model.conditions) == {"label", "numbers", "near"} and len(said) == 2
    assert list(recipe.model.conditions) == ["numbers"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 3}, r"model\.channels: got 3, expected 2"),
        ({"size": (4, 4)}, r"model\.size: got \(4, 4\), expected \(4, 6\)"),
        ({"conditions": {"label": Label(2)}}, r"label\.classes: got 2, expected 3"),
        ({"conditions": {"other": Label(2)}}, r"model\.conditions: got other, expected one of: label, numbers, near"),
        ({"conditions": {"other": Numbers(("a",))}}, r"model\.conditions: got other, expected one of: "),
        ({"conditions": {"other": Field(1)}}, r"model\.conditions: got other, expected one of: "),
        ({"conditions": {"label": Numbers()}}, r"conditions\.label: got Numbers, expected Label, which the data has"),
        ({"conditions": {"near": Label()}}, r"conditions\.near: got Label, expected Field, which the data has"),
        ({"conditions": {"numbers": Numbers(("Re",))}}, r"numbers\.names: got \('Re',\), expected as many as the data"),
        ({"conditions": {"near": Field(3)}}, r"near\.channels: got 3, expected 2, which the data has"),
    ],
)
def test_what_the_data_contradict_is_refused(change, message: str):
    recipe = open_recipe()
    with pytest.raises(ValueError, match=message):
        resolved(replace(recipe, model=replace(recipe.model, **change)), Few())


def test_names_that_the_recipe_gives_stay():
    named = Numbers(("Reynolds number", "Mach number"))
    recipe = resolved(open_recipe(label=Label(), numbers=named, near=Field()), Few())
    assert recipe.model.conditions["numbers"] == replace(named, mean=(3.0, 4.0), std=(2.0, 1.0))


@config
class InMemory(Data):
    """The seven samples."""

    def open(self, part: Part) -> Samples:
        return Few()


@pytest.mark.parametrize("condition", [Label(), Numbers(), Numbers(("Re", "Ma")), Field(), Field(2)], ids=repr)
def test_a_recipe_with_channels_and_size_may_leave_its_conditions_to_the_data(tmp_path, condition):
    name = {Label: "label", Numbers: "numbers", Field: "near"}[type(condition)]
    model = replace(open_recipe(**{name: condition}).model, channels=2, size=(4, 6))
    assert not model.complete
    recipe = replace(tiny_with(steps=1, batch=2), model=model, codec=Normalize(), view=ArrayView(), data=InMemory())
    trained = train(recipe, tmp_path, "cpu", lambda _: None)
    assert trained.config.model.complete and list(trained.config.model.conditions) == [name]


@dataclass
class Pictures(Few):
    """Forty pictures between 0 and 1, of which a few are dark."""

    def __len__(self) -> int:
        return 40

    def read(self, ids):
        x = torch.linspace(0, 1, 24).reshape(4, 6) * torch.where(ids < 3, 0.1, 0.5 + ids / 100)[:, None, None, None]
        return Batch(x.expand(-1, 2, 4, 6), {"mask": torch.arange(6).expand(len(ids), 4, 6) < 5}, ids)


def test_contrast_is_that_of_nearly_all_samples_where_they_exist_and_of_data_with_bounds():
    recipe = replace(open_recipe(), view=Images(low=0, high=1))
    found = resolved(recipe, Pictures())
    assert found.contrast is not None and found.contrast == pytest.approx(0.54 * 22 / 23, abs=0.01)
    assert refilled(recipe, to_json(found)).contrast == found.contrast
    assert resolved(replace(recipe, view=ArrayView()), Pictures()).contrast is None
