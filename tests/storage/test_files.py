"""A file is written whole or not at all, and a disk that does not take it is told of in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from offchain.files import NotWritten, write_whole

FULL = """
import resource, sys
from pathlib import Path
from offchain.files import NotWritten, write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), bytes(5000))
except NotWritten as reason:
    print(reason)
"""


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_whole(path, "first")
    write_whole(path, b"\x00second")
    assert path.read_bytes() == b"\x00second" and list(path.parent.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"cannot write {path}: File too large; free some space"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_none_is_told_of_with_the_callers_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match="choose another"):
        write_whole(tmp_path / "file" / "a", "x", advice="choose another")
