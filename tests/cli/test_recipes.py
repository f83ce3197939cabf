"""`anydit recipes`: the list, and one recipe whole."""

import json

import pytest

from anydit.cli import main
from anydit.config import from_json
from anydit.recipes import RECIPES


def test_lists_all_in_a_line_each(capsys: pytest.CaptureFixture[str]):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in RECIPES:
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert len(line.split()) > 3, "says what it trains on"


@pytest.mark.parametrize("name", RECIPES)
def test_shows_one_that_reads_back_the_same(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["recipes", name]) == 0
    recipe = RECIPES[name]()
    assert from_json(type(recipe), json.loads(capsys.readouterr().out)) == recipe


def test_unknown(capsys: pytest.CaptureFixture[str]):
    assert main(["recipes", "digit"]) == 2
    assert "did you mean digits?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["digits", "--flag"], ["digits", "fashion"], ["--model.depth", "3"], ["--flag"]])
def test_what_it_does_not_take_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["recipes", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert f"recipe: got {' '.join(words)}, expected one recipe, and no flags" in err
