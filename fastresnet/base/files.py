"""Files written whole or not at all: beside their target, onto the disk, then renamed over it.

What is being written is locked, and the system lets go of the lock when its process ends: so what a killed
process left half-written is told from what another is writing, and cleared away.
Refuses to append, and to replace what is no regular file (a device, a pipe, a folder).
"""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked and so nothing cleared away
    fcntl = None  # type: ignore[assignment]

MARK_BYTES = 4  # of a temporary name; twice as many hexadecimal digits
LEFT = f".{{}}.{'[0-9a-f]' * 2 * MARK_BYTES}.tmp"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to in the block, which takes the place of `path` when the block ends well.

    It lies in the same folder, which is made where it is missing; what was written there reaches the disk
    before it gets its name. After a failure `path` is as it was and the temporary file is gone; after a kill
    the next writer of `path` removes it. Raises OSError where `path` can't be written or is no regular file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(EINVAL, "is no regular file, so it is not replaced", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(MARK_BYTES)}.tmp")
    try:
        with _owned(temporary):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _owned(path: Path) -> Iterator[None]:
    """An empty file at `path` is locked until the block, or this process, ends."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_left(folder: Path, name: str | None = None, *, depth: int = 0) -> None:
    """Delete what killed processes left half-written in a folder; what a living one is writing stays.

    name:   of the file that was to be written (None: any)
    depth:  levels of folders below that are cleared too
    """
    pattern = LEFT.format("*" if name is None else glob.escape(name))
    for level in range(depth + 1):
        for path in folder.glob("*/" * level + pattern):
            if _is_abandoned(path):
                path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    """Whether nobody is writing the file; False where that can't be told."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


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
