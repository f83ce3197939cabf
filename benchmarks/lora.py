"""What a low-rank adapter reaches on classes that the model has never seen, beside training all of it.

    python benchmarks/lora.py

A model learns the handwritten digits 0 to 4. From its weights the digits 5 to 9 are learned by an adapter and by the
whole network, for as many steps; and from nothing, as a control. Accuracy is how often a classifier of all ten digits,
trained on the same training digits, sees the digit that a sample was asked for; without guidance.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from results import publish, table
from torch import Tensor

import anydit
from anydit.config import config
from anydit.data import Data, Digits, Facts, Samples
from anydit.data.base import Part
from anydit.evaluate import classifier
from anydit.inference.adapter import ADAPTER_WEIGHTS
from anydit.inference.pipeline import Pipeline
from anydit.recipes.digits import digits
from anydit.tensors import Batch
from anydit.train.loop import train
from anydit.train.lora import LoRA
from anydit.train.optim import AdamW
from anydit.train.recipe import Recipe
from anydit.train.start import Start, begun
from anydit.weights import load_tensors

FIRST, LAST = (0, 4), (5, 9)
LR, ADAPTER_LR = 1e-3, 5e-3


@config
class SomeDigits(Data):
    """The handwritten digits from `first` to `last` alone, labelled from 0 on."""

    first: int
    last: int

    def open(self, part: Part) -> Samples:
        """The samples of these classes."""
        return Some(Digits().open(part), self.first, self.last)


class Some:
    """Samples of some classes of others'."""

    def __init__(self, samples: Samples, first: int, last: int) -> None:
        self.samples, self.first = samples, first
        labels = samples.read(torch.arange(len(samples))).tensor("label")
        self.rows = ((labels >= first) & (labels <= last)).nonzero()[:, 0]
        names = samples.facts.classes["label"][first : last + 1]
        self.facts: Facts = replace(samples.facts, classes={"label": names})

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        """As the others have them, labelled from 0 on."""
        batch = self.samples.read(self.rows[ids])
        return replace(batch, cond={"label": batch.tensor("label") - self.first}, ids=ids)


def recipe(classes: tuple[int, int], steps: int, lr: float, adapter: LoRA | None = None) -> Recipe:
    """The recipe of the digits, for some of them."""
    base = digits()
    label = replace(base.model.conditions["label"], classes=None)
    tuned = replace(
        base.train, steps=steps, optimizer=AdamW(lr=lr), adapter=adapter, save_every=steps, sample_every=steps
    )
    return replace(base, data=SomeDigits(*classes), model=replace(base.model, conditions={"label": label}), train=tuned)


def accuracy(pipeline: Pipeline, first: int, each: int) -> float:
    """How often the classifier of all ten digits sees the one that was asked for."""
    samples = Digits().open("train")
    judge = classifier.trained(Digits(), samples, "label", torch.device("cpu"))
    asked = torch.arange(5).repeat_interleave(each)
    drawn = pipeline.sample(len(asked), {"label": asked}, guidance=1.0)
    return float((judge.predict(drawn) == asked + first).float().mean())


def tuned(base: Path, out: Path, steps: int, adapter: LoRA | None) -> Pipeline:
    """Learn the last digits from the weights of a run."""
    pipeline = anydit.load(base, "cpu")
    config = pipeline.config
    start = Start.of(base, config.model, pipeline.model.state_dict(), config.path, config.prediction)
    plan = begun(recipe(LAST, steps, LR if adapter is None else ADAPTER_LR, adapter), start.origin)
    return train(plan, out, "cpu", start=start)


def main() -> None:
    """The table, on a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1500, help="steps on the digits 0 to 4")
    parser.add_argument("--steps", type=int, default=600, help="steps on the digits 5 to 9")
    parser.add_argument("--each", type=int, default=200, help="samples of each digit")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    known = parser.parse_args()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = train(recipe(FIRST, known.first, 2e-3), root / "base", "cpu")
        size = sum(p.numel() for p in base.model.parameters())
        print(f"The digits 0 to 4: accuracy {accuracy(base, FIRST[0], known.each):.4f}")
        full = tuned(root / "base", root / "full", known.steps, None)
        best = accuracy(full, LAST[0], known.each)
        rows.append(["all of it", size, 100.0, best, 1.0])
        for rank in known.ranks:
            out = root / f"rank-{rank}"
            pipeline = tuned(root / "base", out, known.steps, LoRA(rank=rank))
            own = sum(tensor.numel() for tensor in load_tensors(out / ADAPTER_WEIGHTS).values())
            reached = accuracy(pipeline, LAST[0], known.each)
            rows.append([f"LoRA of rank {rank}", own, 100 * own / size, reached, reached / best])
        alone = train(recipe(LAST, known.steps, 2e-3), root / "alone", "cpu")
        reached = accuracy(alone, LAST[0], known.each)
        rows.append(["all, from nothing", size, 100.0, reached, reached / best])
    head = ["trained", "parameters", "% of all", "accuracy", "of full tuning"]
    note = (
        f"{known.first} steps on the digits 0 to 4, then {known.steps} on 5 to 9; {5 * known.each} samples judged. In "
        "as many steps five digits are learned from nothing, too: what is shown is what an adapter can take up, not "
        "what it saves on such small data."
    )
    publish("lora", "Adapters: new classes for few parameters", f"{note}\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
