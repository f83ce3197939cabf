"""Do samples show what they are told in words: two digits, which, and where; by the ways in which text enters.

    python benchmarks/pairs.py

The recipe `pairs` is trained with each way in, then drawn from under texts that training never had: of pairs of digits
that it never had, or in a phrasing that it never had. A classifier of single digits, trained on halves of real
canvases, looks at both halves of each sample; both must be right, in the right places. `swapped`: of the texts that
tell of two different digits, those whose digits are in each other's place. `shuffled`: both right, with the texts
shuffled among the samples. Runs are kept in --runs, and go on where they were.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from results import PAGES, publish, table
from torch import Tensor

from anydit.data.images.pairs import NEW_PHRASING, DigitPairs, PairSamples
from anydit.evaluate.classifier import Classifier
from anydit.evaluate.texts import judge_of, seen
from anydit.model.text import Cross, Joint, Pooled, Text
from anydit.recipes.pairs import pairs
from anydit.train.log import read
from anydit.train.loop import train
from anydit.train.recipe import Recipe

WAYS = {
    "cross": ("cross-attention", Text(entry=Cross(pooled=Pooled()))),
    "joint": ("joint attention, standard", Text(entry=Joint(pooled=Pooled()), standard=True)),
    "pooled": ("pooled alone", Text(entry=Pooled())),
    "cross-standard": ("cross-attention, standard", Text(entry=Cross(pooled=Pooled()), standard=True)),
    "joint-plain": ("joint attention", Text(entry=Joint(pooled=Pooled()))),
}
"""In which text enters, by the names of their runs. `standard`: training begins with its tokens on one scale.

The first one is the recipe's; the first two have the pooled vector beside the tokens, and so have the last two.
"""

SHOWN = 40

HEADER = ["text enters by", "guidance", "both right, %", "new pair", "new phrasing", "both new", "swapped, %",
          "shuffled, %", "minutes"]  # fmt: skip


def recipe(text: Text, steps: int | None) -> Recipe:
    """`pairs` with a way in."""
    whole = pairs()
    config = whole.train if steps is None else replace(whole.train, steps=steps)
    return replace(whole, model=replace(whole.model, conditions={"text": text}), train=config)


def shares(judge: Classifier, held: PairSamples, x: Float[Tensor, "n 1 h w"], ids: Tensor) -> list[str]:
    """In percent: both right, of all texts and of three kinds; both swapped; both right, of shuffled texts."""
    told, had = held.told(ids), {tuple(row) for row in PairSamples("train", 1, held.digits).pairs.tolist()}
    rows = torch.stack([told.axis, told.first, told.second], dim=1).tolist()
    known = torch.tensor([tuple(row) in had for row in rows])
    phrased = told.phrasing == NEW_PHRASING
    kinds = (torch.ones_like(known), ~known & ~phrased, known & phrased, ~known & phrased)
    found, asked, others = seen(judge, held, x, ids), held.shows(ids), ids.roll(1)
    ok, swapped = (found == asked).all(1), (found == asked.flip(1)).all(1)
    shuffled = (seen(judge, held, x, others) == held.shows(others)).all(1)
    parts = [*(ok[kind] for kind in kinds), swapped[told.first != told.second], shuffled]
    return [f"{100 * float(part.float().mean()):.1f}" for part in parts]


def main() -> None:
    """Train, draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, help="of training, instead of the recipe's")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="these ways in")
    parser.add_argument("--train", action="store_true", help="train them and stop, so that one can go on later")
    given = parser.parse_args()
    runs = {way: given.runs / f"pairs-{way}" for way in given.only}
    pipes = {way: train(recipe(WAYS[way][1], given.steps), out, "cpu") for way, out in runs.items()}
    if given.train:
        return
    held = DigitPairs().open("held_out")
    assert isinstance(held, PairSamples)
    ids = torch.arange(given.samples)
    real = held.read(ids)
    judge = judge_of(held, torch.device("cpu"), lambda stage, done: None)
    rows = list[list[object]]()
    for way, pipe in pipes.items():
        spent = sum(e["seconds"] for e in read(runs[way] / "log.jsonl")) / 60
        for scale in (1.0, 2.0, 4.0):
            x = pipe.sample(len(ids), {"text": list(real.texts["text"])}, guidance=scale).clamp(0, 16)
            rows.append([WAYS[way][0], scale, *shares(judge, held, x, ids), f"{spent:.0f}"])
            print(*rows[-1], flush=True)
            if scale == pipe.config.sampling.guidance.scale:
                sheet = pipe.config.view.picture(x[:SHOWN], real.texts["text"][:SHOWN], 8)
                sheet.save(PAGES / f"pairs-{way}.png")
    rows.append(["real held-out canvases", "", *shares(judge, held, real.x, ids), ""])
    pictures = "\n\n".join(f"![{WAYS[way][0]}](pairs-{way}.png)" for way in pipes)
    publish("pairs", "Digit pairs told in words", f"{table(HEADER, rows)}\n\n{pictures}")


if __name__ == "__main__":
    main()
