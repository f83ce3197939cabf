"""How to train: what the loop reads, and what training a diffusion model adds to it."""

from anydit.config import check_at_least, check_positive, config
from anydit.diffusion.losses import AnyWeight, Plain, VariationalBound
from anydit.diffusion.times import AnyTrainingTimes, Uniform
from anydit.train.latents import AnyLatents, Live
from anydit.train.lora import LoRA
from anydit.train.optim import AdamW, AnyOptimizer, AnySchedule, Constant, Muon
from anydit.train.posthoc import Profiles
from anydit.train.routing import Route
from anydit.train.width import Width


@config
class LoopConfig:
    """How to train. One step is one update of the weights from `batch` samples.

    `steps`: in all. `accumulate`: parts that a batch is cut into to save memory. `clip`: largest norm of the gradient.
    `ema_decay`: of the averaged weights, which are those that count in the end. `bf16`: products in bfloat16, where a
    processor has it. `max_skipped`: how many steps in a row may be not finite. `keep`: how many checkpoints to keep.
    `timeout`: seconds that a process waits for another, where several train together.
    """

    steps: int = 10_000
    batch: int = 128
    seed: int = 0
    optimizer: AnyOptimizer = AdamW()
    schedule: AnySchedule = Constant()
    clip: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.9999
    bf16: bool = False
    workers: int = 0
    log_every: int = 10
    sample_every: int = 1000
    save_every: int = 1000
    keep: int = 2
    max_skipped: int = 20
    timeout: float = 600.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "log_every", "sample_every", "save_every", "keep", "max_skipped"):
            check_at_least(f"train.{name}", getattr(self, name), 1)
        check_at_least("train.workers", self.workers, 0)
        if self.batch % self.accumulate:
            raise ValueError(f"train.accumulate: got {self.accumulate}, expected a divisor of train.batch {self.batch}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay: got {self.ema_decay}, expected at least 0 and below 1")
        check_positive("train.timeout", self.timeout)
        if not self.clip > 0:
            raise ValueError(f"train.clip: got {self.clip}, expected a number above 0 (inf for no clipping)")

    def rate(self, step: int) -> float:
        """The learning rate at `step`, the first being 0."""
        return self.optimizer.lr * self.schedule.factor(step, self.steps)


@config
class TrainConfig(LoopConfig):
    """How to train a diffusion model. One step is one update of the weights from `batch` samples.

    `times`: which t to train at, `stratified` over the batch. `bound`: for a learned variance. `drop_all`: how often
    all conditions that have a null are null together, beside each by its own dropout. `compile`: each block by
    torch.compile. `latents`: whether the codec encodes each batch anew, or all data once. `adapter`: train this beside
    a model to begin with, and not the model. `profiles`: averages to keep, of which others are made afterwards.
    `routing`: lets tokens pass by blocks. `width`: the learning rate is that of a model of another width.
    """

    times: AnyTrainingTimes = Uniform()
    stratified: bool = True
    weight: AnyWeight = Plain()
    bound: VariationalBound = VariationalBound()
    drop_all: float = 0.0
    compile: bool = False
    latents: AnyLatents = Live()
    adapter: LoRA | None = None
    profiles: Profiles | None = None
    routing: Route | None = None
    width: Width | None = None

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # pyright: ignore[reportUnknownMemberType]
        if not 0 <= self.drop_all < 1:
            raise ValueError(f"train.drop_all: got {self.drop_all}, expected at least 0 and below 1")
        if self.adapter is not None and isinstance(self.optimizer, Muon):
            raise ValueError("train.optimizer: got Muon beside train.adapter, expected AdamW, by which pairs learn")
        for name in ("profiles", "width") if self.adapter is not None else ():
            if (got := getattr(self, name)) is not None:
                raise ValueError(f"train.{name}: got {got} beside train.adapter, expected None: it is of whole models")


RESUMABLE = (
    "train.steps.",
    "train.max_skipped.",
    "train.timeout.",
    "train.keep.",
    "train.workers.",
    "train.tensorboard.",
    "train.log_every.",
    "train.sample_every.",
    "train.save_every.",
    "train.latents.folder.",
    "data.cache.",
    "data.bad_limit.",
    "sampling.",
    "view.",
)
"""Fields, with all in them, that a resumed run may change, because what was trained so far would be the same."""
