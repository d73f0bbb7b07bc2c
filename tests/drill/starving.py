"""Runs that get too little: a disk that is full or becomes read-only, memory that ends.

Disks are small tmpfs in a mount namespace of the try's own; where mounting isn't allowed, a limit on the size
of files stands for the full one, and refused operations for the one that can't be written.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from random import Random

from fastresnet.runs import checkpoint
from fastresnet.runs.folder import LAST
from tests.drill import operations
from tests.drill.ground import STEPS, Ground, address_space, figures, has_checkpoint, said, traceback_in
from tests.drill.outcome import SURVIVED, Outcome, ended, is_done, lost, wrong

PAGE = 4096
ROOM = 64 << 20  # bytes of a disk that is large enough
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 1, 32, 1 << 14, 1 << 18, 2
Remount = Callable[[str, int], bool]  # options, flags -> whether it was done


def on_a_full_disk(ground: Ground, chance: Random, number: int) -> Outcome:
    """A disk that holds anything between a page and twice what a run leaves, and later has room."""
    largest = (ground.place / "whole" / LAST).stat().st_size
    with ground.folder() as folder:
        if not may_mount():
            ground.train(folder, partial(_limit_files, chance.randrange(200, 2 * largest)))
            return _gone_on(ground, folder)
        with _disk(folder, chance.randrange(PAGE, 6 * largest)) as remount:
            ground.train(folder)
            remount(f"size={ROOM}", 0)
            return _gone_on(ground, folder)


def on_a_disk_that_becomes_read_only(ground: Ground, chance: Random, number: int) -> Outcome:
    """From some moment on nothing can be written; later it can."""
    with ground.folder() as folder:
        if not may_mount():
            first = chance.randrange(len(ground.operations))
            refused = OSError(errno.EROFS, "Read-only file system")
            ground.train(folder, partial(operations.from_number, first=first, error=refused))
            return _gone_on(ground, folder)
        with _disk(folder, ROOM) as remount:
            child = ground.begin(folder)
            time.sleep(chance.uniform(0, ground.seconds))
            while not is_done(child) and not remount("", MS_RDONLY):  # busy while a file is being written
                time.sleep(0.0005)
            ended(child)
            remount("", 0)
            return _gone_on(ground, folder)


def with_little_memory(ground: Ground, chance: Random, number: int) -> Outcome:
    """The address space ends somewhere in what a run takes."""
    more = round(chance.uniform(0, 1.1) * ground.growth)
    with ground.folder() as folder:
        ground.train(folder, lambda _: _limit_memory(more))
        return ground.finish(folder)


def _gone_on(ground: Ground, folder: Path) -> Outcome:
    """The same command; a run that ended without its last weights, and said so, goes on from those before."""
    if told := traceback_in(folder):
        return lost(f"a traceback instead of a line: {told}")
    if not (folder / "result.json").exists():
        return ground.finish(folder)
    kept = checkpoint.load(folder)["step"] if has_checkpoint(folder) else 0
    if kept == STEPS and (folder / "predictions.npz").exists():
        return ground.judge(folder)
    if "not written" not in said(folder):
        return wrong("a file is missing, and not a word was said")
    if kept:
        code = ground.train(folder, changes={"run.resume": str(folder)})
        return ground.judge(folder) if code == 0 else lost(f"continuing ended with {code}")
    return SURVIVED if figures(folder) == ground.whole[: len(figures(folder))] else wrong("other figures")


# ---- means -------------------------------------------------------------------------------------------------


def _limit_files(size: int, folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error at the write, as a full disk gives
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _limit_memory(more: int) -> None:
    limit = address_space("VmSize") + more
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@cache
def may_mount() -> bool:
    """Whether this process may mount a tmpfs in a namespace of its own; tried in a child."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with _disk(Path("/mnt"), ROOM):
                code = 0
        finally:
            os._exit(code)
    return ended(child) == 0


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[Remount]:
    """A tmpfs of so many bytes at `folder`, which this process and its children alone see."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: bytes | None, at: bytes, flags: int, options: str) -> bool:
        kind = source and b"tmpfs"
        return libc.mount(source, at, kind, ctypes.c_ulong(flags), options.encode()) == 0

    where = os.fsencode(folder)
    folder.mkdir(exist_ok=True)
    done = libc.unshare(CLONE_NEWNS) == 0 and mount(None, b"/", MS_REC | MS_PRIVATE, "")
    if not done or not mount(b"drill", where, 0, f"size={size}"):
        raise OSError(ctypes.get_errno(), "can't mount a tmpfs")
    try:
        yield lambda options, flags: mount(b"drill", where, MS_REMOUNT | flags, options)
    finally:
        libc.umount2(where, MNT_DETACH)
