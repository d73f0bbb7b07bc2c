"""Memory: what there is, what is free, what was taken."""

import platform
import subprocess
import sys

import pytest
import torch

from fastresnet.machine import memory


def test_peak_memory_sees_an_allocation():
    before = memory.peak_bytes()
    held = torch.ones(before // 4 + 50_000_000)  # 4 bytes each: more than all that was ever resident
    assert memory.peak_bytes() >= before + 0.8 * 200_000_000
    del held


def test_free_memory_is_less_than_there_is():
    assert 2**24 < memory.free_bytes("cpu") < memory.total_bytes()


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "1000\n", "memory.current": "700\n"}, 300),
        ({"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "inactive_file 50\n"}, 350),
        ({"memory.max": "max\n", "memory.current": "700\n"}, None),
        ({"memory/memory.limit_in_bytes": "9\n", "memory/memory.usage_in_bytes": "4\n"}, 5),
        ({}, None),
    ],
)
def test_what_a_control_group_still_grants_counts_its_idle_cache(tmp_path, files, free):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.cgroup_free(tmp_path) == free


def test_a_control_group_with_little_left_bounds_the_free_memory(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("400000")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_bytes() == 600000 and memory.total_bytes() == 1000000


PROGRAM = """
import resource, sys, torch
from fastresnet.machine import memory
from fastresnet.machine import memory
if sys.argv[1] == "kept":
    assert memory.keep_large_buffers()
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
