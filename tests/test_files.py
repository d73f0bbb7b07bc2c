"""Files are written whole or not at all."""

import os
import stat
import subprocess
import sys

import pytest

from fastresnet.base import files


def test_a_file_appears_whole_with_its_folders(tmp_path):
    path = files.write_text(tmp_path / "a/b/page.html", "ä\n")
    assert path.read_bytes() == "ä\n".encode() and os.listdir(path.parent) == ["page.html"]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = files.write_bytes(tmp_path / "weights.pt", b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == path.parent and path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["weights.pt"]


def test_a_disk_that_fills_up_on_flushing_leaves_the_old_file(tmp_path, monkeypatch):
    path = files.write_text(tmp_path / "result.json", "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result.json"]


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "x", []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(path.exists()))
    files.write_text(path, "content")
    assert seen == [False] and path.exists()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_umask_says_who_may_read(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = files.write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_pipe_or_folder_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="is no regular file"):
            files.write_text(path, "")
    assert (tmp_path / "pipe").is_fifo()


WRITER = """
import sys, time
from fastresnet.base import files
with files.replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    print("half", flush=True)
    time.sleep(60)
"""


def half_written(path):
    """A process that stopped in the middle of writing `path`."""
    command = [sys.executable, "-c", WRITER, str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "half\n"
    return writer


def left(folder):
    return sorted(path.name for path in folder.rglob(".*.tmp"))


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_a_living_one_writes_stays(tmp_path):
    path = tmp_path / "last.pt"
    writer = half_written(path)
    try:
        files.write_text(path, "new")
        files.remove_left(tmp_path)
        assert len(left(tmp_path)) == 1, "it is being written"
    finally:
        writer.kill()
        writer.communicate()
    files.write_text(tmp_path / "other.pt", "")
    assert len(left(tmp_path)) == 1, "another file's"
    files.write_text(path, "newer")
    assert left(tmp_path) == [] and path.read_text() == "newer"


def test_half_written_files_are_removed_as_deep_as_asked_and_nothing_else_is(tmp_path):
    names = [".a.png.01234567.tmp", "b/.a.png.01234567.tmp", "b/c/.a.png.01234567.tmp"]
    others = ["a.png.01234567.tmp", ".a.png.tmp", "b/.a.png.0123456.tmp", ".a.png.0123456x.tmp"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files.remove_left(tmp_path, depth=1)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {names[2], *others}
    files.remove_left(tmp_path / "nowhere")


def test_a_name_with_a_pattern_in_it_is_taken_as_it_is(tmp_path):
    for name in (".[ab].txt.01234567.tmp", ".a.txt.01234567.tmp"):
        (tmp_path / name).touch()
    files.write_text(tmp_path / "[ab].txt", "")
    assert left(tmp_path) == [".a.txt.01234567.tmp"]
