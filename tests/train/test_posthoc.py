"""Averages made after training: against averages of that length that really ran along."""

from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
import torch
from torch import nn

import anydit
from anydit.cli import main
from anydit.train.loop import train
from anydit.train.lora import LoRA
from anydit.train.posthoc import LONGEST, PROFILES, Averages, PowerAverage, Profiles, averaged, fitted, power
from anydit.weights import load_tensors
from tests.train.tiny import losses, silent, state_hash, tiny_with

KEPT = Profiles(lengths=(0.05, 0.1), every=50)


@pytest.mark.parametrize(("length", "expected"), [(0.05, 16.97), (0.10, 6.94)])
def test_powers_are_the_papers(length: float, expected: float):
    p = power(length)
    assert p == pytest.approx(expected, abs=0.005)
    assert sqrt(p + 1) / ((p + 2) * sqrt(p + 3)) == pytest.approx(length), "the deviation of t^p on (0, 1)"


def walk(module: nn.Linear, step: int) -> None:
    """Weights at a step: what learns settles, and what is noise goes on."""
    g = torch.Generator().manual_seed(step)
    with torch.no_grad():
        module.weight.copy_(torch.ones(8, 8) * (1 - 0.99**step) + 0.3 * torch.randn(8, 8, generator=g))


def test_an_average_counts_steps_by_a_power_of_time():
    module = nn.Linear(8, 8, bias=False)
    average, seen = PowerAverage(module, 0.1), list[torch.Tensor]()
    for step in range(40):
        walk(module, step)
        average.update(step, torch.ones(()))
        seen.append(module.weight.detach().clone())
    ends = torch.arange(41, dtype=torch.float64) ** (power(0.1) + 1)
    counts = (ends.diff() / ends[-1])[:, None, None]
    torch.testing.assert_close(average.module.weight, (counts * torch.stack(seen)).sum(0).float())


def test_other_lengths_are_rebuilt_from_two(tmp_path: Path):
    """Section 3.2: what was never kept is as if it had been; a longer or shorter one is another average."""
    module = nn.Linear(8, 8, bias=False)
    kept, lengths = Averages(KEPT, module), (0.04, 0.07, 0.15, 0.2)
    along = {length: PowerAverage(module, length) for length in lengths}
    for step in range(1000):
        walk(module, step)
        for each in (kept, *along.values()):
            each.update(step, torch.ones(()))
        if kept.due(step + 1):
            kept.write(tmp_path, step + 1)
    own = {length: each.module.weight.detach() for length, each in along.items()}
    for length in lengths:
        made = averaged(tmp_path, length)
        error, *others = (
            float((weights - own[length]).norm())
            for weights in (made.weights["weight"], *(own[other] for other in lengths if other != length))
        )
        assert made.step == 1000 and made.misfit < 0.02
        assert error < 2e-3 * float(own[length].norm()) and error < 0.2 * min(others), length
    early = averaged(tmp_path, 0.07, step=500)
    assert early.step == 500 and not torch.allclose(early.weights["weight"], own[0.07], atol=1e-2)


def test_an_average_that_was_kept_is_itself():
    kept = [(float(t), length) for t in (500, 1000) for length in (0.05, 0.1)]
    counts, misfit = fitted(kept, (1000, 0.1))
    assert counts == pytest.approx([0, 0, 0, 1], abs=1e-6) and misfit < 1e-6
    assert fitted(kept, (1000, 0.005))[1] > 0.3, "what is much shorter than all is said to be far"


@pytest.mark.parametrize("length", [0.005, 0.03, 0.2])
def test_weights_that_do_not_change_are_their_average(length: float):
    kept = [(float(t), own) for t in range(500, 3500, 500) for own in (0.05, 0.1)]
    assert sum(fitted(kept, (3000, length))[0]) == pytest.approx(1, abs=1e-9)
    assert fitted([(2.0, 0.1)], (2.0, length))[0] == pytest.approx([1])


def test_a_run_keeps_them_and_goes_on_bit_by_bit(tmp_path: Path):
    kept = {"profiles": Profiles(every=3)}
    for steps in (4, 12):
        train(tiny_with(**kept, steps=steps), tmp_path / "stopped", "cpu", silent)
    train(tiny_with(**kept), tmp_path / "whole", "cpu", silent)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert state_hash(tmp_path / "stopped") == state_hash(tmp_path / "whole")
    files = {file.name: file for file in (tmp_path / "whole" / PROFILES).iterdir()}
    assert sorted(files) == [f"step-{n:09d}.safetensors" for n in (3, 6, 9, 12)]
    for name, file in files.items():
        assert file.read_bytes() == (tmp_path / "stopped" / PROFILES / name).read_bytes()
    state = load_tensors(files["step-000000012.safetensors"])
    assert {key.partition("/")[0] for key in state} == {"0.05", "0.1"}


def test_a_run_without_them_is_the_same_run(tmp_path: Path):
    train(tiny_with(profiles=Profiles()), tmp_path / "with", "cpu", silent)
    train(tiny_with(), tmp_path / "without", "cpu", silent)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert not (tmp_path / "without" / PROFILES).exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, out = tmp_path / "run", tmp_path / "out"
    train(tiny_with(profiles=Profiles(every=4)), run, "cpu", silent)
    assert main(["average", str(run), "--length", "0.1", "--to", str(out)]) == 0
    assert "Step 12: an average of length 0.1, whose profile is off by 0.0%." in capsys.readouterr().out
    pipe, state = anydit.load(out, "cpu"), load_tensors(run / PROFILES / "step-000000012.safetensors")
    for name, tensor in pipe.model.state_dict().items():
        torch.testing.assert_close(tensor, state[f"0.1/{name}"], msg=name)
    assert pipe.sample(1, {"label": 3}).shape == (1, 1, 8, 8)
    assert not torch.equal(pipe.model.embed.weight, anydit.load(run, "cpu").model.embed.weight), "the usual average"

    for words, said in (
        (["--length", "0.1", "--to", str(out)], "which exists; expected a path to write anew"),
        (["--length", "0.3", "--to", str(out / "x")], "length: got 0.3, expected above 0 and below 0.2887"),
        (["--length", "0.1", "--step", "5", "--to", str(out / "x")], "step: got 5, expected one of 4, 8, 12"),
    ):
        assert main(["average", str(run), *words]) == 2
        assert said in capsys.readouterr().err
    train(tiny_with(steps=1), tmp_path / "none", "cpu", silent)
    assert main(["average", str(tmp_path / "none"), "--length", "0.1", "--to", str(out / "x")]) == 2
    assert "kept no averages; expected one trained with --train.profiles" in capsys.readouterr().err
    assert not (out / "x").exists()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"lengths": ()}, "lengths"), ({"lengths": (0.1, 0.1)}, "lengths"), ({"lengths": (LONGEST,)}, "lengths"),
     ({"lengths": (0.0,)}, "lengths"), ({"every": 0}, "every")],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict, field: str):
    with pytest.raises(ValueError, match=rf"train\.profiles\.{field}: got .*, expected"):
        Profiles(**wrong)


def test_adapters_keep_none():
    with pytest.raises(ValueError, match=r"train\.profiles: got .* beside train\.adapter, expected None"):
        tiny_with(profiles=Profiles(), adapter=LoRA())
    assert replace(tiny_with().train, profiles=Profiles()).profiles == Profiles()
