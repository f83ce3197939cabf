"""Draws the figures of the explanation, out of the code that it explains: python docs/figures.py (extra `digits`)."""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from torch import Tensor

from anydit.data import Digits
from anydit.diffusion.paths import DDPM, AnyPath, Cosine, Linear, LinearBeta
from anydit.diffusion.times import Even, Karras, LogitNormal, LogSNR, Uniform
from anydit.model.tokens import coordinates, patchify, sincos_table

mpl.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent / "explanation"
PATHS: tuple[AnyPath, ...] = (Linear(), Cosine(), LinearBeta(), DDPM())


def paths() -> None:
    """alpha, sigma and their ratio along each path."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    for i, path in enumerate(PATHS):
        # DDPM is LinearBeta in 1,000 steps: dots on its line, not a second line.
        look = {"linestyle": "none", "marker": ".", "markevery": 20} if isinstance(path, DDPM) else {}
        left.plot(t, path.alpha(t), color=f"C{i}", label=type(path).__name__, **look)
        left.plot(t, path.sigma(t), color=f"C{i}", **(look or {"linestyle": "--"}))
        right.plot(t[1:-1], path.log_snr(t[1:-1]), color=f"C{i}", **look)
    left.set(title="alpha (solid), sigma (dashed)", xlabel="t: data at 0, noise at 1")
    right.set(title="log(alpha / sigma)", xlabel="t", ylim=(-8, 8))
    left.legend()
    save("paths")


def noising() -> None:
    """One digit on its way along two paths."""
    times = torch.linspace(0, 1, 9)
    x0 = Digits().open("train").read(torch.tensor([0])).x / 8 - 1
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    rows = PATHS[:3]
    _, grid = plt.subplots(len(rows), len(times), figsize=(9, 3.4), layout="constrained")
    for path, axes_of_row in zip(rows, grid, strict=True):
        xt = path.noised(x0.expand(len(times), -1, -1, -1), noise.expand(len(times), -1, -1, -1), times)
        for axes, t, image in zip(axes_of_row, times, xt[:, 0], strict=True):
            picture(axes, image)
            if path is rows[0]:
                axes.set_title(f"t = {t:.3g}", fontsize=9)
        axes_of_row[0].set_ylabel(type(path).__name__)
    save("noising")


def times() -> None:
    """How often each time is trained at, and where each grid stops."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for name, chosen in (
        ("Uniform()", Uniform()),
        ("LogitNormal()", LogitNormal()),
        ("LogitNormal(shift=3)", LogitNormal(shift=3)),
    ):
        left.hist(chosen.at(u).numpy(), bins=100, range=(0, 1), density=True, histtype="step", label=name)
    left.set(title="training: how often each time is drawn", xlabel="t")
    left.legend(loc="upper left")
    grids = {"Even()": Even(), "Even(shift=3)": Even(3), "LogSNR()": LogSNR(), "Karras()": Karras()}
    for row, grid in enumerate(grids.values()):
        stops = grid.times(Linear(), 12)
        right.plot(stops, torch.full_like(stops, row), "o", markersize=4)
    right.set_yticks(range(len(grids)), list(grids))
    right.set(title="sampling: where 12 steps stop, on Linear()", xlabel="t")
    right.invert_yaxis()
    save("times")


def tokens() -> None:
    """An image cut into patches, the tokens that they become, and how alike the positions are."""
    x = Digits().open("train").read(torch.tensor([0])).x
    figure, (image, values, alike) = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    picture(image, x[0, 0], low=0, high=16)
    for edge in range(0, 9, 2):
        image.axhline(edge - 0.5, color="C1", linewidth=1)
        image.axvline(edge - 0.5, color="C1", linewidth=1)
    for number in range(16):
        image.text(2 * (number % 4) - 0.4, 2 * (number // 4), str(number), color="C1", fontsize=8, va="center")
    image.set_title("8x8 values, patch (2, 2)")
    picture(values, patchify(x, (2, 2))[0], low=0, high=16)
    values.set(title="16 tokens of 4 values", ylabel="token")
    values.set_yticks(range(0, 16, 5), range(0, 16, 5))
    values.set_aspect(0.4)
    table = torch.nn.functional.normalize(sincos_table(coordinates((16, 16)), 192, max_period=10_000), dim=1)
    shown = alike.imshow((table @ table[5 * 16 + 4]).reshape(16, 16), cmap="viridis")
    alike.plot(4, 5, "o", color="C1")
    alike.set(title="likeness of the place (5, 4) to others", xticks=[], yticks=[])
    figure.colorbar(shown, ax=alike, shrink=0.8)
    save("tokens")


def picture(axes: Axes, image: Tensor, low: float = -1, high: float = 1) -> None:
    """Show an image without ticks."""
    axes.imshow(image.numpy(), cmap="gray", vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])


def save(name: str) -> None:
    """Write the current figure beside the pages."""
    plt.savefig(FOLDER / f"{name}.png", dpi=110)
    plt.close()


if __name__ == "__main__":
    for draw in (paths, noising, times, tokens):
        draw()
