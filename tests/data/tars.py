"""Tar files for tests."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def write(file: Path, members: Mapping[str, bytes]) -> Path:
    """A tar file with these members, in order."""
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            add(tar, name, content)
    return file


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
