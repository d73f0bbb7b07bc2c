"""Files written whole or not at all: beside their target, onto the disk, then renamed over it.

Refuses to append, and to replace what is no regular file (a device, a pipe, a folder).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to in the block, which takes the place of `path` when the block ends well.

    It lies in the same folder, which is made where it is missing; what was written there reaches the disk
    before it gets its name. After a failure `path` is as it was and the temporary file is gone.
    Raises OSError where `path` can't be written or is no regular file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(EINVAL, "is no regular file, so it is not replaced", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file in one move; returns where it lies."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file (UTF-8, line ends as given) in one move; returns where it lies."""
    return write_bytes(path, text.encode())


@contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The block runs in one process at a time for a folder, which is made where missing.

    waiting:  called once where another process is in its block; what it raises ends the waiting
    The system lets go when a process ends. Windows, and a file system without locks, give none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_left(folder: Path, pattern: str = "*") -> None:
    """Delete what killed processes left half-written of files of this pattern; for holders of the lock."""
    for path in folder.glob(f".{pattern}.*.tmp"):
        path.unlink(missing_ok=True)
