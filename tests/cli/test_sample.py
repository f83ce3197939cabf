"""`anydit sample`: the files it writes, and what it refuses."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from anydit import load
from anydit.cli import main
from anydit.cli.sample import captions
from anydit.model.conditioning import Label


def test_writes_sheets_films_and_single_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sheet, film, folder = tmp_path / "a/four.png", tmp_path / "four.gif", tmp_path / "four"
    outs = [word for out in (sheet, film, folder) for word in ("--out", str(out))]
    assert main(["sample", str(run), "--label", "0", "1", "2", "3", "-n", "4", "--steps", "5", *outs]) == 0
    files = sorted(folder.iterdir())
    assert len(files) == 4
    with Image.open(files[0]) as one, Image.open(film) as moving, Image.open(sheet) as together:
        assert one.size == (8, 8)
        assert getattr(moving, "n_frames", 1) > 2
        assert together.width > 4 * one.width
    written = [line.removeprefix("Wrote ") for line in capsys.readouterr().out.splitlines() if "Wrote" in line]
    assert {Path(line) for line in written} == {sheet, film, *files}


def test_draws_what_python_draws(run: Path, tmp_path: Path):
    command = ["sample", str(run), "--label", "3", "-n", "3", "--seed", "5", "--device", "cpu"]
    assert main([*command, "--guidance", "2", "--sampler", "Heun", "--steps", "3", "--out", str(tmp_path / "x")]) == 0
    from anydit.diffusion.samplers import Heun
    from anydit.inference.config import Sampling

    pipe = load(run, "cpu")
    x = pipe.sample(3, {"label": 3}, seed=5, guidance=2.0, sampling=Sampling(sampler=Heun(), steps=3))
    (tmp_path / "expected").mkdir()
    expected = pipe.config.view.write(x, tmp_path / "expected")
    for file in expected:
        assert (tmp_path / "x" / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "x").iterdir())) == len(expected) == 3


def test_default_place_names_the_seed(run: Path):
    assert main(["sample", str(run), "-n", "1", "--seed", "11", "--device", "cpu"]) == 0
    assert (run / "samples" / "seed-11.png").is_file()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--label", "10"], "label: got '10', expected a class from 0 to 9"),
        (["--label", "1", "2", "3"], "label: got 3 values, expected 1 or 2"),
        (["-n", "0"], "n: got 0"),
        (["--size", "7", "8"], "(7, 8)"),
        (["--sampler", "Hein"], "got 'Hein', expected one of DDPM"),
        (["--steps", "0"], "steps: got 0, expected at least 1"),
        (["--lable", "3"], "--lable"),
        (["--lab", "3"], "--lab"),
    ],
)
def test_refused(words: list[str], named: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.png"
    code = main(["sample", str(run), "-n", "2", "--out", str(out), *words])
    text = " ".join("".join(capsys.readouterr()).split())
    assert (code, out.exists()) == (2, False)
    assert named in text
    assert "Traceback" not in text


@pytest.mark.parametrize("flags", [[], ["--help"]])
def test_not_a_run(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["sample", str(tmp_path / "nowhere"), *flags]) == 2
    assert "nowhere, which has no recipe.json; expected a run or an exported folder" in capsys.readouterr().err


def test_help(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["sample", "--help"]) == 0
    assert "RUN --help" in capsys.readouterr().out
    assert main(["sample"]) == 2
    capsys.readouterr()
    assert main(["sample", str(run), "--sampler", "DDIM", "--help"]) == 0
    page = capsys.readouterr().out
    assert "--label" in page
    assert "index below 10" in page
    assert "\n  --sampler.eta NUMBER" in page
    assert "\n  --grid Even|Karras|" in page


def test_captions_name_classes():
    conditions = {"label": Label(3, names=("cat", "dog", "eel")), "side": Label(2)}
    x = torch.zeros(2, 1, 4, 4)
    assert captions(dict(conditions), {"label": ["eel", 0]}, x) == ["eel", "cat"]
    assert captions(dict(conditions), {"label": 1, "side": [0, 1]}, x) == ["dog 0", "dog 1"]
    assert captions(dict(conditions), {}, x) == []
