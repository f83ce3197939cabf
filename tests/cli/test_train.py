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
        (["digits", "--train.step", "5"], "--train.steps"),
        (["digits", "--train.steps", "many"], "--train.steps"),
        (["digits", "--train.steps", "0"], "train.steps: got 0, expected at least 1"),
        (["digits", "--model.position", "Ropes"], "model.position.type: got 'Ropes', expected one of SinCos, Rope"),
        (["digits", "--model.patch", "3", "3"], "size: got (8, 8), expected multiples of patch (3, 3)"),
        (["digits", "--model.heads", "5"], "heads"),
        (["digits", "--model.channels", "3"], "model.channels: got 3, expected 1"),
        (["digits", "--prediction", "Noise"], "expected Velocity, V or X0"),
    ],
)
def test_refused_before_any_work(words: list[str], named: str, here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", *words]) == 2
    text = said(capsys)
    assert named in text
    assert "Traceback" not in text
    assert not list(here.glob("runs/*/checkpoints/*"))


def test_interrupted_says_how_to_go_on(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def stopped(*_: object) -> None:
        raise Interrupted(2, 7)

    monkeypatch.setattr("anydit.cli.train.train", stopped)
    assert main(["train", "digits"]) == 130
    assert "Stopped and saved after step 7. Run the same command again to go on." in said(capsys)


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


def test_interrupted_while_data_are_opened_it_ends_at_once(tmp_path: Path):
    """T6: there is nothing to save yet."""
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
    assert "\n  --model.position SinCos|Rope|SinCosRope|Learned|None  [Rope]" in page
    assert "\n  --train.steps INT  [7]" in page
    assert "\n  --model.position.max-period NUMBER" in page
    assert "\n  --out FOLDER" in page
    assert max(map(len, page.splitlines())) <= 100
    assert not list(here.iterdir())
