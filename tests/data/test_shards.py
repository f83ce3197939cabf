"""Members of tar files, read where they lie."""

from pathlib import Path

import pytest

from anydit.data.outside import Unreadable
from anydit.data.shards import Packed, is_packed
from tests.data.tars import write


def test_a_member_is_a_file_of_its_bytes_alone(tmp_path: Path) -> None:
    tar = write(tmp_path / "a.tar", {"0.left.bin": b"before", "1.left.bin": b"0123456789", "2.left.bin": b"after"})
    packed = Packed.of(tar, [".bin"], "bytes")
    member = packed.source("a.tar/1")
    assert member.suffix == ".bin"
    with member.open() as file:
        assert (file.seek(0, 2), file.read()) == (10, b"")
        assert (file.seek(-3, 2), file.read(100)) == (7, b"789")
        assert (file.seek(2), file.read(3), file.seek(1, 1), file.read()) == (2, b"234", 6, b"6789")
    assert file.closed
    tar.write_bytes(tar.read_bytes()[: member.start + 5])
    with pytest.raises(Unreadable, match="cut off: the tar file ends before it"):
        member.open()


def test_a_folder_is_packed_where_it_has_tar_files_and_no_others_of_a_kind(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"0.bin": b"x"})
    (tmp_path / "more").mkdir()
    assert is_packed(tmp_path, (".bin",)) and is_packed(tmp_path / "a.tar", (".bin",))
    assert not is_packed(tmp_path / "more", (".bin",)) and not is_packed(tmp_path / "none", (".bin",))
    (tmp_path / "a.tar").rename(tmp_path / "A.TAR")
    assert is_packed(tmp_path, (".bin",)) and is_packed(tmp_path / "A.TAR", (".bin",))
    assert [*Packed.of(tmp_path, [".bin"], "bytes").shards] == ["A.TAR/0"]
    (tmp_path / "more" / "B.BIN").write_bytes(b"x")
    assert not is_packed(tmp_path, (".bin",))
