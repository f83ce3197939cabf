"""The videos in a folder, or in tar files, by name, and what is known of each: where it is, its class, its caption."""

from dataclasses import dataclass
from pathlib import Path

from anydit.data.folders import plain, refuse_parts, walked
from anydit.data.outside import SHOWN, Unreadable
from anydit.data.shards import TEXT, Packed, is_packed
from anydit.data.sources import Found, InTars
from anydit.data.video.decode import ANIMATION, DEMUXERS, is_picture, is_video

MOST_CAPTION = 10_000
"""Bytes of a caption, at most."""


@dataclass(frozen=True)
class InFolder(Found):
    """Files, and folders of pictures, below `root`."""

    root: Path

    def source(self, name: str) -> Path:
        return self.root / name

    def class_of(self, name: str) -> str:
        return name.partition("/")[0]

    def text(self, name: str) -> str:
        file = self.root / (name if (self.root / name).is_dir() else Path(name).with_suffix("").as_posix())
        file = file.with_name(file.name + TEXT)
        try:
            with file.open("rb") as opened:
                text = opened.read(MOST_CAPTION + 1).decode()
        except OSError:
            raise Unreadable(f"no {file.name} beside it") from None
        except UnicodeDecodeError:
            raise Unreadable(f"{file.name} is no text in UTF-8") from None
        return _line(text, file.name)


def _line(text: str, name: str) -> str:
    """A text on one line."""
    text = " ".join(text.split())
    if not text or len(text) > MOST_CAPTION:
        raise Unreadable(f"{name} is {'too long' if text else 'empty'}")
    return text


def found_in(root: Path) -> Found:
    """Find the videos: files, and folders that hold pictures; in a subfolder for each class, or all in `root`.

    Or those in a tar file, or in those of a folder in which there are no other videos.

    Raises:
        ValueError: there is no folder, no video in it, videos beside classes, or parts of a data set for classes.
    """
    if root.is_file() and is_packed(root, ()):
        return _in_tars(root)
    if not root.is_dir():
        raise ValueError(f"data.path: got {root}, which is not a folder; expected one with videos, or a tar file")
    videos, others, top = _walked(root)
    if not videos and is_packed(root, ()):
        return _in_tars(root)
    if not videos:
        expected = f"files named {', '.join([*DEMUXERS, ANIMATION])}, folders of pictures, or tar files"
        raise ValueError(f"data.path: got {root} without videos, expected {expected}")
    classes = sorted({name.partition("/")[0] for name in videos if "/" in name})
    flat = [name for name in videos if "/" not in name]
    if flat and classes:
        raise ValueError(
            f"data.path: got {root} with {len(flat)} videos of its own, as {flat[0]}, beside folders of them, "
            f"{', '.join(classes[:SHOWN])}; expected either one folder for each class, or videos only"
        )
    refuse_parts(root, classes)
    filled = {name.partition("/")[0] for name in videos}
    empty = [name for name in top if name not in filled]
    said = [f"Passed over {others} files that are not named like videos."] if others else []
    if empty:
        names = ", ".join(map(plain, empty[:SHOWN])) + (", ..." if len(empty) > SHOWN else "")
        said.append(f"Passed over folders without videos: {names}.")
    return InFolder(sorted(videos), classes, said, root)


def _walked(root: Path) -> tuple[list[str], int, list[str]]:
    """The videos below a folder by name, how many files are no videos, and the folders in it."""
    videos, others, top = list[str](), 0, list[str]()
    for at, folders, files in walked(root):
        here = at.relative_to(root)
        folders[:] = [name for name in folders if not name.startswith("__")]
        top = top if here != Path() else [*folders]
        films, pictures = list(filter(is_video, files)), set(filter(is_picture, files))
        if pictures and not films and not folders and here != Path():
            videos.append(here.as_posix())
            files = [name for name in files if name not in pictures]
        videos += [(here / name).as_posix() for name in films]
        others += sum(name not in films and not name.endswith(TEXT) for name in files)
    return videos, others, top


def _in_tars(root: Path) -> InTars:
    return InTars.of(Packed.of(root, [*DEMUXERS, ANIMATION], "videos"), "video", told=True, line=_line)
