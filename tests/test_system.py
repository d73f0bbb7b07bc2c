"""The cores that this process may use."""

import pytest

from fastresnet.base import system


@pytest.mark.parametrize(
    "files, granted",
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_control_group_counts_as_cores(tmp_path, files, granted):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert system.cgroup_quota(tmp_path) == granted


def test_a_quota_below_the_affinity_bounds_the_usable_cores(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("50000 100000")
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    assert system.cores_usable() == 1
