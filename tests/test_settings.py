"""Every setting is declared completely, and its rule says what it refuses."""

import math

import pytest

from fastresnet.settings.declarations import SECTIONS, SETTINGS, Setting

CONTRACT = """data.source data.root data.train data.test data.loader data.subset
model.arch model.depth model.width optim.name optim.lr schedule.name train.epochs train.max_steps
train.batch_size train.precision train.compile train.channels_last eval.tta run.seed run.device run.dir
run.resume""".split()


def test_the_sections_are_those_of_the_contract():
    assert list(SECTIONS) == ["data", "model", "optim", "schedule", "train", "eval", "run"]
    assert all(SECTIONS.values())


def test_the_settings_that_scripts_rely_on_are_there():
    assert not set(CONTRACT) - set(SETTINGS)


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_explains_itself_and_its_default_obeys_its_rule(key):
    setting = SETTINGS[key]
    assert setting.help and not setting.help.endswith("."), "a help text, without a full stop"
    assert setting.rule.check(setting.default) == setting.default
    assert setting.type in (bool, int, float, str)
    if setting.choices and not setting.items:
        assert setting.default in setting.choices


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (Setting(bool, False, "x"), "false", "must be true or false, got 'false'"),
        (Setting(bool, False, "x"), 0, "must be true or false, got 0"),
        (Setting(bool, False, "x"), None, "must be true or false, got null"),
        (Setting(int, 1, "x", low=1), 0, "must be at least 1, got 0"),
        (Setting(int, 1, "x", low=1), True, "must be a whole number at least 1, got true"),
        (Setting(int, 1, "x", low=1), 1.5, "must be a whole number at least 1, got 1.5"),
        (
            Setting(float, 0.5, "x", low=0, high=1, hint="a share"),
            2,
            "must lie between 0 and 1, got 2 (a share)",
        ),
        (Setting(float, 0.5, "x", above=0), 0, "must be above 0, got 0"),
        (Setting(float, 0.5, "x", above=0, high=1), 2.0, "must be above 0 and at most 1, got 2.0"),
        (Setting(float, 0.5, "x"), math.nan, "must be a number, got nan"),
        (Setting(float, 0.5, "x"), math.inf, "must be a number, got inf"),
        (Setting(float, 0.5, "x"), "1e", "must be a number, got '1e'"),
        (Setting(str, "a", "x", choices="a b"), "c", "must be one of a, b, got 'c'"),
        (Setting(str, "a", "x"), 3, "must be text, got 3"),
        (Setting(str, None, "x"), 3, "must be text or null, got 3"),
        (
            Setting(int, None, "x", items=True, low=1),
            [0],
            "must be a list of whole numbers at least 1 or null, got [0]",
        ),
        (Setting(int, None, "x", items=True), [], "must be a list of whole numbers or null, got []"),
        (Setting(int, None, "x", items=True), 3, "must be a list of whole numbers or null, got 3"),
        (
            Setting(str, [], "x", items=True, choices="a b"),
            ["c"],
            "must be a list of names from a, b, got ['c']",
        ),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_in_words(setting, value, message):
    with pytest.raises(ValueError) as caught:
        setting.rule.check(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("setting", "value", "result"),
    [
        (Setting(float, 0.5, "x"), 1, 1.0),
        (Setting(str, None, "x"), None, None),
        (Setting(int, None, "x", items=True), (1, 2), [1, 2]),
        (Setting(float, None, "x", items=True), [[0, 1], [2, 0.5]], [[0.0, 1.0], [2.0, 0.5]]),
    ],
)
def test_a_value_takes_its_proper_type(setting, value, result):
    checked = setting.rule.check(value)
    assert checked == result and type(checked) is type(result)
