"""The command line: what it says, what it refuses, and what it does not import."""

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from anydit import cli
from anydit.cli import COMMANDS, main
from anydit.train.guards import NotFinite

HEAVY = {"torch", "tyro", "pydantic", "numpy", "rich", "matplotlib", "PIL"}


def files() -> dict[str, Path]:
    return {p.stem: p for p in Path(cli.__file__).parent.glob("*.py") if not p.stem.startswith("_")}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_command_is_a_file_and_each_file_a_command():
    assert set(files()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_first_line_of_the_docstring(name: str):
    docstring = ast.get_docstring(ast.parse(files()[name].read_text())) or ""
    assert docstring.splitlines()[0] == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_example_calls_its_command(name: str):
    assert COMMANDS[name].example.split()[0] == name


def test_overview_imports_nothing_heavy():
    out = python("import sys, anydit.cli\nassert anydit.cli.main(['--help']) == 0\nprint('##', *sys.modules)")
    page, _, modules = out.partition("## ")
    assert not HEAVY & set(modules.split())
    assert len(page.splitlines()) <= 24
    assert max(map(len, page.splitlines())) <= 80
    for name in COMMANDS:
        assert f"anydit {COMMANDS[name].example}" in page


def test_a_command_imports_no_other():
    code = "import sys, anydit.cli\nassert anydit.cli.main(['recipes', '--help']) == 0\nprint('##', *sys.modules)"
    loaded = {m for m in python(code).partition("## ")[2].split() if m.startswith("anydit.cli.")}
    assert loaded == {"anydit.cli.recipes"}


def test_training_alone_begins_without_what_cuts_models():
    loaded = {*python("import sys, anydit.train.loop, anydit.train.diffusion\nprint(*sys.modules)").split()}
    assert "anydit.train.step" in loaded
    assert not loaded & {"anydit.train.split", "torch.distributed.fsdp", "torch._dynamo"}


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "anydit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"anydit {cli.version()}\n"


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_asked_for_help(word: str, capsys: pytest.CaptureFixture[str]):
    assert main([word]) == 0
    assert cli.overview() in capsys.readouterr().out


def test_nothing_typed_shows_help_and_fails(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert cli.overview() in capsys.readouterr().out


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("smaple", "sample"), ("recipe", "recipes")])
def test_unknown_command(word: str, meant: str, capsys: pytest.CaptureFixture[str]):
    assert main([word, "digits"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"anydit: error: command: got '{word}', expected one of train, ")
    assert err.endswith(f"did you mean {meant}?\n")


def raising(error: BaseException) -> Callable[[str], Callable[[list[str]], int]]:
    def run(argv: list[str]) -> int:
        raise error

    return lambda name: run


class Own(RuntimeError):
    """An error that anydit defines."""

    __module__ = "anydit.train.guards"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("steps: got 0, expected at least 1"), 2, "steps: got 0, expected at least 1"),
        (Own("too many steps"), 1, "too many steps"),
        (NotFinite("20 steps in a row"), 3, "20 steps in a row"),
        (OSError(28, "No space left on device", "runs/x"), 1, "[Errno 28] No space left on device: 'runs/x'"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee documentation"),
            1,
            "CUDA out of memory. Tried to allocate 2 GiB. Expected less at a time: --train.accumulate, "
            "--train.recompute 1 or a smaller --train.batch; --batch for samples",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(cli, "_command", raising(error))
    assert main(["train"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"anydit: error: {said}\n")
    with pytest.raises(type(error)):
        main(["--traceback", "train"])


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("a bug"), OSError("no file in it")])
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "_command", raising(error))
    with pytest.raises(type(error)):
        main(["train"])


def test_a_real_refusal(capsys: pytest.CaptureFixture[str]):
    assert main(["recipes", "digit"]) == 2
    assert capsys.readouterr().err.endswith("did you mean digits?\n")


def test_the_agent_of_several_processes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And says it at the end of its own page, in place of a hint how to have a traceback."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    before = int(time.time())
    assert main(["sample", str(tmp_path)]) == 2
    failed = {1: ProcessFailure(local_rank=1, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))}
    assert re.search(rf"traceback : .*{tmp_path}", ChildFailedError("train", failed).format_msg())
    assert before <= failed[1].timestamp <= time.time() + 1


def test_a_reader_that_has_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-u", "-m", "anydit", "recipes", "digits"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
