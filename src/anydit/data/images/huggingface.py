"""Data sets of images in the format of Hugging Face: from a folder, or by name from their hub."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anydit.config import config
from anydit.data.base import Part, Samples
from anydit.data.images.cache import Sources
from anydit.data.images.folder import ImageData
from anydit.data.outside import Unreadable, rows_of

SAVED = ("dataset_dict.json", "state.json")
"""A folder with one of these was written by `save_to_disk`."""


@config
class HuggingFace(ImageData):
    """A data set by its `name` on the hub, or a folder: by `save_to_disk`, of Parquet files, or of images by class.

    `subset`: of a data set that has several. `held_out_split`: a split to keep from training in place of the share
    `held_out`. `image`, `label`: columns (None: the only ones of that kind). It needs `pip install 'anydit[datasets]'`.
    """

    name: str = ""
    subset: str | None = None
    split: str = "train"
    held_out_split: str | None = None
    image: str | None = None
    label: str | None = None

    def open(self, part: Part) -> Samples:
        splits = self._splits()
        # What is in the columns is told by the split to train on, so that both parts have the same classes.
        first = _split(splits, "split", self.split)
        image, label = _image_column(first, self.image), _label_column(first, self.label)
        classes = _classes(first, label)
        own = self.held_out_split is not None
        name = self.held_out_split if own and part == "held_out" else self.split
        rows = first if name == self.split else _split(splits, "held_out_split", name or "")
        decoded = self._decoded(_sources(rows, image, label, classes))
        return self._samples(decoded, classes, part, None if own else rows_of(decoded.names, self.held_out, part))

    def _splits(self) -> dict[str, Any]:
        """The splits by name; a data set that was saved as one alone is the split asked for."""
        if not self.name:
            raise ValueError("data.name: got '', expected a folder, or the name of a data set on the Hugging Face hub")
        try:
            import datasets
        except ImportError:
            raise ValueError(
                "data: HuggingFace needs datasets, which is missing; pip install 'anydit[datasets]'"
            ) from None
        folder = Path(self.name).expanduser()
        if not folder.is_dir() and self.name.startswith(("/", ".", "~")):
            raise ValueError(f"data.name: got {self.name}, which is not a folder")
        try:
            if any((folder / name).is_file() for name in SAVED):
                loaded: Any = datasets.load_from_disk(str(folder))
            else:
                loaded = datasets.load_dataset(str(folder) if folder.is_dir() else self.name, self.subset)
        except Exception as error:  # of the network, of the hub, of files: there is no end of kinds
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"data.name: got {self.name}, which cannot be read as a data set ({why})"
                if folder.is_dir()
                else f"data.name: got {self.name}, which is no folder here and not to be had from the hub ({why}); "
                "a copy saved by save_to_disk opens without a network, by --data.name FOLDER"
            ) from None
        return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or self.split): loaded}


def _split(splits: dict[str, Any], field: str, name: str) -> Any:
    if name not in splits:
        raise ValueError(f"data.{field}: got {name!r}, expected one of {', '.join(splits)}")
    if not len(splits[name]):
        raise ValueError(f"data.{field}: got {name!r}, which is empty")
    return splits[name]


def _image_column(rows: Any, name: str | None) -> str:
    import datasets

    return _column(rows, "image", name, lambda feature: isinstance(feature, datasets.Image)) or ""


def _label_column(rows: Any, name: str | None) -> str | None:
    """The column of classes; a column named by the user may also be of whole numbers or of text."""
    import datasets

    def is_label(feature: Any) -> bool:
        if name is not None and isinstance(feature, datasets.Value):
            return feature.dtype.startswith(("int", "uint", "bool", "string", "large_string"))
        return isinstance(feature, datasets.ClassLabel)

    return _column(rows, "label", name, is_label)


def _column(rows: Any, field: str, name: str | None, fits: Callable[[Any], bool]) -> str | None:
    """The column called `name`, or the only one that fits; None where no label is there."""
    fitting = [column for column, feature in rows.features.items() if fits(feature)]
    if name in fitting:
        return name
    if name is None and (len(fitting) == 1 or (field == "label" and not fitting)):
        return fitting[0] if fitting else None
    have = ", ".join(f"{column} ({type(feature).__name__})" for column, feature in rows.features.items())
    got = "columns without an image" if name is None and not fitting else repr(name or fitting)
    raise ValueError(f"data.{field}: got {got}, expected one column that holds the {field}, of: {have}")


def _classes(rows: Any, label: str | None) -> list[str]:
    """The classes' names: those of the feature, or the values in order."""
    if label is None:
        return []
    names = getattr(rows.features[label], "names", None)
    return list(names) if names else [str(value) for value in sorted(set(rows[label]) - {None})]


def _sources(rows: Any, image: str, label: str | None, classes: Sequence[str]) -> Sources:
    """Rows as images to decode, each named by its number."""
    import datasets

    files = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))

    def load(i: int) -> Path | bytes:
        cell = files[i][image]
        if cell is None or (cell["bytes"] is None and not Path(cell["path"] or "").is_file()):
            raise Unreadable("no image in the row, nor a file at its path")
        return Path(cell["path"]) if cell["bytes"] is None else cell["bytes"]

    names = [str(i) for i in range(len(rows))]
    labels = None if label is None else _labels(rows, label, classes)
    return Sources(names, labels, load, files._fingerprint)


def _labels(rows: Any, label: str, classes: Sequence[str]) -> list[int]:
    """Each row's class by index."""
    named = bool(getattr(rows.features[label], "names", None))
    index = {i if named else name: i for i, name in enumerate(classes)}
    values = [value if named else str(value) for value in rows[label]]
    for row, value in enumerate(values):
        if value not in index:
            raise ValueError(f"data.label: got {value!r} in row {row}, expected one of {len(classes)} classes")
    return [index[value] for value in values]
