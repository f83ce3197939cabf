import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

import anydit
from anydit.cli import main
from anydit.codecs import Normalize
from anydit.codecs.base import coarser
from anydit.config import config
from anydit.data import ArrayView, Data, Facts, Part, Samples
from anydit.evaluate.evaluate import evaluate
from anydit.inference.config import Sampling
from anydit.inference.lengths import Lengths
from anydit.model.conditioning import Numbers
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.tensors import MASK, Batch
from anydit.train.loop import train
from anydit.train.optim import AdamW
from anydit.train.recipe import Recipe, TrainConfig

LONGEST, FILLER = 8, -7.0


@dataclass(frozen=True)
class Ramps:
    """Lines about 5 of 2 to 8 places; the numbers say how many of them lie below and above the middle."""

    facts: Facts
    lengths: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        many = self.lengths[ids]
        exists = torch.arange(LONGEST) < many[:, None]
        x = 5 + (torch.arange(LONGEST) - (many[:, None] - 1) / 2) / many[:, None] + ids[:, None] % 3 * 0.1
        parts = torch.stack([many // 2, many - many // 2], 1).float()
        return Batch(torch.where(exists, x, FILLER)[:, None], {MASK: exists, "parts": parts}, ids)


@config
class Lines(Data):
    def open(self, part: Part) -> Samples:
        lengths = torch.from_numpy(np.random.default_rng(part == "train").integers(2, LONGEST + 1, 300))
        often = tuple(sorted(Counter(lengths.tolist()).items()))
        return Ramps(Facts(1, (LONGEST,), numbers={"parts": ("low", "high")}, lengths=often, total_of="parts"), lengths)


@config
class Sets(ArrayView):
    """Where a place means nothing."""

    placed = False


def recipe() -> Recipe:
    conditions = {"parts": Numbers(dropout=0.5)}
    return Recipe(
        model=DiTConfig(width=32, depth=2, heads=2, patch=(1,), position=Rope(), conditions=conditions),
        codec=Normalize(), view=ArrayView(), data=Lines(), sampling=Sampling(steps=8),
        train=TrainConfig(steps=150, batch=32, optimizer=AdamW(lr=5e-3), ema_decay=0.97, sample_every=10**6,
                          save_every=10**6, log_every=50),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lengths") / "run"
    train(recipe(), out, "cpu", lambda _: None)
    return out


def lengths_of(x: Tensor) -> list[int]:
    """How many places exist; they come first."""
    exists = ~x[:, 0].isnan()
    assert torch.equal(exists, torch.arange(LONGEST) < exists.sum(1, keepdim=True))
    return exists.sum(1).tolist()


def test_a_codec_is_measured_where_samples_exist(run: Path):
    codec = anydit.load(run).config.codec
    assert isinstance(codec, Normalize) and codec.shift is not None and codec.scale is not None
    assert codec.shift[0] == pytest.approx(5.1, abs=0.1), "without the filler"
    assert codec.scale[0] < 0.5


def test_lengths_are_drawn_as_the_data_have_them_and_saved(run: Path):
    pipe = anydit.load(run)
    x = pipe.sample(700)
    counts = Counter(lengths_of(x))
    assert set(counts) == set(range(2, LONGEST + 1))
    assert max(counts.values()) < 2 * min(counts.values())
    assert (x.nan_to_num(5) - 5).abs().max() < 2, "what exists looks like data"
    assert torch.allclose(pipe.sample(3), x[:3], equal_nan=True, atol=1e-5), "sample i depends on seed and i"
    assert lengths_of(pipe.sample(20, seed=1)) != lengths_of(x[:20])


def test_lengths_are_told(run: Path):
    pipe = anydit.load(run)
    assert lengths_of(pipe.sample(3, {"length": 4})) == [4, 4, 4]
    assert lengths_of(pipe.sample(3, {"length": [2, 8, 5]})) == [2, 8, 5]
    assert lengths_of(pipe.sample(2, {"parts": [[1, 2], [3, 4]]})) == [3, 7]
    assert lengths_of(pipe.sample(1, {"parts": [1, 2], "length": 5})) == [5]
    mask = torch.arange(LONGEST) < torch.tensor([[6], [2]])
    assert lengths_of(pipe.sample(2, {MASK: mask})) == [6, 2]
    for bad, said in (
        ({"length": 9}, "expected 1 to 8"),
        ({"length": 0}, "expected 1 to 8"),
        ({"length": [1, 2]}, "for each of 3 samples"),
        ({"length": 2.5}, "expected whole numbers"),
        ({"length": 2, MASK: mask[:1]}, "got length beside mask"),
        ({MASK: mask[:, :4]}, re.escape("shape [3, 8]")),
    ):
        with pytest.raises(ValueError, match=said):
            pipe.sample(3, bad)
    whole = replace(pipe.config, lengths=None)
    with pytest.raises(ValueError, match="cond: got 'length'"):
        anydit.Pipeline(whole, pipe.model).sample(1, {"length": 3})


def test_an_edit_takes_what_a_sample_gave(run: Path):
    pipe = anydit.load(run)
    x = pipe.sample(4, {"length": [3, 4, 5, 6]})
    y = pipe.edit(x, strength=0.3)
    assert lengths_of(y) == [3, 4, 5, 6]
    assert (x - y).abs().nan_to_num().max() < 0.6
    keep = torch.ones(4, 1, LONGEST, dtype=torch.bool)
    assert torch.equal(pipe.edit(x, keep=keep).nan_to_num(9), x.nan_to_num(9)), "what is kept ends where it did"
    with pytest.raises(ValueError, match="got NaN or infinity"):
        pipe.edit(x, {MASK: torch.ones(4, LONGEST, dtype=torch.bool)})
    with pytest.raises(ValueError, match="has no density"):
        pipe.log_likelihood(x.nan_to_num())


def test_lengths_that_say_nothing_are_refused():
    for bad in ((), ((0, 3),), ((3, 0),)):
        with pytest.raises(ValueError, match=r"lengths\.often"):
            Lengths(bad)


def test_a_model_that_diverged_is_not_taken_for_samples_that_do_not_exist(run: Path):
    pipe = anydit.load(run)
    pipe.model.output.linear.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="samples: got NaN or infinity in 40 of 40"):
        evaluate(pipe, Lines(), samples=40)


def test_figures_see_the_filler_and_pictures_what_exists(run: Path):
    pipe = anydit.load(run)
    report = evaluate(pipe, Lines(), samples=100)
    assert report.figures["frechet"].samples < 50, "NaN would have spoilt it, another filler would show"
    sets = evaluate(anydit.Pipeline(replace(pipe.config, view=Sets()), pipe.model), Lines(), samples=100)
    assert sets.figures == {} and any("sets" in note for note in sets.notes)
    assert sets.pictures.keys() == {"samples", "held_out"}


def test_the_command_line_takes_a_length(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, gif = tmp_path / "out", tmp_path / "way.gif"
    command = ["sample", str(run), "-n", "2", "--length", "3", "5", "--out", str(out), "--out", str(gif)]
    out.mkdir()
    assert main(command) == 0
    assert [lengths_of(torch.from_numpy(np.load(path))[None]) for path in sorted(out.iterdir())] == [[3], [5]]
    with Image.open(gif) as film:
        assert getattr(film, "n_frames", 0) > 1
    assert main([*command[:5], "much", *command[7:]]) != 0
    assert "length: got 'much', expected a whole number" in capsys.readouterr().err


def test_flags_of_data_become_flags_of_latents():
    flags = torch.zeros(2, 8, dtype=torch.bool)
    flags[0, 3] = flags[1, 4] = flags[1, 7] = True
    assert coarser(flags, (2,)).tolist() == [[True, False], [False, True]]
    assert coarser(flags, (4,)).tolist() == [[False, True, False, False], [False, False, True, True]]
    assert coarser(flags, (8,)) is flags
    with pytest.raises(ValueError, match="expected as many axes"):
        coarser(flags, (2, 2))
