"""Memory: what there is, what is free, what was taken."""

import platform
import subprocess
import sys

import pytest
import torch

from fastresnet.base import system
from fastresnet.machine import memory


def test_peak_memory_sees_an_allocation():
    before = memory.peak_bytes()
    held = torch.ones(before // 4 + 50_000_000)  # 4 bytes each: more than all that was ever resident
    assert memory.peak_bytes() >= before + 0.8 * 200_000_000
    del held


def test_free_memory_is_less_than_there_is():
    assert 2**24 < memory.free_bytes("cpu") < memory.total_bytes()


FIRST = {"limit_in_bytes": "9", "usage_in_bytes": "4"}  # of version 1


@pytest.mark.parametrize(("files", "free"), [
    ({"max": "1000", "current": "700"}, 300),
    ({"max": "1000", "current": "700", "stat": "inactive_file 50\n"}, 350),
    ({"max": "max", "current": "700"}, None),
    ({"max": "max", "high": "800", "current": "700"}, 100),
    ({"max": "1000", "high": "max", "current": "700", "swap.max": "9000"}, 300),
    (FIRST | {"memsw.limit_in_bytes": "90"}, 5),
    (FIRST | {"stat": "inactive_file 1\ntotal_inactive_file 2\n"}, 7),
    ({}, None),
])  # fmt: skip
def test_what_a_control_group_still_grants_counts_its_idle_cache_and_no_swap(tmp_path, files, free):
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.cgroup_free(tmp_path) == free


@pytest.mark.parametrize(
    ("root", "own", "limit", "use", "none"),
    [
        ("", "0::/outer/inner", "max", "current", "max"),
        ("memory", "4:memory:/outer/inner", "limit_in_bytes", "usage_in_bytes", "9223372036854771712"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_least_that_a_group_or_one_above_it_grants_is_free(
    root, own, limit, use, none, tmp_path, monkeypatch
):
    groups = [("", none, 950_000), ("outer", 1_000_000, 900_000), ("outer/inner", 500_000, 300_000)]
    for folder, limited, used in groups:
        group = tmp_path / root / folder
        group.mkdir(parents=True, exist_ok=True)
        (group / f"memory.{limit}").write_text(f"{limited}\n")
        (group / f"memory.{use}").write_text(f"{used}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    monkeypatch.setattr(system, "OWN_CGROUPS", tmp_path / "own")
    assert memory.total_bytes() == 500_000 and memory.free_bytes() == 100_000


PROGRAM = """
import resource, torch
from fastresnet.machine import memory
torch.set_num_threads(1)

def faults():
    for turn in range(18):
        if turn == 8:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(16 << 20).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
assert memory.keep_large_buffers()
print(usual, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is tuned")
def test_a_kept_buffer_is_touched_for_the_first_time_once():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert kept < 0.1 * usual
