"""Molecules as people see them: shaded balls, joined where there are bonds; and as XYZ or SDF, in Å."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from math import ceil
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from anydit.config import config
from anydit.data.base import Loaded, View, suffixed
from anydit.data.molecules.bonds import chem, distances, joined, orders, unjoined
from anydit.data.molecules.elements import numbers_of, symbols_of
from anydit.data.molecules.files import SUFFIXES, checked, entries
from anydit.data.outside import Unreadable
from anydit.data.reading import check_named
from anydit.data.sheet import sheet

TILE_PX, FINE = 96, 3
"""Width and height of the picture of one molecule; it is drawn so many times finer."""

LEAST_RADIUS = 3.0
"""Å from the middle to the edge of a tile at least, so that small molecules look small."""

BALL, BOND_PX = 0.32, 5
"""Radius of a ball, as a part of that of van der Waals; width of a bond."""


@config
class XYZ:
    """Extended XYZ: elements and places."""


@config
class SDF:
    """A MOL record in an .sdf, with the bonds that the distances make; without any where these are of no molecule."""


class Atoms(NamedTuple):
    """Numbers in the periodic table, and places in Å."""

    numbers: Int[np.ndarray, " n"]
    positions: Float[np.ndarray, "n 3"]


@config
class MoleculeView(View):
    """Sets of atoms `[3 + elements, n]`: places in Å, then of each element whether it is the atom's; NaN is no atom.

    `elements`: symbols, in the order of the channels; None takes them from the data. `file`: what samples are written
    as.
    """

    placed: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    elements: tuple[str, ...] | None = None
    file: XYZ | SDF = XYZ()

    def __post_init__(self) -> None:
        if self.elements is not None:
            numbers_of(self.elements)

    def atoms(self, x: Float[Tensor, "b c n"]) -> list[Atoms]:
        """The atoms of each sample: of each the element whose channel is largest.

        Raises:
            ValueError: the channels are not those of the elements.
        """
        if self.elements is None or x.shape[1] != 3 + len(self.elements):
            raise ValueError(
                f"view.elements: got {self.elements} for {x.shape[1]} channels, expected {x.shape[1] - 3} elements"
            )
        numbers, out = np.array(numbers_of(self.elements)), list[Atoms]()
        for sample in x.detach().float().cpu().numpy():
            there = sample[:, ~np.isnan(sample).any(0)]
            out.append(Atoms(numbers[there[3:].argmax(0)], there[:3].T.astype(np.float64)))
        return out

    def picture(
        self, x: Float[Tensor, "b c n"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        return sheet([_tile(atoms) for atoms in self.atoms(x)], captions, columns)

    def save(self, x: Float[Tensor, "c n"], path: Path) -> Path:
        (atoms,) = self.atoms(x[None])
        suffix, text = (".sdf", as_sdf(atoms)) if isinstance(self.file, SDF) else (".xyz", as_xyz(atoms))
        path = suffixed(path, suffix)
        path.write_text(text, encoding="utf-8")
        return path

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """The one molecule in a file, its atoms in their order; NaN in the places that are left."""
        check_named(path, self.suffixes)
        elements = self.elements or ()
        try:
            found = [read for _, read in islice(entries(path.name, path), 2)]
            if len(found) != 1:
                raise Unreadable(f"{'several molecules' if found else 'no molecule'}, expected one")
            numbers, positions, _ = checked(found[0](), numbers_of(elements), 0.0, shape[1])
        except (Unreadable, OSError) as error:
            raise ValueError(f"got {path}: {error}") from None
        x = np.full(shape, np.nan, np.float32)
        x[:3, : len(numbers)] = positions.T
        x[3:, : len(numbers)] = np.array(numbers_of(elements))[:, None] == numbers
        return Loaded(torch.from_numpy(x), self)


def as_xyz(atoms: Atoms, said: str = "") -> str:
    """One frame of extended XYZ, places in Å to the digits of float32; `said` is more of its comment."""
    lines = [str(len(atoms.numbers)), f'Properties=species:S:1:pos:R:3{f" {said}" if said else ""} pbc="F F F"']
    lines += [
        f"{symbol:2} {x:15.8f} {y:15.8f} {z:15.8f}"
        for symbol, (x, y, z) in zip(symbols_of(atoms.numbers.tolist()), atoms.positions.tolist(), strict=True)
    ]
    return "\n".join(lines) + "\n"


def as_sdf(atoms: Atoms) -> str:
    """One record, with bonds if these atoms make a molecule."""
    molecule = joined(*atoms) or unjoined(*atoms)
    return f"{chem().MolToMolBlock(molecule, kekulize=True)}$$$$\n"


def _tile(atoms: Atoms) -> Image.Image:
    """A molecule seen along the axis in which it is flattest; what is near hides what is behind it."""
    size = TILE_PX * FINE
    tile = Image.new("RGB", (size, size), "#f4f4f4")
    if not len(atoms.numbers):
        return tile.resize((TILE_PX, TILE_PX))
    places = _flat(atoms.positions)
    reach = max(LEAST_RADIUS, float(np.abs(places[:, :2]).max()) + 0.9)
    scale = size / 2 / reach
    at = size / 2 + places * [scale, -scale, scale]
    draw, table = ImageDraw.Draw(tile), chem().GetPeriodicTable()
    bonds = np.argwhere(np.triu(orders(atoms.numbers, distances(atoms.positions)))).tolist()
    items = [(places[i, 2], i, i) for i in range(len(places))]
    items += [(min(places[a, 2], places[b, 2]) - 0.01, a, b) for a, b in bonds]
    for _, a, b in sorted(items):
        if a == b:
            number = int(atoms.numbers[a])
            _ball(tile, at[a, 0], at[a, 1], BALL * table.GetRvdw(number) * scale, number)
        else:
            draw.line([*at[a, :2].tolist(), *at[b, :2].tolist()], "#8a8f98", ceil(BOND_PX * FINE * 0.6))
    return tile.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)


def _flat(positions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Places about their middle, along the principal axes: the longest to the right, the shortest towards the eye."""
    centred = positions - positions.mean(0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]
    axes[2] *= np.sign(np.linalg.det(axes)) or 1  # turned, not mirrored
    return centred @ axes.T


def _ball(tile: Image.Image, x: float, y: float, radius: float, number: int) -> None:
    """A ball in its element's colour, lit from the upper left."""
    r = max(2, round(radius))
    ball = _shaded(r, number)
    tile.paste(ball, (round(x) - r, round(y) - r), ball)


@lru_cache(maxsize=512)
def _shaded(radius: int, number: int) -> Image.Image:
    axis = (np.arange(2 * radius) - radius + 0.5) / radius
    x, y = np.meshgrid(axis, axis)
    square = x**2 + y**2
    z = np.sqrt(np.clip(1 - square, 0, 1))
    light = np.clip(0.45 + 0.55 * (-0.4 * x - 0.5 * y + 0.77 * z), 0, 1)[..., None]
    shine = np.clip(-0.4 * x - 0.5 * y + 0.77 * z, 0, 1)[..., None] ** 16
    colour = _colour(number) * light * (1 - 0.6 * shine) + 255 * 0.6 * shine
    edge = np.clip((1 - np.sqrt(square)) * radius, 0, 1)[..., None] * 255
    rim = np.where(square[..., None] > (1 - 1.6 / radius) ** 2, 0.55, 1.0)
    return Image.fromarray(np.concatenate([colour * rim, edge], -1).round().astype(np.uint8), "RGBA")


COLOURS = {
    1: "f0f0f0", 5: "ffb5b5", 6: "50545c", 7: "3050f8", 8: "e6261f", 9: "6fcf4a", 14: "d0a878", 15: "ff8000",
    16: "e8c820", 17: "1fd01f", 35: "a62929", 53: "940094",
}  # fmt: skip
"""What elements are drawn in by custom (after Corey, Pauling and Koltun); others in pink."""


def _colour(number: int) -> Float[np.ndarray, " 3"]:
    return np.array(list(bytes.fromhex(COLOURS.get(number, "dd77cc"))), float)
