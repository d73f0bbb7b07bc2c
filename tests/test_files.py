"""Files are written whole or not at all."""

import os
import stat

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
