"""Show what a recipe or a run costs: FLOPs, memory, time.

anydit profile digits
anydit profile runs/digits --sizes 8 16 32 --out cost.png
"""

import argparse
from dataclasses import replace
from math import prod
from pathlib import Path

from rich.console import Console
from rich.table import Table

from anydit.cli import Parser
from anydit.cli._fields import asked_of
from anydit.config import TYPE, Json, from_json, to_json
from anydit.inference.device import find_device
from anydit.model.backend import using
from anydit.model.flops import Cost, cost
from anydit.overrides import overridden
from anydit.recipes import find
from anydit.train.codec import CodecRecipe
from anydit.train.profile import Profile, Room, fits_alone, over_sizes, plot, profile, room
from anydit.train.recipe import Recipe
from anydit.train.resolve import check_there, resolved
from anydit.train.room import fitting
from anydit.weights import RUN_FILE, read_config


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = Parser(
        "anydit profile",
        description=__doc__,
        epilog="Any field of the recipe can be said anew, as for anydit train: --model.depth 8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="RECIPE_OR_RUN", help="a recipe's name, FILE.py:FUNCTION, or a run's folder")
    parser.add_argument("--batch", type=int, help="samples in a step (the recipe's)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (the GPU that is there)")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        help="edges of square samples for the curve (1/2, 1, 2 and 4 times the recipe's)",
    )
    parser.add_argument("--out", type=Path, default=Path("profile.png"), help="where to draw the curve (profile.png)")
    known, rest = parser.parse_known_args(argv)
    recipe = _recipe(known.what, rest, parser.flags)
    if known.batch is not None:
        recipe = replace(recipe, train=replace(recipe.train, batch=known.batch, accumulate=1))
    device = find_device(known.device)
    recipe.loop.check_device(device)
    recipe = replace(recipe, train=replace(recipe.train, recompute=fitting(recipe.step, device).recompute))
    counted = cost(recipe.model, text_tokens=recipe.step.text_tokens)
    with using(recipe.train.attention_backend):
        measured = profile(recipe, device) if fits_alone(recipe, device) else None
        Console().print(table(known.what, counted, measured, room(recipe, device)))
        if measured is None:
            print("No times: processes are to share this model, of which a step does not fit into this device alone.")
            return 0
        points = over_sizes(recipe, _sizes(recipe, known.sizes), device)
    for p in points:
        share = p.cost.attention / p.cost.forward
        size = "x".join(map(str, p.size))
        print(f"{size:>12}: {p.cost.tokens:6} tokens {p.cost.forward / 1e9:9.3f} GFLOPs, attention {share:4.0%}, "
              f"{1e3 * p.seconds:8.2f} ms")  # fmt: skip
    plot(points, known.out)
    print(f"Wrote {known.out}")
    return 0


def table(name: str, counted: Cost, p: Profile | None, room: Room) -> Table:
    """A profile as a page, with what was measured if anything was, and what fits into memory."""
    weights = 4 * counted.parameters
    rows = [
        ("parameters", f"{counted.parameters / 1e6:.2f} M ({_bytes(weights)} in float32)"),
        ("tokens of a sample", f"{counted.tokens}"),
        ("forward, a sample", f"{counted.forward / 1e9:.4g} GFLOPs = {counted.multiply_adds / 1e9:.4g} GMACs"),
        (
            "  attention's quadratic part",
            f"{counted.attention / 1e9:.4g} GFLOPs ({counted.attention / counted.forward:.1%})",
        ),
        ("training, a sample", f"{counted.training / 1e9:.4g} GFLOPs"),
        ("weights, average, AdamW, gradients", _bytes(5 * weights)),
        *_of_memory(room),
        *([] if p is None else _measured(p)),
    ]
    page = Table("what", name, title="Cost (1 multiply-add = 2 FLOPs)")
    for row in rows:
        page.add_row(*row)
    return page


def _measured(p: Profile) -> list[tuple[str, str]]:
    """What a batch of one process takes."""
    return [
        (f"activations, a batch of {p.batch}", f"{_bytes(p.activation_bytes)} kept for the backward pass"),
        ("fastest matrix product", f"{p.ceiling / 1e9:.4g} GFLOP/s in {p.dtype} on {p.device}"),
        ("forward, a batch", f"{1e3 * p.forward_seconds:.4g} ms = {p.forward_share:.0%} of that"),
        ("training step", f"{1e3 * p.step_seconds:.4g} ms = {p.step_share:.0%} of that"),
        ("training", f"{p.batch / p.step_seconds:.4g} samples/s"),
    ]


def _of_memory(room: Room) -> list[tuple[str, str]]:
    """What a step needs, and what would fit."""
    need, free = room.needed_bytes, room.free_bytes
    rows = [("a training step at its peak", _bytes(need) + ("" if free is None else f", of {_bytes(free)} free"))]
    if room.batch is not None:
        rows.append(("largest batch that fits", f"{room.batch:,} samples"))
    if room.grid is not None:
        grid = " x ".join(map(str, room.grid))
        rows.append(("largest sample that fits, alone", f"{prod(room.grid):,} tokens ({grid} patches)"))
    return rows


def _recipe(what: str, overrides: list[str], beside: list[str]) -> Recipe:
    """A resolved recipe, from a run or by name; data are opened only where the recipe leaves something to them."""
    run = Path(what) / RUN_FILE
    content: Json = read_config(run) if run.is_file() else to_json(find(what)())
    if content[TYPE] == CodecRecipe.__name__:
        raise ValueError(f"recipe: got {what}, which trains a codec, expected one that trains a model")
    recipe = overridden(from_json(Recipe, content), overrides, "anydit profile", beside)
    if recipe.model.complete and recipe.codec.complete:
        return recipe
    samples = recipe.data.open("train")
    check_there(asked_of(recipe, overrides), samples.facts)
    return resolved(recipe, samples)


def _sizes(recipe: Recipe, edges: list[int] | None) -> list[tuple[int, ...]]:
    size, patch = recipe.model.size or (), recipe.model.patch
    if edges is not None:
        return [(edge,) * len(patch) for edge in edges]
    half = [tuple(s // 2 for s in size)] if all(s % (2 * p) == 0 for s, p in zip(size, patch, strict=True)) else []
    return half + [tuple(s * times for s in size) for times in (1, 2, 4)]


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count > 2**29 else f"{count / 2**20:.1f} MiB"
