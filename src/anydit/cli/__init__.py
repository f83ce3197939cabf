"""The command `anydit`: one file for each command, imported when that command is called and not before.

A command's file has the command's name, `run(argv: list[str]) -> int`, and a docstring whose first line is its help.
"""

import argparse
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: what went wrong while working; what was refused before any work; Ctrl-C."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a disk that takes no more; what was being written is not always said."""

DIVERGED = {"NotFinite": 3, "Spiked": 4}
"""Exit codes of training that does not go on, by the error."""


LESS = (
    "Expected less at a time: --train.accumulate, --train.recompute 1 or a smaller --train.batch; --batch for samples"
)
"""What helps where a GPU's memory is full."""


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names; what it cannot take is refused in one sentence, as by all else."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    @property
    def flags(self) -> list[str]:
        """All that it takes."""
        return [*self._option_string_actions]

    def error(self, message: str) -> NoReturn:
        from anydit.overrides import meant

        words = message.partition("unrecognized arguments: ")[2].split()
        raise ValueError(f"{message.removeprefix('argument ')}{meant(words, self.flags)}")


class Command(NamedTuple):
    """A row of the table that `anydit --help` prints: PyTorch takes seconds to import, and that page needs none of it.

    `help` repeats the first line of the command's docstring. The examples run in the order of the table.
    """

    help: str
    example: str


COMMANDS: dict[str, Command] = {
    "train": Command("Train a recipe, or go on with a run.", "train digits"),
    "sample": Command("Draw samples from a run or an exported folder.", "sample runs/digits --label 3 -n 16"),
    "reconstruct": Command(
        "Reconstruct what was measured, with a run as the prior.", "reconstruct runs/digits --physics inpainting"
    ),
    "evaluate": Command("Show how good a run's samples are, beside held-out real data.", "evaluate runs/digits"),
    "average": Command(
        "Average a run's weights anew, over any length of its training.",
        "average runs/profiled --length 0.1 --to longer",
    ),
    "profile": Command("Show what a recipe or a run costs: FLOPs, memory, time.", "profile digits"),
    "convert": Command(
        "Turn published weights into a folder that anydit opens, and back.", "convert to-dit runs/digits --to digits.pt"
    ),
    "recipes": Command("List the recipes, or show one whole.", "recipes digits"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program: runs the command that `argv` (None: what the user typed) names, and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    traceback = words[:1] == ["--traceback"]
    name, *rest = words[traceback:] or [""]
    if name in {"", "-h", "--help", "help"}:
        print(overview())
        return 0 if name else REFUSED
    if name in {"-V", "--version"}:
        print(f"anydit {version()}")
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return _say(f"command: got {name!r}, expected one of {', '.join(COMMANDS)}{hint}", REFUSED)
    return _guarded(name, rest) if not traceback else _command(name)(rest)


def overview() -> str:
    """The page that `anydit --help` prints."""
    rows = [f"  {name:12}{c.help}\n{'':14}anydit {c.example}" for name, c in COMMANDS.items()]
    return "\n".join(
        [
            "anydit: any data, one Diffusion Transformer.\n",
            *rows,
            "\n  anydit COMMAND --help             all that a command takes",
            "  anydit --traceback COMMAND ...    where in the code an error came from",
            "  anydit --version",
        ]
    )


def version() -> str:
    """The version that is installed."""
    from importlib.metadata import version

    return version("anydit")


def _command(name: str) -> Callable[[list[str]], int]:
    # GNU OpenMP's threads wait for each other by spinning: long, and a step takes many times as long wherever another
    # program wants a core too; not at all, and each wait costs a sleep and a wake. OpenMP reads this as PyTorch loads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    return import_module(f"anydit.cli.{name}").run


def _guarded(name: str, argv: list[str]) -> int:
    """Run a command; what a user can mend is said in one sentence, and everything else is a bug with its traceback."""
    try:
        return _command(name)(argv)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has enough of it (`anydit recipes | head -1`); the last flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ValueError as error:
        return _say(str(error), REFUSED)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which is not imported for this
            return _say(f"{str(error).splitlines()[0]} {LESS}", FAILED)
        ours = type(error).__module__.startswith("anydit.")
        if not ours and not (isinstance(error, OSError) and (error.filename or error.errno in FULL)):
            raise
        return _say(str(error), DIVERGED.get(type(error).__name__, FAILED))


def _say(sentence: str, code: int) -> int:
    which = f" (process {os.environ.get('RANK')})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    print(f"anydit: error{which}: {sentence}", file=sys.stderr)
    if told := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        _tell(told, sentence)
    return code


def _tell(file: str, sentence: str) -> None:
    """Leave a sentence for torchrun, which ends what it prints with that of the process that failed first."""
    about = {"py_callstack": sentence, "timestamp": f"{time.time():.0f}"}
    with suppress(OSError):  # it was printed, too
        Path(file).write_text(json.dumps({"message": {"message": sentence, "extraInfo": about}}))
