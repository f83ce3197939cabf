"""What a run says while it runs."""

import io
import json
import sys
import threading

import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from anydit.train import log as module
from anydit.train.log import Bar, Log, progress_bar, read
from anydit.train.pictures import loss_curve


def entry(step: int, loss: float = 1.0) -> dict:
    return {"step": step, "loss": loss, "grad_norm": 0.5, "lr": 1e-3, "samples_per_second": 10.0}


def test_the_last_line_of_a_step_counts_and_a_cut_line_does_not(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Log(path, None)
    for e in (entry(0), entry(1), entry(1, loss=7.0)):
        log.step(e)
    log.close()
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry(2))[:20])
    assert [(e["step"], e["loss"]) for e in read(path)] == [(0, 1.0), (1, 7.0)]
    log = Log(path, None)
    log.step(entry(2, loss=5.0))
    log.close()
    assert [(e["step"], e["loss"]) for e in read(path)] == [(0, 1.0), (1, 7.0), (2, 5.0)], (
        "the half line took none along"
    )
    assert read(tmp_path / "none.jsonl") == []


def test_tensorboard_gets_figures_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(tmp_path / "log.jsonl", tmp_path / "board")
    log.step(entry(0, loss=3.0))
    log.step(entry(1, loss=2.0))
    log.picture(Image.new("RGB", (8, 8), "red"), 1)
    log.close()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [(s.step, s.value) for s in events.Scalars("train/loss")] == [(0, 3.0), (1, 2.0)]
    assert events.Images("samples")[0].step == 1


def test_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'anydit\[tensorboard\]'"):
        Log(tmp_path / "log.jsonl", tmp_path / "board")


def test_without_a_terminal_a_line_is_printed_now_and_then(monkeypatch):
    monkeypatch.setattr(Bar, "EVERY_SECONDS", 0.0)
    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=False, width=100)) as progress:
        bar = Bar(progress, steps=10, done=0)
        bar.update(3, loss=0.25, rate=120.0)
    assert "step 3/10, loss 0.2500, 120 samples/s" in out.getvalue()


def test_the_bar_starts_where_the_run_is():
    with progress_bar(10, done=4) as bar:
        assert bar._progress.tasks[0].completed == 4
        bar.update(5, loss=1.0, rate=1.0)
        assert bar._progress.tasks[0].completed == 5
    assert module.Bar is Bar


def test_the_loss_curve_is_drawn_from_the_log(tmp_path):
    loss_curve([entry(i, loss=1 / (i + 1)) for i in range(100)], tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as image:
        assert image.size[0] > 400 and len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_no_thread_goes_on_after_the_bar():
    """Of those that draw it: each that stayed would draw it for as long as the process lives."""
    before = set(threading.enumerate())
    with progress_bar(10, done=0):
        pass
    assert set(threading.enumerate()) <= before
