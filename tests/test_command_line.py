"""The scripts' command line: settings, their own options, --help and --print-config."""

import pytest

from fastresnet.settings.command_line import parse_args
from fastresnet.settings.config import load
from fastresnet.settings.keys import ConfigError
from fastresnet.settings.sections import SETTINGS


def test_parse_args_gives_the_configuration_and_the_scripts_own_options():
    cfg, options = parse_args(
        ["--config", "smoke", "--out", "x", "--train.epochs", "3", "--optim.lr=0.5", "image.png"],
        "what it does",
        extra=lambda parser: (parser.add_argument("--out"), parser.add_argument("image")),
    )
    assert (cfg.recipe, cfg.train.epochs, cfg.optim.lr) == ("smoke", 3.0, 0.5)
    assert (options.out, options.image) == ("x", "image.png")


def test_a_setting_that_is_said_twice_alike_is_no_mistake():
    assert parse_args(["--train.epochs=3", "--train.epochs=3.0"])[0].train.epochs == 3


@pytest.mark.parametrize(("words", "message"), [
    (["--epochs=3"], "unknown option --epochs. Did you mean --train.epochs?"),
    (["--batch-size", "3"],
     "unknown option --batch-size. Did you mean --train.batch_size or --eval.batch_size?"),
    (["--cofig", "x"], "unknown option --cofig. Did you mean --config?"),
    (["--qqqqqq"], "unknown option --qqqqqq. --help lists every option"),
    (["rn18"], "don't know what to do with 'rn18': a setting is given as --section.key=value"),
    (["--train.epochs=3", "--train.epochs", "4"],
     "--train.epochs is given twice, 3.0 and then 4.0: leave one out"),
    (["--config"], "argument --config: expected one argument (--help lists every option)"),
])  # fmt: skip
def test_a_wrong_option_is_one_line_with_what_was_meant(words, message):
    with pytest.raises(ConfigError) as caught:
        parse_args(words)
    assert str(caught.value) == message


def test_help_shows_every_setting_with_type_default_unit_and_choices(capsys):
    with pytest.raises(SystemExit) as left:
        parse_args(["--help"], "Train a net.")
    shown = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0 and "Train a net." in shown
    for key, setting in SETTINGS.items():
        assert f"--{key} {setting.rule.type_name()} " in shown
        for choice in setting.rule.choices:
            assert choice in shown
    assert "--train.epochs float 16 passes over the training set, fractions allowed; unit: epochs;" in shown
    assert "\x1b" not in shown, "plain text"


def test_print_config_is_yaml_that_loads_again(capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        parse_args(["--config", "rn18", "--print-config", "--run.seed=3"])
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert left.value.code == 0
    assert load(tmp_path / "again.yaml") == load("rn18", {"run.seed": 3})
