"""The C library's allocator on a CPU: large buffers stay with the process instead of going back each time.

By default glibc maps every buffer above 32 MiB afresh and unmaps it when it is freed, so that each step of a
training run touches its activations for the first time again: a page fault every 4 KiB.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_large_buffers() -> bool:
    """From now on the heap serves buffers of every size and never shrinks.

    Where there is no glibc nothing changes, and the result is False.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
