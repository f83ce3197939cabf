"""The seam between the loop and what it trains: what it asks of a recipe, and of the work that the recipe begins."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor

from anydit.config import Json
from anydit.data import Data, Samples
from anydit.data.loader import AnyOrder
from anydit.train.config import LoopConfig
from anydit.train.parallel import ALONE, Processes
from anydit.train.start import Beginning, Start
from anydit.train.step import Step

T = TypeVar("T")

Note = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """Where a run is trained: its folder, the device, who is told what happens, and the processes that share it."""

    out: Path
    device: torch.device
    note: Note = print
    processes: Processes = ALONE

    @property
    def told(self) -> Json:
        """What of the machine and the processes decides over the last bits of a loss."""
        return {
            "device": self.device.type,
            "processes": self.processes.world,
            "mesh": str(self.processes.mesh),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


class Work(ABC, Generic[T]):
    """What is being trained: the samples in their order, the step, and how what comes of it is written and shown."""

    samples: Samples
    order: AnyOrder
    step: Step[Any]

    @property
    @abstractmethod
    def result(self) -> T:
        """What training makes, with the averaged weights."""

    @abstractmethod
    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        """What has been learned, by the name of the file in the run's folder that holds it."""

    def frozen(self) -> dict[str, Mapping[str, Tensor]]:
        """The weights that `result` has beside those, likewise."""
        return {}

    def first(self, out: Path) -> bool:
        """Write what a new run keeps of its beginning; returns whether it must be saved before its first step.

        Raises:
            ValueError: it began otherwise before it was stopped.
        """
        return False

    def passed(self, out: Path, done: int) -> None:
        """Write what is kept of the moment after `done` steps, beside checkpoints."""

    def undone(self, out: Path, done: int) -> None:
        """Remove what was kept of moments after `done` steps, to which the run goes back."""

    @property
    def told(self) -> Json:
        """What of how it trains here decides over the last bits of a loss, beside what the site tells."""
        return {}

    @property
    def origin(self) -> Json:
        """What the run came from, beside its recipe."""
        return {}

    @abstractmethod
    def sheet(self, n: int) -> Image.Image:
        """About `n` samples, made by the averaged weights."""

    @abstractmethod
    def finish(self, out: Path) -> None:
        """Write the pictures of a finished run, and its figures if it has any."""


class Trainable(ABC, Generic[T]):
    """A recipe as the loop sees it: a config with data and a way to train, which begins the work.

    `T`: what comes of it. `picture`: the file in the run's folder that one looks at first.
    """

    data: Data
    picture: ClassVar[str]

    @property
    @abstractmethod
    def loop(self) -> LoopConfig:
        """How to train."""

    @abstractmethod
    def refuse_unbuildable(self) -> None:
        """Refuse what can be seen to be wrong before data or a device is touched.

        Raises:
            ValueError: the recipe cannot be built.
        """

    def beginning(self, out: Path, start: Start | None) -> Beginning:
        """What the run in `out` begins or goes on with; `start`: what it was told to begin with.

        Raises:
            ValueError: this run cannot begin with that.
        """
        if start is not None:
            raise ValueError(f"init: got {start.origin.source}, expected none: this recipe begins anew")
        return Beginning()

    @abstractmethod
    def resolved(self, samples: Samples, note: Note, device: torch.device, before: Json | None = None) -> Any:
        """The recipe with all that it leaves to the data filled in, each thing as in `before` where that has it.

        `before`: the resolved recipe of the run that goes on; `note` is told what was left out for want of data.

        Raises:
            ValueError: the recipe says something that the data contradicts.
        """

    @abstractmethod
    def begin(self, samples: Samples, site: Site, start: Start | None = None) -> Work[T]:
        """The work of a resolved recipe, before its first step; what was begun before is in the site's folder."""
