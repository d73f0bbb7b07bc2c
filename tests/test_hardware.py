"""hardware and nvml: what can be known is right, what can't be is None, and nothing names the person or the
host."""

import getpass
import json
import platform

import pytest

from fastresnet.machine import hardware, meters, software


def test_the_description_is_plain_json_and_names_neither_host_nor_user():
    text = json.dumps([hardware.describe(), software.versions(), meters.condition()])
    if len(platform.node()) > 3:
        assert platform.node() not in text
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in text
    assert "uuid" not in text.lower() and "serial" not in text.lower()


def test_the_description_has_a_cpu_and_usable_cores():
    machine = hardware.describe()
    assert machine["cpu"]["model"] and 1 <= machine["cpu"]["cores_usable"] <= machine["cpu"]["cores"]
    assert (machine["gpu"] is None) == (machine["gpus"] == [])


@pytest.mark.parametrize(("cpuinfo", "name"), [
    ("cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n", "AMD EPYC family 26 model 2"),
    ("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9654 96-Core\n", "AMD EPYC 9654 96-Core"),
    ("Hardware\t: BCM\nModel\t\t: Raspberry Pi\n", "Raspberry Pi"),
])  # fmt: skip
def test_a_cpu_whose_name_is_hidden_is_known_by_its_generation(monkeypatch, tmp_path, cpuinfo, name):
    monkeypatch.setattr(hardware.sys, "platform", "linux")
    (tmp_path / "cpuinfo").write_text(cpuinfo + "\n" + cpuinfo.replace(": 2", ": 9"))
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    assert hardware.cpu_model() == name


@pytest.mark.parametrize(("told", "name"), [
    ({}, "8x H100"), ({"device": "cpu", "world_size": 1}, "16 cores EPYC"),
    ({"device": "cuda", "world_size": 1}, "1x H100 of 8"), ({"device": "cuda", "world_size": 8}, "8x H100"),
    ({"device": "cuda", "world_size": 16}, "16x H100"), ({"device": "cuda"}, "8x H100"),
])  # fmt: skip
def test_what_stood_idle_takes_no_credit(told, name):
    machine = {"gpus": [{"name": "H100"}] * 8, "cpu": {"model": "EPYC", "cores_usable": 16}}
    assert hardware.used_name({"hardware": machine, **told}) == name
