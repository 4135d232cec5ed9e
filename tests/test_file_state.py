"""Results kept while files stay as they are: any change of a file, however well hidden, makes a new one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reg_bench.file_state import file_state, kept_while_unchanged


def test_a_result_is_kept_until_its_file_changes(tmp_path: Path) -> None:
    path, reads = tmp_path / "a.txt", []

    @kept_while_unchanged(2)
    def read(name: str, times: int) -> str:
        reads.append(name)
        return Path(name).read_text() * times

    path.write_text("one")
    assert [read(str(path), 2), read(str(path), 2)] == ["oneone"] * 2
    assert len(reads) == 1
    assert read(str(path), 1) == "one"
    stamp = path.stat()
    path.write_text("two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert read(str(path), 2) == "twotwo"
    with pytest.raises(TypeError, match="by position"):
        read(str(path), times=2)


@pytest.mark.parametrize("header", ["image.mhd", "image.nhdr", "image.hdr"])
def test_voxels_beside_a_header_belong_to_its_state(tmp_path: Path, header: str) -> None:
    (tmp_path / header).write_text("header")
    (tmp_path / "image.raw").write_bytes(b"12")
    before = file_state(tmp_path / header)
    (tmp_path / "image.raw").write_bytes(b"34")
    assert before != file_state(tmp_path / header)
    (tmp_path / "other.raw").write_bytes(b"5")
    assert file_state(tmp_path / header) == file_state(tmp_path / header)


def test_what_is_no_file_has_no_state(tmp_path: Path) -> None:
    assert file_state(tmp_path) is None
    assert file_state("no such file") is None
    assert file_state("a\0b") is None
