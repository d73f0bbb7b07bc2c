"""numba functions on PyTorch's own threads: each gets its number, and all of the work is done once."""

import subprocess
import sys

import numpy as np
import pytest

numba = pytest.importorskip("numba")
threads = pytest.importorskip("fastresnet.cpu.threads")

pytestmark = pytest.mark.skipif(not threads.available(), reason="PyTorch's threads here aren't OpenMP's")


@numba.njit(nogil=True)
def _note(seen, factor, thread, count):
    seen[thread] += factor * count


@numba.njit(nogil=True)
def _noted(seen, factor, count):
    threads.team(_note, count, (seen, factor))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_thread_gets_its_number_and_their_count(count):
    seen = np.zeros(8, np.int64)
    _noted(seen, 10, count)
    assert seen.tolist() == [10 * count] * count + [0] * (8 - count)


def test_they_are_the_threads_of_pytorch_s_operations():
    """A second pool would show as more threads of the process."""
    script = f"""
import os, torch, numpy as np, sys
sys.path.insert(0, {str(threads.__file__).rsplit("/fastresnet/", 1)[0]!r})
sys.path.insert(0, {str(__file__).rsplit("/", 1)[0]!r})
torch.set_num_threads(3)
import test_cpu_threads
torch.randn(2000, 2000).relu_() @ torch.randn(2000, 50)
test_cpu_threads._noted(np.zeros(3, np.int64), 1, 1)
before = len(os.listdir("/proc/self/task"))
test_cpu_threads._noted(np.zeros(3, np.int64), 1, 3)
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "0", done.stderr
