"""hardware and nvml: what can be known is right, what can't be is None, and nothing names the person or the
host."""

import getpass
import json
import platform

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
