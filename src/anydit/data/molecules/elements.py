"""The periodic table: symbols and numbers of elements."""

from collections.abc import Sequence

_ROWS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb",
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au",
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts",
    "Og",
)
SYMBOLS = tuple(symbol for row in _ROWS for symbol in row.split())
"""By number, from 1."""

NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, 1)}
LARGEST = len(SYMBOLS)


def numbers_of(elements: Sequence[str]) -> tuple[int, ...]:
    """Numbers in the periodic table.

    Raises:
        ValueError: an element is unknown, or there twice.
    """
    if unknown := [name for name in elements if name not in NUMBERS]:
        raise ValueError(f"elements: got {unknown[0]!r}, expected symbols of elements, such as C")
    if len(set(elements)) < len(elements):
        raise ValueError(f"elements: got {elements}, expected each once")
    return tuple(NUMBERS[name] for name in elements)


def symbols_of(numbers: Sequence[int]) -> tuple[str, ...]:
    """Symbols of elements by their numbers."""
    return tuple(SYMBOLS[number - 1] for number in numbers)
