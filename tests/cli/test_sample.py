"""`anydit sample`: the files it writes, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anydit import load
from anydit.cli import main, sample
from anydit.cli.sample import captions
from anydit.codecs import Normalize
from anydit.data import SeriesView
from anydit.data.known import told
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Condition, Field, Label, Numbers
from anydit.model.dit import DiTConfig


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
        (["--replay"], "replay: got a network on cpu, expected one on a GPU, which has graphs"),
        (["--steps", "0"], "steps: got 0, expected at least 1"),
        (["--lable", "3"], "unrecognized options: --lable, 3; perhaps you meant --label"),
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


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose conditions have the names of options, or such that begin like them."""
    names = sorted(sample.TAKEN)
    conditions: dict[str, Condition] = {name: Label(3, dropout=0) for name in names}
    conditions |= {"outer": Label(3, dropout=0), "guide": Field(1, (0.0,), (1.0,), dropout=0.1)}
    model = DiTConfig(width=8, depth=1, heads=1, patch=(2, 2), channels=1, size=(4, 4), conditions=conditions)
    pipe = Pipeline(PipelineConfig(model=model, codec=Normalize.to_unit(0, 1), sampling=Sampling(steps=1)))
    for parameter in pipe.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("odd") / "model"
    pipe.save(folder)
    return folder


def test_conditions_with_the_names_of_options(odd: Path, tmp_path: Path):
    words = [word for name in sample.TAKEN for word in (f"--cond.{name}", "2")] + ["--outer", "1"]
    assert main(["sample", str(odd), "-n", "2", "--seed", "4", "--out", str(tmp_path / "x.png"), *words]) == 0
    written = (tmp_path / "x.png").read_bytes()
    pipe = load(odd, "cpu")
    cond = dict.fromkeys(sample.TAKEN, 2) | {"outer": 1}
    x = pipe.sample(2, cond, seed=4)
    pipe.config.view.picture(x, captions(pipe.config.model.conditions, cond, x)).save(tmp_path / "expected.png")
    assert written == (tmp_path / "expected.png").read_bytes()


def test_fields_are_told_by_a_file_of_numpy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fields: dict[str, Condition] = {"guide": Field(1, (0.0,), (1.0,)), "known": Field(2, (0.5, 0.0), (1.0, 1.0))}
    model = DiTConfig(width=8, depth=1, heads=1, patch=(2, 2), channels=1, size=(4, 4), conditions=fields)
    pipe = Pipeline(PipelineConfig(model=model, codec=Normalize.to_unit(0, 1), sampling=Sampling(steps=1)))
    for parameter in pipe.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pipe.save(tmp_path / "model")
    guide, known = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4).where(torch.rand(3, 1, 4, 4) < 0.5, torch.nan)
    for name, values in (("guide", guide), ("known", known)):
        np.save(tmp_path / f"{name}.npy", values.numpy())
    command = ["sample", str(tmp_path / "model"), "--device", "cpu", "--out", str(tmp_path / "x.png")]
    given = [word for name in fields for word in (f"--{name}", str(tmp_path / f"{name}.npy"))]
    assert main([*command, *given, "--out", str(tmp_path / "way.gif")]) == 0
    with Image.open(tmp_path / "way.gif") as way, Image.open(tmp_path / "x.png") as sheet:
        assert np.array_equal(way.convert("RGB"), sheet), "on the way, too, what is known is as it is"
    x = pipe.sample(3, {"guide": guide, "known": told(known, ~known.isnan(), (0.5,))})
    x = torch.where(known.isnan(), x, known)
    pipe.config.view.picture(x).save(tmp_path / "expected.png")
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
    np.save(tmp_path / "one.npy", guide[:1].numpy())
    several = ["--guide", str(tmp_path / "one.npy"), "--known", str(tmp_path / "known.npy")]
    assert main([*command, *several, "--out", str(tmp_path / "each")]) == 0
    assert len(list((tmp_path / "each").iterdir())) == 3, "as many as the condition that tells of most"
    np.save(tmp_path / "flat.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("none")
    for file, message in (("flat", "got an array of shape (3,)"), ("text", "cannot be read"), ("no", "cannot be read")):
        assert main([*command, "--guide", str(tmp_path / f"{file}.npy")]) == 2
        assert message in capsys.readouterr().err


def test_a_table_goes_on_and_tells_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    known = Field(2, (0.0, 0.5), (1.0, 1.0))
    model = DiTConfig(width=8, depth=1, heads=1, patch=(2,), channels=1, size=(8,), conditions={"known": known})
    view = SeriesView(names=("level",), step=3600.0)
    pipe = Pipeline(PipelineConfig(model=model, codec=Normalize((0.0,), (1.0,)), sampling=Sampling(steps=1), view=view))
    pipe.save(tmp_path / "model")
    rows = [f"2026-03-01T{hour:02}:00,{hour}" for hour in range(10)]
    (tmp_path / "x.csv").write_text("\n".join(["when,level", *rows]), encoding="utf-8")
    command = ["sample", str(tmp_path / "model"), "--device", "cpu", "--known", str(tmp_path / "x.csv")]
    assert main([*command, "--length", "2d", "--out", str(tmp_path / "longer")]) == 0
    lines = (tmp_path / "longer" / "sample-00000.csv").read_text(encoding="utf-8").splitlines()
    assert lines[10] == "2026-03-01 09:00:00,9" and lines[-1].startswith("2026-03-02 23:00:00,") and len(lines) == 49
    assert main([*command, "-n", "2", "--out", str(tmp_path / "next")]) == 0
    said = capsys.readouterr().err
    assert "Of 10 places in time in a file the last 4 are told." in said
    assert (tmp_path / "next" / "sample-00001.csv").read_text(encoding="utf-8").splitlines()[4] == lines[10]
    for words, message in (
        (["--length", "2d", "--out", "x.gif"], "out: got x.gif, which would show the way there"),
        (["--length", "2d", "3d"], "length: got 2, expected one for all"),
        (["--length", "5h"], "length: got 5, expected more than the 10 places in time that are known"),
        (["--length", "soon"], "length: got 'soon', expected a time, as 0.5s"),
    ):
        assert main([*command, *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "model"), "--length", "9"]) == 2
    assert "length: got 9, expected --known FILE, to go on from there" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "model"), "--help"]) == 0
    assert "one for all or one for each: .csv" in " ".join(capsys.readouterr().out.split())


def test_several_numbers_are_told_for_all_samples_or_for_each(tmp_path: Path):
    two = Numbers(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    model = DiTConfig(width=8, depth=1, heads=1, patch=(2, 2), channels=1, size=(4, 4), conditions={"pair": two})
    pipe = Pipeline(PipelineConfig(model=model, codec=Normalize.to_unit(0, 1), sampling=Sampling(steps=1)))
    for parameter in pipe.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pipe.save(tmp_path / "model")
    for words, rows in (("1 2", [[1, 2]]), ("1 2 3 4", [[1, 2], [3, 4]])):
        command = ["sample", str(tmp_path / "model"), "-n", "2", "--pair", *words.split(), "--device", "cpu"]
        assert main([*command, "--out", str(tmp_path / "x.png")]) == 0
        pipe.config.view.picture(pipe.sample(2, {"pair": rows})).save(tmp_path / "expected.png")
        assert (tmp_path / "x.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
    assert main([*command, "5", "--out", str(tmp_path / "y.png")]) == 2


def test_help_says_how_conditions_are_named(odd: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["sample", str(odd), "--help"]) == 0
    page = capsys.readouterr().out
    assert "--cond.NAME, or --NAME where that is no other option" in " ".join(page.split())
    assert "\n  --outer" in page and "--cond.outer" in page
    assert "\n  --cond.seed SEED" in page
    assert "one for all or one for each: .npy" in " ".join(page.split()), "of what is no part of a sample"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.mp4", "expected FILE.png (a sheet;"),
        ("x.pngg", "expected FILE.png (a sheet;"),
        ("file/x.png", "which cannot be written because of"),
        ("file", "which cannot be written because of"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_drawn(
    name: str, said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setattr(Pipeline, "sample", None)
    outs = ["--out", str(tmp_path / "good.png"), "--out", str(tmp_path / name)]
    assert main(["sample", str(run), "-n", "1", *outs]) == 2
    error = capsys.readouterr().err
    assert f"out: got {tmp_path / name}" in error and said in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_in_capitals_and_folders_with_a_dot(run: Path, tmp_path: Path):
    (tmp_path / "v1.2").mkdir()
    outs = [word for name in ("A.PNG", "B.GIF", "v1.2") for word in ("--out", str(tmp_path / name))]
    assert main(["sample", str(run), "-n", "1", *outs]) == 0
    with Image.open(tmp_path / "A.PNG") as sheet, Image.open(tmp_path / "B.GIF") as film:
        assert (sheet.format, film.format) == ("PNG", "GIF")
    assert len(list((tmp_path / "v1.2").iterdir())) == 1


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
