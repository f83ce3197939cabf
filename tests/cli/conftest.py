"""A run to give commands."""

from pathlib import Path

import pytest

from anydit.train.loop import train
from tests.train.tiny import tiny_with
from tests.train.tiny_codec import tiny_codec


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of digits, badly trained; for reading only."""
    out = tmp_path_factory.mktemp("cli") / "digits"
    train(tiny_with(steps=2), out, "cpu", lambda _: None)
    return out


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an autoencoder of digits, badly trained; for reading only."""
    out = tmp_path_factory.mktemp("cli") / "codec"
    train(tiny_codec(steps=2), out, "cpu", lambda _: None)
    return out
