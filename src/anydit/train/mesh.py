"""How several processes share a training: which hold the same, which hold parts, which read parts of a sample."""

from dataclasses import replace

from anydit.config import check_at_least, config


@config
class Mesh:
    """Processes as a grid of `replicate` x `shard` x `context`; neighbours in the last are neighbours by number.

    `replicate`: copies of the model, each with its part of every batch; None takes all processes that are left.
    `shard`: processes that have a part of the batch each, too, and of the weights, their average and the optimizer's
    state (FSDP; with several copies of it, HSDP). `context`: processes that share the tokens of each sample.
    """

    replicate: int | None = None
    shard: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        for name in ("replicate", "shard", "context"):
            if getattr(self, name) is not None:
                check_at_least(f"train.mesh.{name}", getattr(self, name), 1)

    def of(self, world: int) -> "Mesh":
        """The same with `replicate` filled in, for so many processes.

        Raises:
            ValueError: their number is not the product of what was asked for.
        """
        copy = self.shard * self.context
        left = self.replicate or max(1, world // copy)
        if left * copy != world:
            product = f"{'' if self.replicate is None else f'{left} x '}{self.shard} x {self.context}"
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
    def splits(self) -> bool:
        """Whether no process holds the whole model: those that share tokens hold parts of it, too."""
        return self.shard * self.context > 1

    def __str__(self) -> str:
        return f"{self.replicate or 'all'} x {self.shard} x {self.context} (replicate, shard, context)"
