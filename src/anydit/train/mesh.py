"""How several processes share a training: which hold the same, which hold parts, which read parts of a sample."""

from dataclasses import replace

from anydit.config import check_at_least, config


@config
class Mesh:
    """Processes as a grid of `replicate` x `shard` x `context` x `tensor`; neighbours in the last are so by number.

    `replicate`: copies of the model, each with its part of every batch; None takes all processes that are left.
    `shard`: processes that have a part of the batch each, too, and of the weights, their average and the optimizer's
    state (FSDP; with several copies of it, HSDP). `context`: processes that share the tokens of each sample. `tensor`:
    processes that share the heads and the hidden units of each block, for the same samples.
    """

    replicate: int | None = None
    shard: int = 1
    context: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in ("replicate", "shard", "context", "tensor"):
            if getattr(self, name) is not None:
                check_at_least(f"train.mesh.{name}", getattr(self, name), 1)

    def of(self, world: int) -> "Mesh":
        """The same with `replicate` filled in, for so many processes.

        Raises:
            ValueError: their number is not the product of what was asked for.
        """
        left = self.replicate or max(1, world // self.pieces)
        if left * self.pieces != world:
            product = f"{'' if self.replicate is None else f'{left} x '}{self.shard} x {self.context} x {self.tensor}"
            what = "their number" if self.replicate is not None else "a divisor of their number"
            raise ValueError(f"train.mesh: got {product} for {world} processes, expected {what}")
        return replace(self, replicate=left)

    @property
    def copies(self) -> int:
        """Copies of the model, of a mesh that is filled in."""
        assert self.replicate is not None
        return self.replicate

    @property
    def parts(self) -> int:
        """Of a batch."""
        return self.copies * self.shard

    @property
    def per_part(self) -> int:
        """Processes that have the same part of a batch."""
        return self.context * self.tensor

    @property
    def pieces(self) -> int:
        """Of the model, one in each process of a copy: those that share tokens hold pieces of it, too."""
        return self.shard * self.per_part

    @property
    def splits(self) -> bool:
        """Whether no process holds the whole model."""
        return self.pieces > 1

    def __str__(self) -> str:
        counts = f"{self.replicate or 'all'} x {self.shard} x {self.context} x {self.tensor}"
        return f"{counts} (replicate, shard, context, tensor)"
