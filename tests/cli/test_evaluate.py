"""`anydit evaluate`: what it prints and writes, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from anydit.cli import main
from anydit.evaluate import classifier
from anydit.inference.pipeline import load


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(classifier, "LEAST_SEEN", 1000)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which a command is refused."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err.removeprefix("anydit: error: ").rstrip()


def test_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "digits"
    shutil.copytree(run, folder)
    assert main(["evaluate", str(folder), "--samples", "744", "--guidance", "2", "--steps", "3", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    for words in ("Conditional accuracy", "Fréchet distance", "held-out data", "744 samples in 2 draws", "report.html"):
        assert words in out, words
    content = json.loads((folder / "report" / "report.json").read_text())
    assert content["settings"]["seed"] == 5
    assert content["settings"]["sampling"]["steps"] == 3
    assert content["settings"]["sampling"]["guidance"]["scale"] == 2
    page = (folder / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 6, "four of its own, denoising, loss"


def test_an_exported_folder_with_a_recipe(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    load(run).save(tmp_path / "exported")
    assert "--recipe" in refused(["evaluate", str(tmp_path / "exported")], capsys)
    out = tmp_path / "elsewhere"
    argv = ["evaluate", str(tmp_path / "exported"), "--recipe", "digits", "--samples", "372", "--out", str(out)]
    assert main(argv) == 0
    assert {p.name for p in out.iterdir()} == {"report.json", "report.html"}
    assert (out / "report.html").read_text().count("data:image/png;base64,") == 4
    assert not (tmp_path / "exported" / "report").exists()


def test_features_by_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = refused(["evaluate", str(run), "--features", "dinov2:nowhere"], capsys)
    assert said.startswith("features: got dinov2:nowhere, which has no config.json; expected a folder with")
    assert refused(["evaluate", str(run), "--features", "fid"], capsys).startswith(
        "features: got 'fid', expected one of"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--samples", "3"], "samples: got 3, expected at least 20"),
        (["--steps", "0"], "steps: got 0, expected at least 1"),
        (["--guidance", "nan"], "scale: got nan, expected a finite number"),
    ],
)
def test_bad_values(flags: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]):
    assert said in refused(["evaluate", str(run), *flags], capsys)


def test_data_of_the_users_own(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A run whose data class is not known says how to make it known."""
    folder = tmp_path / "own"
    shutil.copytree(run, folder)
    content = json.loads((folder / "recipe.json").read_text())
    content["data"]["type"] = "Mine"
    (folder / "recipe.json").write_text(json.dumps(content))
    said = refused(["evaluate", str(folder)], capsys)
    assert said.startswith("data.type: got 'Mine'")
    assert said.endswith("say --recipe FILE.py:FUNCTION")


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert str(tmp_path / "nothing") in refused(["evaluate", str(tmp_path / "nothing")], capsys)


def test_unknown_flag(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(run), "--stepps", "3"]) == 2
    assert "unrecognized options: --stepps, 3; perhaps you meant --steps" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["runs/x", "--help"], []])
def test_help_fits_a_screen(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", *argv]) == (0 if argv else 2)
    page = capsys.readouterr().out
    assert len(page.splitlines()) <= 30
    assert max(map(len, page.splitlines())) <= 100
    for flag in ("--samples", "--guidance", "--seed", "--features", "--recipe", "--out", "--steps"):
        assert flag in page, flag
