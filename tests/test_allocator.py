"""Keeping large buffers, seen from outside: the page faults of a process that uses the same ones again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from fastresnet.machine import allocator
if sys.argv[1] == "kept":
    assert allocator.keep_large_buffers()
torch.set_num_threads(1)
for turn in range(18):
    if turn == 8:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 << 20).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is tuned")
def test_a_kept_buffer_is_touched_for_the_first_time_once():
    assert faults("kept") < 0.1 * faults("as usual")
