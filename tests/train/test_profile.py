"""The profile: counted and measured figures that agree with what is known."""

from dataclasses import replace

import pytest
import torch

from anydit.cli.profile import run
from anydit.model.backend import used
from anydit.model.text import Cross, Joint, Text
from anydit.recipes.digits import digits
from anydit.train.lora import LoRA
from anydit.train.memory import needed
from anydit.train.mesh import Mesh
from anydit.train.profile import fits_alone, over_sizes, plot, profile
from tests.train import tiny
from tests.train.tiny import tiny_with

CPU = torch.device("cpu")


def small():
    recipe = replace(digits(), train=tiny_with(batch=4).train)
    return replace(recipe, model=replace(recipe.model, width=32, depth=2, heads=2, channels=1, size=(8, 8)))


def test_figures():
    p = profile(small(), CPU)
    assert p.batch == 4 and p.cost.tokens == 4
    assert p.parameter_bytes == 4 * p.cost.parameters
    assert 0 < p.forward_seconds < p.step_seconds and p.ceiling > 1e8
    assert 0 < p.forward_share < 1.5 and 0 < p.step_share < 1.5


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor's fastest product is left out, and what fits is looked for once: both take seconds to find."""
    monkeypatch.setattr("anydit.train.profile.product_ceiling", lambda *_: 1.0)
    monkeypatch.setattr("anydit.train.room.TRIES", 1)


def test_what_does_not_fit_is_told_and_not_tried(monkeypatch: pytest.MonkeyPatch):
    """A trial would end in PyTorch's own error."""
    monkeypatch.setattr("anydit.train.room.free_bytes", lambda _: 2**31)
    with pytest.raises(
        ValueError, match=r"got 1000000000, whose step needs .* GiB are free; expected .*--train.batch \d+"
    ):
        run(["digits", "--batch", "1000000000", "--device", "cpu"])


@pytest.mark.usefixtures("unmeasured")
def test_activations_grow_with_the_batch():
    recipe = small()
    larger = replace(recipe, train=replace(recipe.train, batch=8))
    small_bytes, large_bytes = (profile(r, CPU).activation_bytes for r in (recipe, larger))
    assert 1.6 < large_bytes / small_bytes < 2.1


@pytest.mark.usefixtures("unmeasured")
def test_activations_that_are_computed_again_are_not_kept():
    again = replace(small(), train=replace(small().train, recompute=1.0))
    part, whole = (profile(recipe, CPU).activation_bytes for recipe in (again, small()))
    assert 0 < part < 0.5 * whole


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("entry", [Cross(), Joint()])
def test_a_text_is_part_of_it(entry):
    recipe = small()
    with_text = replace(recipe, model=replace(recipe.model, conditions={"text": Text(12, 6, entry)}))
    p = profile(with_text, CPU)
    assert p.cost.forward > profile(recipe, CPU).cost.forward
    assert 0 < p.forward_seconds < p.step_seconds


@pytest.mark.usefixtures("unmeasured")
def test_curve(tmp_path):
    points = over_sizes(small(), [(8, 8), (16, 16), (32, 32)], CPU)
    assert [p.cost.tokens for p in points] == [4, 16, 64]
    assert points[2].cost.attention == 256 * points[0].cost.attention, "the square of 16 times the tokens"
    plot(points, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.usefixtures("unmeasured")
def test_command(tmp_path, capsys):
    out = tmp_path / "p.png"
    assert (
        run(
            ["digits", "--batch", "2", "--model.depth", "2", "--sizes", "8", "12", "--out", str(out), "--device", "cpu"]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "GMACs" in printed and "12x12" in printed and out.is_file()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("flags", [["--model.channels", "1", "--model.size", "8", "8"], []], ids=["open label", "open"])
def test_what_is_open_comes_from_the_data(tmp_path, capsys, flags: list[str]):
    """`tiny` leaves its label to the data, whether or not channels and size are given."""
    words = [
        f"{tiny.__file__}:tiny",
        "--batch",
        "2",
        "--sizes",
        "8",
        "--out",
        str(tmp_path / "p.png"),
        "--device",
        "cpu",
    ]
    assert run([*words, *flags]) == 0
    assert "GMACs" in capsys.readouterr().out


@pytest.mark.usefixtures("unmeasured")
def test_several_processes_are_measured_as_one_of_them():
    shared = replace(small(), train=replace(small().train, batch=8, accumulate=2, mesh=Mesh(4)))
    p = profile(shared, CPU)
    assert p.batch == 2
    one = profile(replace(small(), train=replace(small().train, batch=1)), CPU)
    assert p.activation_bytes == pytest.approx(one.activation_bytes, rel=0.01)


@pytest.mark.usefixtures("unmeasured")
def test_a_model_that_only_several_processes_have_room_for_is_counted(tmp_path, capsys, monkeypatch):
    words = ["digits", "--train.mesh.shard", "4", "--out", str(tmp_path / "p.png"), "--sizes", "8", "--device", "cpu"]
    shared = replace(digits(), train=replace(digits().train, mesh=Mesh(1, 4)))
    shared = shared.resolved(shared.data.open("train"), lambda _: None, CPU)
    monkeypatch.setattr("anydit.train.profile.free_bytes", lambda _: needed(shared.step, CPU) + 1)
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "GMACs" in printed and "samples/s" not in printed
    assert "No times: processes are to share this model" in printed
    assert not (tmp_path / "p.png").exists()


@pytest.mark.usefixtures("unmeasured")
def test_attention_is_measured_as_the_recipe_says(tmp_path, monkeypatch):
    seen = set[str | None]()
    monkeypatch.setattr("anydit.cli.profile.profile", lambda *given: (seen.add(used()), profile(*given))[1])
    words = ["digits", "--batch", "2", "--sizes", "8", "--out", str(tmp_path / "p.png"), "--device", "cpu"]
    assert run([*words, "--train.attention_backend", "math"]) == 0
    assert seen == {"math"} and used() is None
    with pytest.raises(ValueError, match=r"train\.attention_backend: got cudnn on cpu, expected one of flash, math"):
        run([*words, "--train.attention_backend", "cudnn"])


def test_only_models_that_processes_share_are_asked_whether_they_fit(monkeypatch):
    """An adapter's step takes less than is counted, and was not refused."""
    monkeypatch.setattr("anydit.train.profile.free_bytes", lambda _: 1)
    assert fits_alone(replace(small(), train=replace(small().train, adapter=LoRA())), CPU)
    assert not fits_alone(replace(small(), train=replace(small().train, mesh=Mesh(1, 4))), CPU)
