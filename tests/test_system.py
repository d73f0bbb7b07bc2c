"""The cores that this process may use, and the control groups that bind it."""

import pytest

from fastresnet.base import system


@pytest.mark.parametrize("files, granted", [
    ({"cpu.max": "150000 100000\n"}, 1.5),
    ({"cpu.max": "max 100000\n"}, None),
    ({"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2.0),
    ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
    ({}, None),
])  # fmt: skip
def test_the_quota_of_a_control_group_counts_as_cores(tmp_path, files, granted):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert system.cgroup_quota(tmp_path) == granted


@pytest.mark.parametrize(
    "told, groups",
    [
        ("0::/user.slice/run.scope\n", ["user.slice/run.scope", "user.slice", ""]),
        ("0::/\n", [""]),
        ("5:cpu,cpuacct:/a\n4:memory:/b/c\n1:name=systemd:/d\n", ["cpu/a", "cpu"]),
        ("5:cpu,cpuacct:/a\n0::/d\n", ["cpu/a", "cpu", "d", ""]),
        ("4:memory:/b\n", ["", "cpu"]),
        (None, ["", "cpu"]),
    ],
    ids=["version 2", "a container", "version 1", "both", "of another controller", "nobody says"],
)
def test_a_control_group_and_all_above_it_bind(told, groups, tmp_path, monkeypatch):
    if told is not None:
        (tmp_path / "own").write_text(told)
    monkeypatch.setattr(system, "CGROUP", tmp_path / "mounted")
    monkeypatch.setattr(system, "OWN_CGROUPS", tmp_path / "own")
    assert system.cgroups("cpu") == [tmp_path / "mounted" / group for group in groups]


def test_the_least_quota_bounds_the_usable_cores(tmp_path, monkeypatch):
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/outer/inner\n")
    (tmp_path / "outer" / "cpu.max").write_text("50000 100000")
    (tmp_path / "outer" / "inner" / "cpu.max").write_text("6400000 100000")
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    monkeypatch.setattr(system, "OWN_CGROUPS", tmp_path / "own")
    assert system.cores_usable() == 1
