"""Draws a curve once, as each run does at its end: processes that are forked from one that has begin with its fonts."""

import tempfile
from pathlib import Path

from anydit.train.pictures import loss_curve

with tempfile.TemporaryDirectory() as folder:
    loss_curve([{"step": step, "loss": 1 / (1 + step)} for step in range(12)], Path(folder, "loss.png"))
