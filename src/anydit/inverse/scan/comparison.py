"""Ways of reconstructing beside each other: a table, and a sheet of pictures."""

import torch
from jaxtyping import Float
from PIL import Image
from rich.table import Table
from torch import Tensor

from anydit.data import View
from anydit.inverse.scan.solve import Solution

AMISS = 1.25
"""How many times as far from what was measured as noise explains samples are of which that is said."""

MOST_ROWS = 6
"""Samples on a sheet."""


def table(solution: Solution, bounds: tuple[float, float] | None, title: str) -> Table:
    """For each way how far it is from the measurement and, if the truth is known, from that."""
    known = solution.truth is not None
    out = Table(title=title, title_justify="left")
    out.add_column("")
    for name in ("residual", *(("PSNR, dB", "SSIM") if known else ())):
        out.add_column(name, justify="right")
    for way in solution.ways:
        quality = solution.quality(way, bounds)
        out.add_row(way.name, f"{_root(way.residual):.2f}", *(_shown(quality) if quality else ()))
    out.add_row("each sample", f"{_root(solution.residual):.2f}", *(("", "") if known else ()))
    return out


def covered(solution: Solution) -> str | None:
    """How often the truth lies in the intervals that the samples tell, in a sentence; None where nobody knows."""
    if not solution.within:
        return None
    shares, parts = (
        " / ".join(f"{100 * v:.0f} %" for v in some) for some in (solution.within.keys(), solution.within.values())
    )
    return f"truth within the {shares} interval: {parts}"


def fit(solution: Solution) -> str | None:
    """A sentence where samples are further from what was measured than its noise explains, or nearer; else None."""
    found = _root(solution.residual)
    if found > AMISS:
        return (
            f"samples do not fit: they are {found:.3g} deviations of the noise from what was measured, expected 1; "
            "coil maps, mask, scale or --sigma are not quite those of the measurement"
        )
    if found < 1 / AMISS:
        return (
            f"samples are {found:.3g} deviations of the noise from what was measured, expected 1: it is smaller than "
            "that, or too little was measured to tell; --sigma NUMBER says how large it is"
        )
    return None


def sheet(view: View, solution: Solution) -> Image.Image:
    """A row for each sample: all ways, the truth, the error of the best guess and the deviation of the samples.

    Error and deviation are drawn from black at 0, as many times enlarged as is said below them. Up to `MOST_ROWS`
    samples are shown, evenly spread.
    """
    n = len(solution.mean)
    rows = torch.linspace(0, n - 1, min(n, MOST_ROWS)).round().long().unique()
    black, span = _scale(view, solution)
    tiles, captions = list[Tensor](), list[list[str]]()

    def add(x: Tensor, *caption: str) -> None:
        tiles.append(x[rows])
        captions.append([*caption] * (len(rows) // len(caption)))

    for way in solution.ways:
        each = [solution.quality(way, view.bounds, slice(i, i + 1)) for i in rows.tolist()]
        add(way.x, *(f"{way.name}: {quality[0]:.1f} dB" if quality else way.name for quality in each))
    truth, mean = solution.truth, solution.mean
    spreads = {"error": None if truth is None else (mean - truth).abs(), "deviation": solution.deviation}
    if truth is not None:
        add(truth, "truth")
    times = _times([x for x in spreads.values() if x is not None], span)
    for name, x in spreads.items():
        if x is not None:
            add(black + times * x, f"{name} x {times:g}")
    together = torch.stack(tiles, dim=1).flatten(0, 1)
    named = [caption for row in zip(*captions, strict=True) for caption in row]
    return view.picture(together, named, columns=len(tiles))


def _scale(view: View, solution: Solution) -> tuple[float, float]:
    """Black, and how far white is from it: of data without bounds nothing and their own range."""
    if view.bounds is not None:
        return view.bounds[0], view.bounds[1] - view.bounds[0]
    x = solution.mean if solution.truth is None else solution.truth
    return 0.0, float(x.max() - x.min())


def _times(spreads: list[Float[Tensor, "n c *space"]], span: float) -> float:
    """By how much to enlarge what is small, in steps of 1, 2 and 5, so that hardly any of it is beyond white."""
    most = max((float(x.flatten()[: 2**24].quantile(0.99)) for x in spreads), default=0.0)
    steps = [k * 10**p for p in range(4) for k in (1, 2, 5)]
    return float(max((s for s in steps if s * most <= span), default=1))


def _shown(quality: tuple[float, float | None]) -> tuple[str, str]:
    return f"{quality[0]:.2f}", "" if quality[1] is None else f"{quality[1]:.3f}"


def _root(residual: Float[Tensor, " n"]) -> float:
    return float(residual.square().mean().sqrt())
