"""Parts by name: every one is there, a user's own is found, and a wrong one is told of in a line."""

import pytest
import torch

from fastresnet import models, optim
from fastresnet.base import parts
from fastresnet.optim import schedule
from fastresnet.settings import config
from fastresnet.settings.sections import Model, Optim, Schedule

TABLES = {
    "model.arch": parts.MODELS,
    "optim.name": parts.OPTIMIZERS,
    "schedule.name": parts.SCHEDULES,
    "data.source": parts.SOURCES,
    "run.loggers": parts.LOGGERS,
}
PLACES = [(key, name) for key, table in TABLES.items() for name in table]
OWN = """
import torch
from torch import nn


def net(settings, classes, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))


def descent(groups, settings, run):
    return [torch.optim.ASGD(groups)]


def halves(settings, total_steps, steps_per_epoch):
    return lambda step: 1.0 if 2 * step < total_steps else 0.5
"""


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    (tmp_path / "mine_of_parts.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(("key", "name"), PLACES)
def test_every_part_is_where_the_table_says(key, name):
    assert parts.find(TABLES[key], key, name) is not None


@pytest.mark.parametrize("key", TABLES)
def test_a_setting_offers_the_names_of_its_table(key):
    assert config.SETTINGS[key].rule.choices[-len(TABLES[key]) :] == tuple(TABLES[key])


def test_parts_of_the_users_own_file_work(own_file):
    net = models.build(Model(arch="mine_of_parts:net"), 5, 8)
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    settings = Optim(name="mine_of_parts:descent")
    assert isinstance(optim.build(net, settings, device="cpu").parts[0], torch.optim.ASGD)
    table = schedule.table(Schedule(name="mine_of_parts:halves"), 4, 2)
    assert table.lr_factor == [1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(("name", "says"), [
    ("resnet99", "must be one of resnet, speednet"),
    ("no_such_module:net", "there is no module no_such_module"),
    ("mine_of_parts:missing", "has no missing"),
])  # fmt: skip
def test_a_part_that_isnt_there_is_told_of(own_file, name, says):
    with pytest.raises(ValueError, match=says):
        parts.find(parts.MODELS, "model.arch", name)


def test_a_setting_refuses_what_is_neither_a_name_nor_a_place():
    for name in ("resnet99", "os:", ":x", "a b:c"):
        with pytest.raises(config.ConfigError, match="model.arch"):
            config.load(None, {"model.arch": name})
