"""A process's own operations on files, seen from inside: counted, or a mishap placed at one of them."""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

CHANGING = ("os.rename", "os.remove", "os.mkdir")
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def each(folder: Path, call: Callable[[str], object]) -> None:
    """Call `call(kind)` before each operation of this process that changes something in `folder`.

    Kinds: open (for writing), fsync, os.rename, os.remove and os.mkdir; an error raised there stops it.
    """
    inside, busy = str(folder), False

    def once(kind: str) -> None:
        nonlocal busy
        if not busy:
            busy = True
            try:
                call(kind)
            finally:
                busy = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & FOR_WRITING
        if (opened or event in CHANGING) and str(arguments[0]).startswith(inside):
            once(event)

    def flushed(descriptor: int, fsync: Callable[[int], None] = os.fsync) -> None:
        once("fsync")
        fsync(descriptor)

    os.fsync = flushed
    sys.addaudithook(hook)


def recorded(folder: Path, to: Path) -> None:
    """Write the kinds of this process's operations in `folder` to a file, a line each."""
    lines = to.open("a", buffering=1)
    each(folder, lambda kind: lines.write(f"{kind}\n"))


def at(folder: Path, kind: str, index: int, mishap: Callable[[], object]) -> None:
    """Let the mishap happen before the operation `index` (from 0) of its kind."""
    seen: Counter[str] = Counter()

    def call(met: str) -> None:
        seen[met] += 1
        if met == kind and seen[met] == index + 1:
            mishap()

    each(folder, call)


def from_number(folder: Path, first: int, error: OSError) -> None:
    """Let the operation `first` (from 0) and all after it fail with this error."""
    numbers = itertools.count()

    def call(kind: str) -> None:
        if next(numbers) >= first:
            raise error

    each(folder, call)
