"""Processes that train together: one curve however many there are, and nothing lost when one of them fails."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anydit.codecs.base import CPU
from anydit.train.base import Site
from anydit.train.checkpoint import newest
from anydit.train.critic import CriticConfig
from anydit.train.log import read
from anydit.train.loop import train
from anydit.train.parallel import ALONE, Processes
from tests.train.tiny import (
    IN_STEP,
    KILL_IN_STEP,
    beside,
    command,
    ends_as,
    losses,
    silent,
    state_hash,
    steps_taken,
    tiny,
)
from tests.train.tiny_codec import tiny_codec
from tests.train.together import run_together, start_together

STOPPED = 130

NAN = """
from anydit.train.step import LOSS, TrainStep
real = TrainStep.terms
def terms(self, batch, rows, step):
    found = real(self, batch, rows, step)
    return {name: term * float("nan") if step == 5 else term for name, term in found.items()}
TrainStep.terms = terms
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    out = tmp_path_factory.mktemp("together") / "pair"
    codes, printed = run_together(out, 2)
    assert codes == [0, 0], printed
    assert "Look at" in printed[0] and "Look at" not in printed[1], "the first speaks for all"
    return out


def off(out: Path, other: Path) -> float:
    """The largest relative difference of the losses of two runs that read the same samples."""
    a, b = read(out / "log.jsonl"), read(other / "log.jsonl")
    assert [(e["step"], e["ids"]) for e in a] == [(e["step"], e["ids"]) for e in b]
    return max(abs(x["loss"] / y["loss"] - 1) for x, y in zip(a, b, strict=True))


def test_a_curve_does_not_depend_on_how_many_make_it(pair: Path, whole: Path):
    assert 0 < off(pair, whole) < 1e-5


def test_a_condition_that_is_never_dropped_has_a_null_that_nothing_waits_for(tmp_path: Path):
    """No step uses it, so that it has no gradient to exchange; three steps, since the second was the one to fail."""
    file, x = tmp_path / "pairs.npz", np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    np.savez(file, x=x, near=2 * x)
    flags = ["--data.path", str(file), "--train.steps", "3"]
    codes, printed = run_together(tmp_path / "two", 2, *flags, recipe="beside")
    assert codes == [0, 0], printed
    recipe = beside()
    data, steps = replace(recipe.data, path=file), replace(recipe.train, steps=3)
    train(replace(recipe, data=data, train=steps), tmp_path / "one", "cpu", silent)
    assert off(tmp_path / "two", tmp_path / "one") < 1e-5


def test_a_part_of_a_batch_at_a_time_gives_the_same(pair: Path, tmp_path: Path):
    """Gradients are exchanged with the last part alone."""
    codes, printed = run_together(tmp_path, 2, "--train.accumulate", "2")
    assert codes == [0, 0], printed
    assert off(tmp_path, pair) < 1e-5


@pytest.mark.fault("T11", "T12")
def test_a_run_goes_on_with_another_number_of_processes(whole: Path, tmp_path: Path):
    """2, then 4, then 1; what is taken up is what was saved, to the last bit."""
    assert run_together(tmp_path, 2, "--train.steps", "4")[0] == [0, 0]
    saved = state_hash(tmp_path)
    codes, printed = run_together(tmp_path, 4, "--train.steps", "4")
    assert codes == [0] * 4 and state_hash(tmp_path) == saved
    codes, printed = run_together(tmp_path, 4, "--train.steps", "8")
    assert codes == [0] * 4 and "The run had processes 2, now it is 4" in " ".join(printed[0].split())
    train(tiny(), tmp_path, "cpu", silent)
    assert off(tmp_path, whole) < 1e-5


@pytest.mark.fault("T1")
def test_when_one_is_killed_the_others_end_at_once_and_nothing_is_lost(pair: Path, tmp_path: Path):
    kill = KILL_IN_STEP.format(step=6)
    started = start_together(tmp_path, 2, own={1: kill})
    assert started.ended(1, 120)[0] == -signal.SIGKILL
    began = time.monotonic()
    code, said = started.ended(0, 60)
    assert code == 1 and time.monotonic() - began < 5
    assert "a process that trains with this one ended" in said and "Traceback" not in said
    codes, printed = run_together(tmp_path, 2)
    assert codes == [0, 0], printed
    ends_as(tmp_path, pair)
    assert len(steps_taken(tmp_path)) <= 12 + 4, "no more than a save interval is done again"


def torchrun(out: Path, script: Path, count: int, *flags: str, before: str = "") -> list[str]:
    """The command that starts that many under PyTorch's agent, as a user would."""
    script.write_text(command(out, before=before)[2], encoding="utf-8")
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*agent, *flags, str(script)]


@pytest.mark.fault("T2")
def test_an_agent_starts_them_again(pair: Path, tmp_path: Path):
    """Killed once, when the marker was not there yet."""
    once = f"""not os.path.exists({str(tmp_path / "once")!r}) and os.environ["RANK"] == "1" and (
            open({str(tmp_path / "once")!r}, "w").close(), os.kill(os.getpid(), signal.SIGKILL))"""
    words = torchrun(tmp_path / "run", tmp_path / "script.py", 2, "--max-restarts", "2",
                     before=IN_STEP.format(step=6, do=once))  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists()
    ends_as(tmp_path / "run", pair)


@pytest.mark.fault("T6")
def test_asked_to_stop_they_save_and_nothing_is_done_again(pair: Path, tmp_path: Path):
    """The agent hands SIGTERM on; all of them stop after the same step."""
    slow = IN_STEP.format(step="step", do=f'step == 5 and open({str(tmp_path / "now")!r}, "w").close()\n'
                          "        import time; time.sleep(0.3)")  # fmt: skip
    words = torchrun(tmp_path / "run", tmp_path / "script.py", 2, before=slow)
    agent = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    waited = time.monotonic()
    while not (tmp_path / "now").exists() and time.monotonic() - waited < 120:
        time.sleep(0.05)
    agent.send_signal(signal.SIGTERM)
    said, _ = agent.communicate(timeout=60)
    assert agent.returncode != 0 and "Stopped and saved after step" in said, said
    found = newest(tmp_path / "run" / "checkpoints")
    assert found is not None and found.step == len(steps_taken(tmp_path / "run")) < 12
    assert run_together(tmp_path / "run", 2)[0] == [0, 0]
    ends_as(tmp_path / "run", pair)
    assert len(steps_taken(tmp_path / "run")) == 12


@pytest.mark.fault("T7")
def test_one_that_stands_still_is_not_waited_for_without_end(tmp_path: Path):
    still = IN_STEP.format(step=5, do="os.kill(os.getpid(), signal.SIGSTOP)")
    started = start_together(tmp_path, 2, "--train.timeout", "4", own={1: still})
    code, said = started.ended(0, 120)
    assert code == 1 and "did not answer in 4 s" in said
    assert started.processes[1].pid is not None
    os.kill(started.processes[1].pid, signal.SIGCONT)
    assert started.ended(1, 60)[0] != 0


@pytest.mark.fault("T7")
def test_nor_in_a_mesh_whose_parts_have_groups_of_their_own(tmp_path: Path):
    """Of which PyTorch would wait for half an hour: here in the backward pass, with whom it shares the weights."""
    still = """
import os, signal
from anydit.diffusion.losses import Objective
real, calls = Objective.loss, []
def loss(*given, **named):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(*given, **named)
Objective.loss = loss
"""
    mesh = ("--train.mesh.replicate", "2", "--train.mesh.shard", "2")
    started = start_together(tmp_path, 4, "--train.timeout", "4", *mesh, own={3: still})
    codes = [started.ended(rank, 60) for rank in range(3)]
    assert [code for code, _ in codes] == [1, 1, 1]
    assert any("did not answer in 4 s" in said for _, said in codes)
    os.kill(started.processes[3].pid or 0, signal.SIGCONT)
    assert started.ended(3, 60)[0] != 0


@pytest.mark.fault("T7")
def test_an_error_of_one_is_said_once_with_its_rank(tmp_path: Path):
    wrong = IN_STEP.format(step=5, do='raise ValueError("label: got 12, expected 0 to 9")')
    codes, printed = run_together(tmp_path, 2, own={1: wrong})
    assert codes == [1, 2]
    both = "".join(printed)
    assert both.count("label: got 12") == 1 and "error (process 1): label: got 12" in printed[1]
    assert "error (process 0): a process that trains with this one ended" in printed[0]


@pytest.mark.fault("T13")
def test_a_loss_that_is_not_finite_in_one_changes_nothing_in_any(pair: Path, tmp_path: Path):
    codes, printed = run_together(tmp_path, 2, own={1: NAN})
    assert codes == [0, 0], printed
    entries = read(tmp_path / "log.jsonl")
    assert [e["step"] for e in entries if e["skipped"]] == [5]
    assert losses(tmp_path)[:5] == losses(pair)[:5] and all(e["loss"] == e["loss"] for e in entries[6:])
    assert "Step 5 was skipped" in printed[0] and "Step 5 was skipped" not in printed[1]
    found = newest(tmp_path / "checkpoints")
    assert found is not None and found.info()["skipped"] == 1
    assert all(bool(v.isfinite().all()) for name in ("model", "ema", "optimizer") for v in found.tensors(name).values())


@pytest.mark.fault("T19")
def test_a_folder_in_use_is_refused_by_all(tmp_path: Path):
    """Of several."""
    held = "import fcntl\nlock = open(" + repr(str(tmp_path / ".lock")) + ", 'a+')\nfcntl.flock(lock, fcntl.LOCK_EX)"
    holder = subprocess.Popen([sys.executable, "-c", f"{held}\nprint('held', flush=True)\nimport time; time.sleep(99)"],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        codes, printed = run_together(tmp_path, 2)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert codes == [2, 1] and "is training in; expected a free folder" in printed[0]


def test_more_processes_than_samples_in_a_batch_are_refused(tmp_path: Path):
    codes, printed = run_together(tmp_path, 3)
    assert codes[0] == 2 and all(code != 0 for code in codes)
    assert "train.batch: got 8, expected a multiple of its 3 parts" in printed[0]


@pytest.mark.fault("T18")
def test_a_folder_that_is_not_the_same_for_all_is_refused(tmp_path: Path):
    """One that sees no checkpoint would train from the beginning, beside others that go on."""
    assert run_together(tmp_path, 2, "--train.steps", "4")[0] == [0, 0]
    blind = "from anydit.train.run import Run\nRun.resume = lambda self: None"
    codes, printed = run_together(tmp_path, 2, own={1: blind})
    assert codes == [1, 2] and "another process sees one of step 4" in printed[1]


def test_a_critic_learns_in_one_process_alone():
    recipe = replace(tiny_codec(), train=replace(tiny_codec().train, critic=CriticConfig()))
    samples = recipe.data.open("train")
    whole = recipe.resolved(samples, silent, CPU)
    with pytest.raises(ValueError, match=r"train\.critic: got one for 2 processes"):
        whole.begin(samples, Site(Path(), CPU, silent, Processes(0, 2)))


def test_alone_there_is_nothing_to_exchange():
    x = torch.ones(2)
    assert ALONE.first and ALONE.total(x) is x and ALONE.said(x).heard()[0].equal(x) and ALONE.most(7) == 7
    with ALONE.first_before_others():
        pass


def test_what_processes_say_of_a_step_is_waited_for_when_it_is_heard(monkeypatch: pytest.MonkeyPatch):
    """Until then each goes on: of many processes the slowest exchange would else be in every step."""
    waited = list[bool]()

    def begin(into: list[torch.Tensor], x: torch.Tensor, group: object, async_op: bool) -> object:
        def wait() -> None:
            waited.append(True)
            for rank, one in enumerate(into):
                one.copy_(x + rank)

        return SimpleNamespace(wait=wait) if async_op else wait()

    monkeypatch.setattr("torch.distributed.all_gather", begin)
    word = Processes(0, 3).said(torch.tensor([5, 0]))
    assert not waited
    for _ in range(2):
        assert word.heard().tolist() == [[5, 0], [6, 1], [7, 2]]
    assert len(waited) == 1


TRY = """
import os
from anydit.train import pace, recipe
os.environ["ANYDIT_CACHE"] = "{cache}"
pace.FEW, pace.SMALL = 1, 1e9
real = pace.paced
def paced(step, site):
    chosen = real(step, site)
    print("chosen:", chosen.attention_backend)
    return chosen
recipe.paced = paced
"""
FIRST = "pace.by_backends = lambda work, names, device: (work(), ({None: 1.0, 'math': 0.5}, {}))[1]"
OTHERS = """
def by_backends(*_):
    raise RuntimeError("only the first tries")
pace.by_backends = by_backends
"""


def test_what_the_first_found_is_what_all_do(tmp_path: Path, whole: Path):
    out, flags = tmp_path / "run", ("--train.compile", "False")
    before = TRY.format(cache=tmp_path / "cache")
    codes, printed = run_together(out, 2, *flags, before=before, own={0: FIRST, 1: OTHERS})
    assert codes == [0, 0], printed
    assert all("chosen: math" in said for said in printed), printed
    assert 0 < off(out, whole) < 1e-5


def test_asked_to_stop_in_the_last_step_all_of_them_do(tmp_path: Path):
    """Then nobody goes on to draw the pictures of the finished run; the same command does."""
    stop = IN_STEP.format(step=11, do="os.kill(os.getpid(), signal.SIGTERM)")
    codes, printed = run_together(tmp_path, 2, own={1: stop})
    assert codes == [130, 130], printed
    found = newest(tmp_path / "checkpoints")
    assert found is not None and found.step == 12
    assert not (tmp_path / "samples.png").exists()
    codes, printed = run_together(tmp_path, 2)
    assert codes == [0, 0] and (tmp_path / "samples.png").is_file(), printed
