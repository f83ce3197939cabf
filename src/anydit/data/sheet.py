"""Pictures of samples on one sheet, whatever is in them."""

from collections.abc import Sequence
from math import ceil, sqrt

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from anydit.data.base import View

WIDEST = 16
"""Classes up to which each has columns of its own on a sheet."""

MARGIN_PX = 2
CAPTION_PX, CAPTION_LINES = 12, 3
TILE_PX = 48
"""Sheets enlarge smaller pictures to at least this, so that a person sees them."""


def sheet(tiles: Sequence[Image.Image], captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """Pictures of one size in rows, `columns` in each (about square where None), with a caption under each.

    A caption has the width of two tiles at most, and `CAPTION_LINES` lines; what does not fit is left out.
    """
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    captions = [" ".join(c.encode(errors="replace").decode().split()) for c in captions]  # one line that can be drawn
    room = max([tiles[0].width, *(min(2 * tiles[0].width, ceil(draw.textlength(c))) for c in captions)])
    written = [_lines(draw, caption, room) for caption in captions]
    width, height = room + MARGIN_PX, tiles[0].height + MARGIN_PX + CAPTION_PX * max(map(len, written), default=0)
    columns = min(len(tiles), columns or max(1, round(sqrt(len(tiles) * height / width))))
    rows = ceil(len(tiles) / columns)
    out = Image.new("RGB", (columns * width + MARGIN_PX, rows * height + MARGIN_PX), "white")
    draw = ImageDraw.Draw(out)
    for i, tile in enumerate(tiles):
        at = (MARGIN_PX + i % columns * width, MARGIN_PX + i // columns * height)
        out.paste(tile, at)
        for line, text in enumerate(written[i] if captions else ()):
            draw.text((at[0], at[1] + tile.height + line * CAPTION_PX), text, fill="black")
    return out


def arranged(n: int, classes: int) -> tuple[int, int]:
    """Rows and columns of a sheet of at most `n` samples, about square, on which each class has columns of its own."""
    columns = classes * max(1, round(sqrt(n) / classes))
    return max(1, min(n // columns, round(1.5 * columns))), columns


def side_by_side(
    view: View, x: Float[Tensor, "n c *space"], y: Float[Tensor, "n c *space"], columns: int = 10
) -> Image.Image:
    """Samples in rows of `columns`, each row over that of what became of them; the last are left out to fill rows."""
    columns = min(columns, len(x))
    whole = len(x) // columns * columns
    both = torch.stack([x[:whole].cpu(), y[:whole].cpu()])
    shown = rearrange(both, "two (rows columns) ... -> (rows two columns) ...", columns=columns)
    return view.picture(shown, columns=columns)


def _lines(draw: ImageDraw.ImageDraw, caption: str, room_px: int) -> list[str]:
    """A caption in lines that fit, between its words where that is possible."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer) > room_px and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_cut(draw, line, room_px) for line in lines[:CAPTION_LINES]]


def _cut(draw: ImageDraw.ImageDraw, text: str, room_px: int) -> str:
    """As much of a text as fits."""
    while draw.textlength(text) > room_px:
        text = text[:-1]
    return text
