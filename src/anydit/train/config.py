"""How to train: what the loop reads, and what training a diffusion model adds to it."""

import torch

from anydit.config import check_at_least, check_fraction, check_positive, config
from anydit.diffusion.losses import AnyWeight, Plain, VariationalBound
from anydit.diffusion.times import AnyTrainingTimes, Uniform
from anydit.inference.compile import check_bf16, check_kernels
from anydit.model.backend import Backend, check_backend
from anydit.train.guards import Spikes
from anydit.train.kernels import Kernels
from anydit.train.latents import AnyLatents, Live
from anydit.train.lora import LoRA
from anydit.train.mesh import Mesh
from anydit.train.optim import AdamW, AnyOptimizer, AnySchedule, Constant, Muon
from anydit.train.posthoc import Profiles
from anydit.train.routing import Route
from anydit.train.width import Width


@config
class LoopConfig:
    """How to train. One step is one update of the weights from `batch` samples.

    `steps`: in all. `batch`: samples in a step, of all processes together. `seed`: of first weights, the order of data
    and all that is drawn. `optimizer`, `schedule`: how weights move, and how the learning rate goes over the steps.
    `accumulate`: parts that a batch is cut into to save memory. `clip`: largest norm of the gradient. `ema_decay`: of
    the averaged weights, which are those that count in the end. `bf16`: products in bfloat16, where a processor has
    it. `workers`: processes that read data; 0 reads in a thread. `log_every`, `sample_every`, `save_every`: steps from
    one writing of the log, sheet of samples, or checkpoint to the next. `keep`: how many checkpoints to keep.
    `max_skipped`: how many steps in a row may be not finite. `spikes`: what to do about gradients out of all proportion
    (None: apply them). `mesh`: how several processes share the training. `timeout`: seconds that a process waits for
    another. `tensorboard`: write the log for TensorBoard, too.
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
    spikes: Spikes | None = Spikes()
    mesh: Mesh = Mesh()
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
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"train.seed: got {self.seed}, expected a number of 64 bits")
        if not self.clip > 0:
            raise ValueError(f"train.clip: got {self.clip}, expected a number above 0 (inf for no clipping)")

    def check_device(self, device: torch.device) -> None:
        """Refuse what `device` cannot do.

        Raises:
            ValueError: that is asked for.
        """
        check_bf16(device, self.bf16)

    def rate(self, step: int) -> float:
        """The learning rate at `step`, the first being 0."""
        return self.optimizer.lr * self.schedule.factor(step, self.steps)

    def jump(self, step: int, last: float) -> str | None:
        """What to say where the rate was `last` before `step`, since the schedule was over another number of steps."""
        if last == self.rate(step - 1):
            return None
        return (
            f"The learning rate was {last:.3g} at step {step - 1}, and goes on with {self.rate(step):.3g}: its "
            f"schedule is now over {self.steps} steps."
        )


@config
class TrainConfig(LoopConfig):
    """How to train a diffusion model. One step is one update of the weights from `batch` samples.

    `times`: which t to train at. `stratified`: one from each of as many equal parts as a batch has samples. `weight`:
    how much an error counts at each t. `bound`: for a learned variance. `drop_all`: how often all conditions that have
    a dropout are null together, beside each by its own. `compile`: each block by torch.compile (None: if it is found to
    pay). `attention_backend`: PyTorch's kernel for attention (None: as is found to be fastest). `kernels`: in place of
    PyTorch's operations, on a GPU. `threads`: of a CPU (None: as many as are found to be fastest, at most those that
    PyTorch has). `recompute`: in which share of the blocks activations are computed again in the backward pass, which
    saves memory for time (None: in as few as make a step fit). `latents`: whether the codec encodes each batch anew, or
    all data once. `adapter`: train this beside a model to begin with, and not the model. `profiles`: averages to keep,
    of which others are made afterwards. `routing`: lets tokens pass by blocks. `width`: the learning rate is that of a
    model of another width.
    """

    times: AnyTrainingTimes = Uniform()
    stratified: bool = True
    weight: AnyWeight = Plain()
    bound: VariationalBound = VariationalBound()
    drop_all: float = 0.0
    compile: bool | None = None
    attention_backend: Backend | None = None
    kernels: Kernels | None = None
    threads: int | None = None
    recompute: float | None = 0.0
    latents: AnyLatents = Live()
    adapter: LoRA | None = None
    profiles: Profiles | None = None
    routing: Route | None = None
    width: Width | None = None

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # pyright: ignore[reportUnknownMemberType]
        if not 0 <= self.drop_all < 1:
            raise ValueError(f"train.drop_all: got {self.drop_all}, expected at least 0 and below 1")
        if self.recompute is not None:
            check_fraction("train.recompute", self.recompute)
        if self.threads is not None:
            check_at_least("train.threads", self.threads, 1)
        if self.adapter is not None and isinstance(self.optimizer, Muon):
            raise ValueError("train.optimizer: got Muon beside train.adapter, expected AdamW, by which pairs learn")
        if self.kernels is not None and self.kernels.update and isinstance(self.optimizer, Muon):
            raise ValueError("train.kernels.update: got True beside Muon, expected False: it is of AdamW alone")
        for name in ("profiles", "width") if self.adapter is not None else ():
            if (got := getattr(self, name)) is not None:
                raise ValueError(f"train.{name}: got {got} beside train.adapter, expected None: it is of whole models")
        self._check_mesh()

    def check_device(self, device: torch.device) -> None:
        super().check_device(device)
        check_backend(device, self.attention_backend, "train.attention_backend")
        if self.kernels is not None:
            check_kernels(device)

    def _check_mesh(self) -> None:
        """Refuse what needs whole parameters, or all tokens, where processes have parts of them."""
        needs = {"adapter": self.adapter, "profiles": self.profiles}
        needs["optimizer"] = self.optimizer if isinstance(self.optimizer, Muon) else None
        for name, got in needs.items() if self.mesh.splits else ():
            if got is not None:
                whole = "shard, context and tensor of 1"
                raise ValueError(f"train.mesh: got {self.mesh} beside train.{name} {got}, expected {whole}")
        if self.mesh.context > 1 and self.routing is not None:
            raise ValueError(f"train.mesh.context: got {self.mesh.context} beside train.routing, expected 1")


RESUMABLE = (
    "train.steps.",
    "train.max_skipped.",
    "train.spikes.",
    "train.mesh.",
    "train.accumulate.",
    "train.recompute.",
    "train.compile.",
    "train.attention_backend.",
    "train.kernels.",
    "train.threads.",
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
    "contrast.",
)
"""Fields, with all in them, that a resumed run may change, because what was trained so far would be the same."""
