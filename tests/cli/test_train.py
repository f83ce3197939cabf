"""`anydit train`: what it trains, where, and what it refuses before any work."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from anydit.cli import main
from anydit.codecs import Normalize
from anydit.diffusion.paths import DDPM
from anydit.diffusion.predictions import V
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.interop.convert import to_diffusers
from anydit.interop.diffusers import MAX_PERIOD
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.time import TimeEmbedding
from anydit.train.guards import Interrupted
from tests.train import tiny

TINY = f"{tiny.__file__}:tiny"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """All that was printed, in one line, without the frames that tyro draws."""
    return " ".join(word for word in "".join(capsys.readouterr()).split() if word not in "│─")


def test_trains_and_goes_on(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", TINY, "--train.steps", "2", "--model.position", "Rope", "--device", "cpu"]) == 0
    recipe = json.loads((here / "runs/tiny/recipe.json").read_text())
    assert recipe["train"]["steps"] == 2
    assert recipe["model"]["position"]["type"] == "Rope"
    assert "Trained: runs/tiny. Look at runs/tiny/samples.png" in said(capsys)
    assert main(["train", TINY, "--train.steps", "3", "--model.position", "Rope", "--device", "cpu"]) == 0
    assert "Going on from step 2 of 3" in said(capsys)
    assert len((here / "runs/tiny/log.jsonl").read_text().splitlines()) == 3


def test_another_recipe_in_the_same_folder(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", TINY, "--train.steps", "2", "--out", str(run), "--train.batch", "4"]) == 2
    assert "train.batch: was 8, is 4" in said(capsys)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["digit"], "did you mean digits?"),
        (["nowhere.py:f"], "got nowhere.py, which is not a file"),
        ([f"{tiny.__file__}:big"], "got 'big', expected a function that"),
        (["digits", "--train.stepz", "5"], "unrecognized options: --train.stepz, 5; perhaps you meant --train.steps"),
        (["digits", "--devise", "cpu"], "unrecognized options: --devise, cpu; perhaps you meant --device"),
        (["digits", "--train.steps", "many"], "--train.steps"),
        (["digits", "--train.steps", "0"], "train.steps: got 0, expected at least 1"),
        (["digits", "--model.position", "Ropes"], "model.position.type: got 'Ropes', expected one of SinCos, Rope"),
        (["digits", "--model.patch", "3", "3"], "size: got (8, 8), expected multiples of patch (3, 3)"),
        (["digits", "--model.heads", "5"], "heads"),
        (["digits", "--model.channels", "3"], "model.channels: got 3, expected 1"),
        (["digits", "--prediction", "Noise"], "expected Velocity, V or X0"),
        ([TINY, "--model.conditions.text", "Text"], "model.conditions: got text, expected one of: label, which the"),
    ],
)
def test_refused_before_any_work(words: list[str], named: str, here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", *words]) == 2
    text = said(capsys)
    assert named in text
    assert "Traceback" not in text
    assert not list(here.glob("runs/*/checkpoints/*"))


def test_interrupted_says_how_to_go_on(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted(2, 7)

    monkeypatch.setattr("anydit.cli.train.train", stopped)
    assert main(["train", "digits"]) == 130
    assert "Stopped and saved after step 7. Run the same command again to go on." in said(capsys)


def test_conditions_that_flags_speak_of_must_be_in_the_data_those_of_the_recipe_need_not(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    np.savez(here / "flows.npz", x=np.random.default_rng(0).random((40, 2, 8), np.float32))
    tiny = ["--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--model.patch", "4", "--device", "cpu"]
    words = ["train", "arrays", "--data.path", "flows.npz", "--train.steps", "1", *tiny]
    for name in ("label", "numbers"):
        assert main([*words, f"--model.conditions.{name}.dropout", "0.2"]) == 2
        assert f"model.conditions: got {name}, expected one of: none" in said(capsys)
    assert main([*words, "--model.conditions.label", "None"]) == 0
    assert "The model is not conditioned on numbers or field: the data has none." in said(capsys)


def test_arrays_are_conditioned_on_what_the_flags_name(here: Path, capsys: pytest.CaptureFixture[str]):
    """Numbers and a field lie beside the samples: the model is told of both, and samples are asked for by numbers."""
    x = np.random.default_rng(0).random((40, 2, 8), np.float32)
    np.savez(here / "flows.npz", x=x, speed=x.mean((1, 2)), mass=np.arange(40), mask=x[:, :1] > 0.5)
    data = ["--data.path", "flows.npz", "--data.numbers", "speed", "mass", "--data.field", "mask"]
    model = ["--model.patch", "4", "--model.width", "16", "--model.depth", "1", "--model.heads", "2"]
    train = ["--train.steps", "1", "--train.batch", "4", "--train.sample-every", "9", "--device", "cpu"]
    assert main(["train", "arrays", *data, *model, *train]) == 0
    assert "The model is not conditioned on label: the data has none." in said(capsys)
    conditions = json.loads((here / "runs/arrays/recipe.json").read_text())["model"]["conditions"]
    assert list(conditions) == ["numbers", "field"]
    assert conditions["numbers"]["names"] == ["speed", "mass"]
    assert conditions["field"]["channels"] == 1
    assert len(conditions["numbers"]["mean"]) == 2 and len(conditions["field"]["std"]) == 1
    assert main(["sample", "runs/arrays", "--numbers", "0.5", "3", "-n", "2", "--device", "cpu", "--out", "x"]) == 0
    assert len(list((here / "x").iterdir())) == 2


SLOW = """
import time
from dataclasses import replace
from anydit.config import config
from anydit.data import Digits
from tests.train.tiny import tiny

@config
class Slow(Digits):
    def open(self, part):
        print("opening", flush=True)
        time.sleep(60)
        return super().open(part)

def slow():
    return replace(tiny(), data=Slow())
"""


@pytest.mark.fault("T6")
def test_interrupted_while_data_are_opened_it_ends_at_once(tmp_path: Path):
    """There is nothing to save yet."""
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    words = ["train", f"{tmp_path}/slow.py:slow", "--out", str(tmp_path / "run"), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "anydit", *words],
        cwd=Path(__file__).parents[2],  # where the tests are found
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "opening\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - began < 10
    assert (process.returncode, said, error) == (130, "", "anydit: error: interrupted\n")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_help(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--help"]) == 0
    assert "--out FOLDER" in capsys.readouterr().out
    assert main(["train"]) == 2
    assert "--out FOLDER" in capsys.readouterr().out
    assert not list(here.iterdir())


def test_help_of_a_recipe(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "digits", "--model.position", "Rope", "--train.steps", "7", "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("scikit-learn's handwritten digits")
    assert "\n  --model.position SinCos|Rope|SinCosRope|Learned|Points|None  [Rope]" in page
    assert "\n  --train.steps INT  [7]" in page
    assert "\n  --model.position.max-period NUMBER" in page
    assert "\n  --out FOLDER" in page
    assert max(map(len, page.splitlines())) <= 100
    assert not list(here.iterdir())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model for other pictures."""
    config = DiTConfig(
        16,
        1,
        2,
        (2, 2),
        channels=3,
        size=(4, 4),
        conditions={"label": Label(4)},
        time=TimeEmbedding(max_period=MAX_PERIOD),
    )
    Pipeline(PipelineConfig(model=config, path=DDPM(), prediction=V(), codec=Normalize.to_unit(0, 1))).save(
        tmp_path / "m"
    )
    return tmp_path / "m"


def test_begins_with_other_weights_and_goes_on_without(here: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    words = ["train", TINY, "--device", "cpu"]
    assert main([*words, "--init", str(model), "--train.steps", "1", "--model.position", "Rope"]) == 0
    text = said(capsys)
    assert f"Begins with {model}" in text
    assert "in part embed.weight 16x12 -> 16x4 3 -> 1 channels" in text
    recipe = json.loads((here / "runs/tiny/recipe.json").read_text())
    assert (recipe["path"]["type"], recipe["prediction"]["type"]) == ("DDPM", "V")
    assert (recipe["model"]["patch"], recipe["model"]["position"]["type"]) == ([2, 2], "Rope")
    assert main([*words, "--train.steps", "2", "--model.position", "Rope"]) == 0
    assert "Going on from step 1 of 2" in said(capsys)
    assert main([*words, "--init", str(here / "runs/tiny"), "--train.steps", "2"]) == 2
    assert "expected the same or none" in said(capsys)


def test_begins_with_a_folder_of_diffusers(here: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    to_diffusers(model, here / "theirs")
    for folder in ("theirs", "theirs/transformer"):  # the second says nothing of path and prediction
        out = here / folder.replace("/", "-")
        flags = ["--init", str(here / folder), "--train.steps", "1", "--out", f"{out}-run", "--device", "cpu"]
        assert main(["train", TINY, *flags]) == 0
        assert "Begins with" in said(capsys)
    kinds = [
        json.loads((here / f"theirs{end}-run/recipe.json").read_text())["path"]["type"] for end in ("", "-transformer")
    ]
    assert kinds == ["DDPM", "Linear"]


def test_an_adapter_from_the_command_line(here: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--train.adapter", "LoRA", "--train.adapter.rank", "2", "--train.steps", "1", "--device", "cpu"]
    assert main(["train", TINY, "--init", str(model), *flags]) == 0
    assert "Trains" in said(capsys)
    assert (here / "runs/tiny/adapter.safetensors").is_file()
    assert main(["convert", "merge", "runs/tiny", "--to", "merged"]) == 0
    assert (here / "merged/model.safetensors").is_file()
    assert main(["train", TINY, "--out", "runs/none", *flags]) == 2
    assert "expected --init FOLDER beside it" in said(capsys)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "which does not exist"), ("a.pt", "a file; expected a folder: `anydit convert")]
)
def test_what_no_run_can_begin_with(here: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]):
    (here / "a.pt").write_bytes(b"")
    assert main(["train", TINY, "--init", name]) == 2
    assert f"init: got {name}" in (text := said(capsys))
    assert message in text
    assert not (here / "runs").exists()
