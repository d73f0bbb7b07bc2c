"""A beton as an open file: bytes by offset, or a BetonError. Knows nothing of what they mean.

Not memory-mapped: a file cut while it is mapped kills the process, a short read is an error with a name.
"""

import os
import stat
from pathlib import Path


class BetonError(ValueError):
    """A beton that is missing, damaged, foreign or not what its sidecar says; names the file and the rule."""


class BetonFile:
    """An open file, read by offset from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait
        except FileNotFoundError:
            raise BetonError(f"{path} does not exist; write it with scripts/convert.py") from None
        except OSError as error:
            raise BetonError(f"{path} can't be read: {error.strerror}") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BetonError(f"{path} is not a file")
        self.length = status.st_size
        self._stamp = _stamp(status)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def fileno(self) -> int:
        """The open file's descriptor, for readers in other languages; it ends with this object."""
        return self._descriptor

    def read(self, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        buffer = bytearray(length)
        self.read_into(start, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` (bytes) from `start`; BetonError when the file ends before."""
        done = 0
        try:
            while done < len(target):
                got = os.preadv(self._descriptor, [target[done:]], start + done)
                if got == 0:
                    raise BetonError(f"{self.path} was cut off while it was being read")
                done += got
        except OSError as error:
            raise BetonError(f"{self.path} can't be read: {error.strerror}") from None

    def check_unchanged(self) -> None:
        """BetonError when the file under this path was replaced, cut or rewritten since it was opened."""
        try:
            now = _stamp(os.stat(self.path))
        except FileNotFoundError:
            now = (-1, -1)
        if now != self._stamp:
            raise BetonError(f"{self.path} was changed or removed while it was in use; start again")


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
