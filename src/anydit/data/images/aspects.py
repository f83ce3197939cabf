"""Several sizes for images of several aspects: which there are, and to which of them an image goes."""

from collections.abc import Sequence
from math import inf

from anydit.config import check_at_least, config

Size = tuple[int, int]
"""Height and width."""


def share_off(image: Size, size: Size) -> float:
    """How far apart two aspects are, as the share of an image's area that is cut to make it fit, or of bars beside it.

    It is the less, the nearer the logarithms of the aspects are.
    """
    ratio = (image[0] * size[1]) / (image[1] * size[0])
    return 1 - min(ratio, 1 / ratio)


def _check_at_most(at_most: float) -> None:
    if not 0 < at_most < 1:
        raise ValueError(f"buckets.at_most: got {at_most}, expected above 0 and below 1")


@config
class Aspects:
    """About `count` sizes of about as many pixels as `size`, from `widest` times as wide as high to as high as wide.

    Their sides are multiples of `multiple`, which the patch must divide (times what an autoencoder shortens sides by).
    An image goes to the size whose aspect is nearest to its own; one that is further from all of them than the share
    `at_most` of its area is left out, and counts as unreadable.
    """

    count: int = 7
    widest: float = 2.0
    multiple: int = 8
    at_most: float = 0.25

    def __post_init__(self) -> None:
        check_at_least("buckets.count", self.count, 2)
        check_at_least("buckets.multiple", self.multiple, 1)
        if not 1 < self.widest < inf:
            raise ValueError(f"buckets.widest: got {self.widest}, expected a finite number above 1")
        _check_at_most(self.at_most)

    def of(self, size: Size) -> tuple[Size, ...]:
        """The sizes, from the widest to the highest; rounding can make some of them alike."""
        found = dict[Size, None]()
        for i in range(self.count):
            aspect = self.widest ** (2 * i / (self.count - 1) - 1)
            long = self._rounded((size[0] * size[1] * max(aspect, 1 / aspect)) ** 0.5)
            short = self._rounded(size[0] * size[1] / long)
            found[(long, short) if aspect > 1 else (short, long)] = None
        return tuple(found)

    def _rounded(self, length: float) -> int:
        return self.multiple * max(1, round(length / self.multiple))


@config
class Sizes:
    """The size of `size`, and `more` of them (height, width). An image goes to one as `Aspects` says."""

    more: tuple[Size, ...] = ()
    at_most: float = 0.25

    def __post_init__(self) -> None:
        if any(min(size) < 1 for size in self.more):
            raise ValueError(f"buckets.more: got {self.more}, expected a height and a width of at least 1 of each")
        _check_at_most(self.at_most)

    def of(self, size: Size) -> tuple[Size, ...]:
        """`size` and the others."""
        sizes = (size, *self.more)
        alike = [(a, b) for i, a in enumerate(sizes) for b in sizes[:i] if a[0] * b[1] == a[1] * b[0]]
        if alike:
            raise ValueError(f"buckets.more: got {alike[0][0]} beside {alike[0][1]}, expected sizes of other aspects")
        return sizes


Buckets = Aspects | Sizes


def several(buckets: Buckets, size: Size) -> tuple[Size, ...]:
    """The sizes that `buckets` make of `size`.

    Raises:
        ValueError: there is only one.
    """
    sizes = buckets.of(size)
    if len(sizes) == 1:
        raise ValueError(
            f"data.buckets: got {buckets} of size {size}, which are no more sizes than {sizes[0]}; expected another "
            "one in buckets.more, or a smaller buckets.multiple"
        )
    return sizes


def nearest(image: Size, sizes: Sequence[Size]) -> int:
    """Which of `sizes` has the aspect nearest to that of an image; of several as near the first."""
    return min(range(len(sizes)), key=lambda i: share_off(image, sizes[i]))
