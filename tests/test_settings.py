"""Every setting is declared completely, and its rule says what it refuses."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from fastresnet.settings.declarations import REGISTER, declare, setting
from fastresnet.settings.rule import Rule
from fastresnet.settings.sections import CLASSES, SECTIONS, SETTINGS

CONTRACT = """data.source data.root data.train data.test data.loader data.subset
model.arch model.depth model.width optim.name optim.lr schedule.name train.epochs train.max_steps
train.batch_size train.precision train.compile train.channels_last eval.tta run.seed run.device run.dir
run.resume""".split()


def test_the_sections_are_those_of_the_contract():
    assert list(SECTIONS) == ["data", "model", "optim", "schedule", "train", "eval", "run"]
    assert all(SECTIONS.values())


def test_the_settings_that_scripts_rely_on_are_there():
    assert not set(CONTRACT) - set(SETTINGS)


def test_every_setting_explains_itself_and_its_default_obeys_its_rule():
    for key, one in SETTINGS.items():
        assert one.help and not one.help.endswith("."), f"{key}: a help text, without a full stop"
        section, _, name = key.partition(".")
        default = getattr(CLASSES[section](), name)
        assert default == one.default == one.rule.check(default), key
        assert type(default) is type(one.default) and one.rule.kind in (bool, int, float, str), key


@pytest.mark.parametrize(("rule", "value", "message"), [
    (Rule(kind=bool), "false", "must be true or false, got 'false'"),
    (Rule(kind=bool), 0, "must be true or false, got 0"),
    (Rule(kind=bool), None, "must be true or false, got null"),
    (Rule(kind=int, low=1), 0, "must be at least 1, got 0"),
    (Rule(kind=int, low=1), True, "must be a whole number at least 1, got true"),
    (Rule(kind=int, low=1), 1.5, "must be a whole number at least 1, got 1.5"),
    (Rule(kind=float, low=0, high=1, hint="a share"), 2, "must lie between 0 and 1, got 2 (a share)"),
    (Rule(kind=float, above=0), 0, "must be above 0, got 0"),
    (Rule(kind=float, above=0, high=1), 2.0, "must be above 0 and at most 1, got 2.0"),
    (Rule(kind=float), math.nan, "must be a number, got nan"),
    (Rule(kind=float), math.inf, "must be a number, got inf"),
    (Rule(kind=float), "1e", "must be a number, got '1e'"),
    (Rule(kind=str, choices=("a", "b")), "c", "must be one of a, b, got 'c'"),
    (Rule(kind=str), 3, "must be text (not empty, in UTF-8), got 3"),
    (Rule(kind=str, optional=True), 3, "must be text (not empty, in UTF-8) or null, got 3"),
    (Rule(kind=int, depth=1, optional=True, low=1),
     [0], "must be a list of whole numbers at least 1 or null, got [0]"),
    (Rule(kind=int, depth=1, optional=True), [], "must be a list of whole numbers or null, got []"),
    (Rule(kind=int, depth=1, optional=True), 3, "must be a list of whole numbers or null, got 3"),
    (Rule(kind=str, depth=1, choices=("a", "b")), ["c"], "must be a list of names from a, b, got ['c']"),
])  # fmt: skip
def test_a_value_that_breaks_its_rule_is_refused_in_words(rule, value, message):
    with pytest.raises(ValueError) as caught:
        rule.check(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(("rule", "value", "result"), [
    (Rule(kind=float), 1, 1.0),
    (Rule(kind=float), np.float32(0.5), 0.5),
    (Rule(kind=int), np.int64(3), 3),
    (Rule(kind=str), Path("runs"), "runs"),
    (Rule(kind=str, optional=True), None, None),
    (Rule(kind=int, depth=1, optional=True), (1, 2), [1, 2]),
    (Rule(kind=float, depth=2, optional=True), [[0, 1], [2, 0.5]], [[0.0, 1.0], [2.0, 0.5]]),
])  # fmt: skip
def test_a_value_takes_its_proper_type(rule, value, result):
    checked = rule.check(value)
    assert checked == result and type(checked) is type(result)


def test_a_device_may_bear_a_number_and_nothing_else():
    rule = SETTINGS["run.device"].rule
    assert [rule.check(name) for name in ("cpu", "cuda:1", "mps")] == ["cpu", "cuda:1", "mps"]
    for name in ("gpu", "cuda:", "cuda:x", "cpu:1", "cuda:1 "):
        with pytest.raises(ValueError, match="must be one of auto, cpu, cuda, cuda:1, mps, got"):
            rule.check(name)


def test_a_list_of_numbers_holds_no_lists():
    with pytest.raises(ValueError, match=r"must be a list of whole numbers .* got \[\[1\]\]"):
        Rule(kind=int, depth=1, low=1).check([[1]])


@dataclass(frozen=True, kw_only=True)
class Garden:
    """What grows."""

    name: Literal["oak", "ash"] = setting("oak", "which tree")
    heights: list[list[float]] | None = setting(None, "of its twigs", above=0, unit="m")
    labels: list[str] = setting([], "on the trunk")


def test_one_annotated_line_declares_a_setting_its_rule_and_its_help():
    made = declare("garden", Garden)
    assert made["garden.name"].rule == Rule(kind=str, choices=("oak", "ash"))
    assert made["garden.heights"].rule == Rule(kind=float, depth=2, optional=True, above=0)
    assert made["garden.labels"].rule == Rule(kind=str, depth=1) and made["garden.labels"].default == []
    assert (made["garden.heights"].unit, made["garden.name"].help) == ("m", "which tree")
    assert REGISTER.entries[("garden", "name")] is made["garden.name"], "fastargs knows it too"


def test_two_runs_share_no_list():
    one = CLASSES["run"]()
    one.loggers.append("wandb")
    assert CLASSES["run"]().loggers == []
