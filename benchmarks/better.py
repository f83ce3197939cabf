"""Better per FLOP: what each option gives at equal cost, on small models of the handwritten digits.

    python benchmarks/better.py
    python benchmarks/better.py --only muon profiles

Each part writes its text and its curve; the page has all parts that have been run, and `--only` alone writes it anew.
One process and one thread; what a step costs is the process's own time, whatever else the machine does meanwhile.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from course import Curve, costs, followed, held_out_loss, small, with_train
from results import PAGES, publish, table

from anydit.diffusion.guidance import Guidance
from anydit.evaluate.evaluate import evaluate
from anydit.model.dit import DiT
from anydit.recipes.digits import digits
from anydit.train.diffusion import DiffusionWork
from anydit.train.optim import AdamW, Constant, LinearDecay, Muon
from anydit.train.posthoc import PowerAverage, Profiles, averaged
from anydit.train.recipe import Recipe
from anydit.train.routing import Route
from anydit.train.width import Width

SEEDS = (0, 1)
LENGTHS = (0.01, 0.02, 0.04, 0.07, 0.14, 0.2, 0.25)
UNGUIDED = replace(digits().sampling, steps=10, guidance=Guidance())
WIDTHS, RATES = (32, 64, 128, 256), (4e-3, 1.6e-2, 6.4e-2, 0.256)
SHOWN = 2.0
"""Losses from here on are left out of pictures: such a training diverged."""

KEPT = Path("runs/better")
"""Where the texts of parts are until a page has all of them."""


def muon() -> str:
    """Muon and AdamW, each at its best learning rate, after as many steps and after as much time."""
    base, rates, every = small(64, 3, 4, 300), (4e-3, 8e-3, 1.6e-2), 50
    cost = costs({kind.__name__: with_train(base, optimizer=kind()) for kind in (AdamW, Muon)})
    swept = {kind: {lr: followed(with_train(base, optimizer=kind(lr=lr)), every) for lr in rates}
             for kind in (AdamW, Muon)}  # fmt: skip
    best = {kind: min(rates, key=lambda lr, kind=kind: swept[kind][lr][-1][1]) for kind in swept}
    longer = round(base.train.steps * cost["Muon"] / cost["AdamW"])
    ways = {
        "AdamW": with_train(base, optimizer=AdamW(lr=best[AdamW])),
        "Muon": with_train(base, optimizer=Muon(lr=best[Muon])),
        "AdamW, as long as Muon": with_train(base, optimizer=AdamW(lr=best[AdamW]), steps=longer),
    }
    known = {"AdamW": swept[AdamW][best[AdamW]], "Muon": swept[Muon][best[Muon]]}
    curves = seeds_of(ways, every, known)
    rows = [[name, ways[name].train.optimizer.lr, ways[name].train.steps, 1000 * cost[name.split(",")[0]],
             *spread(curves[name])] for name in ways]  # fmt: skip
    head = ["", "learning rate", "steps", "ms per step", f"held-out loss, mean of {len(SEEDS)} seeds", "least, most"]
    sweep = [[kind.__name__, *(curve[-1][1] for curve in swept[kind].values())] for kind in swept]
    timed = {n: [(s * cost[n.split(",")[0]], loss) for s, loss in curves[n][0]] for n in ways}
    drawn("muon", {"": timed}, "seconds of one core")
    return "\n\n".join(
        [
            "## Muon beside AdamW",
            "3 blocks of width 64, 4 tokens, batches of 64. Learning rates were chosen from "
            f"{', '.join(f'{lr:g}' for lr in rates)} by the held-out loss of seed 0.",
            table(head, rows),
            f"The lower loss has, after as many steps: {lowest(curves, ['AdamW', 'Muon'])}; after as much time: "
            f"{lowest(curves, ['AdamW, as long as Muon', 'Muon'])}. Muon's products are about 5 w / n of those of the "
            "blocks, for width w and n tokens in a batch: here 1.25 of them, and 9 % for w = 1,152 and n = 65,536.",
            f"Held-out loss after {base.train.steps} steps by learning rate, seed 0:",
            table(["", *(f"{lr:g}" for lr in rates)], sweep),
            "![Held-out loss over time, seed 0](better-muon.png)",
        ]
    )


def profiles() -> str:
    """Averages of many lengths out of one training, each beside one of that length that ran along."""
    recipe = with_train(small(64, 3, 4, 600), optimizer=AdamW(lr=8e-3), schedule=Constant(50),
                        profiles=Profiles(every=50))  # fmt: skip
    along, last = dict[float, PowerAverage[DiT]](), list[DiffusionWork]()
    with TemporaryDirectory() as folder:

        def seen(work: DiffusionWork, step: int) -> None:
            if not along:
                along.update({length: PowerAverage(work.step.model, length) for length in LENGTHS})
            for average in along.values():
                average.update(step, torch.ones(()))
            if work.averages is not None and work.averages.due(step + 1):
                work.averages.write(Path(folder), step + 1)
            last[:] = [work]

        followed(recipe, recipe.train.steps, seen)
        rows, curve, alone = list[list[object]](), list[tuple[float, float]](), list[tuple[float, float]]()
        for length in LENGTHS:
            made, model = averaged(Path(folder), length), last[0].step.ema.module
            theirs = held_out_loss(last[0], along[length].module)
            model.load_state_dict(made.weights)
            ours = held_out_loss(last[0], model)
            report = evaluate(last[0].pipeline, recipe.data, samples=744, sampling=UNGUIDED)
            rows.append([length, ours, theirs, f"{made.misfit:.2%}", report.figures["frechet"].samples])
            curve.append((length, ours))
            alone.append((length, theirs))
    curves = {"made afterwards": curve, "of this length, run along": alone}
    drawn("profiles", {"": curves}, "length, of the training", "log")
    head = ["length", "held-out loss", "of one that ran along", "misfit of profiles", "Fréchet distance"]
    return "\n\n".join(
        [
            "## Averages made after training",
            "3 blocks of width 64, 600 steps at a learning rate that stays (8e-3), seed 0. Averages of lengths 0.05 "
            "and 0.1 were kept and written down 12 times; all others were made of them afterwards.",
            table(head, rows),
            "![Held-out loss by length](better-profiles.png)",
        ]
    )


def routing() -> str:
    """A share of the tokens passes by the blocks in the middle: after as many steps, and after as much time."""
    base, every = with_train(small(64, 6, 2, 240), optimizer=AdamW(lr=4e-3)), 40
    route = Route(share=0.5)
    cost = costs({"all tokens": base, "routed": with_train(base, routing=route)})
    longer = round(base.train.steps * cost["all tokens"] / cost["routed"])
    ways = {
        "all tokens": base,
        "routed": with_train(base, routing=route),
        "routed, as long as all tokens": with_train(base, routing=route, steps=longer),
    }
    curves = seeds_of(ways, every, {})
    rows = [[name, way.train.steps, 1000 * cost[name.split(",")[0]], *spread(curves[name])]
            for name, way in ways.items()]  # fmt: skip
    head = ["", "steps", "ms per step", f"held-out loss, mean of {len(SEEDS)} seeds", "least, most"]
    timed = {n: [(s * cost[n.split(",")[0]], loss) for s, loss in curves[n][0]] for n in ways}
    drawn("routing", {"": timed}, "seconds of one core")
    return "\n\n".join(
        [
            "## Tokens that pass by blocks",
            f"6 blocks of width 64, 16 tokens, batches of 64; {route.share:.0%} of the tokens pass by blocks 1 to 4. "
            "The loss on held-out digits is that of all tokens in all blocks.",
            table(head, rows),
            f"The lower loss has, after as many steps: {lowest(curves, ['all tokens', 'routed'])}; after as much time: "
            f"{lowest(curves, ['all tokens', 'routed, as long as all tokens'])}.",
            "![Held-out loss over time, seed 0](better-routing.png)",
        ]
    )


def width() -> str:
    """Four widths at four learning rates, as published and with the rate of the narrowest."""
    recipes = {n: with_train(small(n, 2, 4, 60), schedule=LinearDecay(10, 0.5), batch=32) for n in WIDTHS}
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for title, scaled in (("as published", None), (f"width.base {WIDTHS[0]}", Width(WIDTHS[0]))):
        panels[title] = {
            f"width {n}": [
                (lr, followed(with_train(recipe, width=scaled, optimizer=AdamW(lr=lr)), 60)[-1][1]) for lr in RATES
            ]
            for n, recipe in recipes.items()
        }
    drawn("width", panels, "learning rate", "log")
    rows = [
        [title, name, *(loss for _, loss in curve), f"{min(curve, key=lambda point: point[1])[0]:g}"]
        for title, curves in panels.items()
        for name, curve in curves.items()
    ]
    return "\n\n".join(
        [
            "## One learning rate for all widths",
            f"2 blocks, heads of 32, 4 tokens, batches of 32, {recipes[32].train.steps} steps, seed 0: the loss on "
            "held-out digits by learning rate.",
            table(["", "", *(f"{lr:g}" for lr in RATES), "best at"], rows),
            f"![Held-out loss by learning rate, where it is below {SHOWN:g}](better-width.png)",
        ]
    )


def seeds_of(ways: Mapping[str, Recipe], every: int, known: Mapping[str, Curve]) -> dict[str, list[Curve]]:
    """The curves of each way for all seeds; those of the first may be known."""
    return {
        name: [known[name] if seed == SEEDS[0] and name in known else followed(with_train(way, seed=seed), every)
               for seed in SEEDS]
        for name, way in ways.items()
    }  # fmt: skip


def spread(curves: Sequence[Curve]) -> list[object]:
    """The mean of the last losses, and their range."""
    last = [curve[-1][1] for curve in curves]
    return [mean(last), f"{min(last):.4f}, {max(last):.4f}"]


def lowest(curves: Mapping[str, Sequence[Curve]], names: Sequence[str]) -> str:
    """Which of two ways ends with the lower mean loss."""
    return min(names, key=lambda name: mean(curve[-1][1] for curve in curves[name])).split(",")[0]


Points = Sequence[tuple[float, float]]


def drawn(name: str, panels: Mapping[str, Mapping[str, Points]], over: str, scale: str = "linear") -> None:
    """Losses over `over`, as a PNG beside the page; panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 + 3 * len(panels), 4), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    for axes, (title, curves) in zip(row[0], panels.items(), strict=True):
        for label, curve in curves.items():
            axes.plot(*zip(*[point for point in curve if point[1] < SHOWN], strict=True), marker=".", label=label)
        axes.set(xlabel=over, title=title, yscale="log", xscale=scale)
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter("{x:.3g}")
        axes.grid(visible=True, which="both", linewidth=0.3)
    row[0][0].set_ylabel("held-out loss")
    row[0][0].legend()
    figure.savefig(PAGES / f"better-{name}.png", dpi=120)


PARTS: dict[str, Callable[[], str]] = {"muon": muon, "profiles": profiles, "routing": routing, "width": width}


def main() -> None:
    """Run the parts that are asked for, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=[*PARTS])
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in parser.parse_args().only:
        print(name, flush=True)
        (KEPT / f"{name}.md").write_text(PARTS[name](), encoding="utf-8")
    texts = [(KEPT / f"{name}.md").read_text(encoding="utf-8") for name in PARTS if (KEPT / f"{name}.md").is_file()]
    publish("better", "Better per FLOP", "\n\n".join(texts))


if __name__ == "__main__":
    main()
