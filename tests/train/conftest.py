"""The undisturbed run, with which disturbed ones are compared."""

from pathlib import Path

import pytest

from anydit.train.loop import train
from tests.train.tiny import silent, tiny


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny`, trained without disturbance; for reading only."""
    out = tmp_path_factory.mktemp("whole")
    train(tiny(), out, "cpu", silent)
    return out
