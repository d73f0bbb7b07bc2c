"""Recipes, bases, the command line: what is right keeps its origin, what is wrong is one clear line."""

import copy
import pickle
import subprocess
import sys

import pytest
import yaml

from fastresnet.settings import config
from fastresnet.settings.config import load
from fastresnet.settings.keys import ConfigError
from fastresnet.settings.reading import RECIPES, recipes
from fastresnet.settings.sections import SETTINGS


@pytest.fixture
def recipe(tmp_path):
    """`recipe("name.yaml", "text")` writes a file and returns its path as text."""

    def write(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def complaint(*arguments, **named):
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what is right -----------------------------------------------------------------------------------------


def test_what_a_recipe_calls_itself_is_one_name_and_no_path(recipe):
    assert load(recipe("mine.yaml", "recipe: /tmp/x\n")).recipe == "tmp-x"
    assert load(recipe("mine.yaml", "recipe: ../../x\n")).recipe == "x"


def test_the_default_recipe_is_rn18():
    assert load().recipe == "rn18"
    assert load().model.depth == 18


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads_and_names_its_source(name):
    cfg = load(name)
    head = (RECIPES / name).read_text(encoding="utf-8").split("\n\n")[0]
    assert cfg.recipe == name.removesuffix(".yaml")
    assert recipes()[name], "the first line says what the recipe is"
    assert "# Source:" in head.split("\ndata:")[0]


def test_a_recipe_is_found_with_and_without_its_ending_and_by_path():
    by_path = load(RECIPES / "rn18.yaml")
    assert load("rn18") == load("rn18.yaml") == by_path


def test_without_a_recipe_there_are_the_defaults():
    cfg = load(None)
    assert cfg.flat() == {key: setting.default for key, setting in SETTINGS.items()}
    assert set(cfg.provenance.values()) == {"default"}


def test_a_base_is_overridden_by_the_recipe_and_that_by_the_command_line(recipe):
    recipe("low.yaml", "optim: {lr: 0.1, momentum: 0.8}\ntrain: {epochs: 3}")
    recipe("middle.yaml", "base: low.yaml\noptim: {lr: 0.2}")
    cfg = load(
        recipe("top.yaml", "base: middle.yaml\nrun: {seed: 4}"), ["--train.epochs=5", "--run.seed", "6"]
    )
    assert (cfg.optim.lr, cfg.optim.momentum, cfg.train.epochs, cfg.run.seed) == (0.2, 0.8, 5.0, 6)
    assert cfg.recipe == "top"
    assert [
        cfg.provenance[key] for key in ("optim.lr", "optim.momentum", "train.epochs", "run.seed", "run.dir")
    ] == ["middle.yaml", "low.yaml", "command line", "command line", "default"]


def test_a_base_may_be_a_shipped_recipe(recipe):
    cfg = load(recipe("mine.yaml", "base: rn18.yaml\ntrain: {epochs: 2}"))
    assert cfg.train.batch_size == load("rn18").train.batch_size
    assert cfg.provenance["train.batch_size"] == "rn18.yaml"


def test_overrides_are_a_mapping_or_words_of_a_command_line():
    assert (
        load(None, {"train.epochs": 2})
        == load(None, ["--train.epochs=2"])
        == load(None, ["--train.epochs", "2"])
    )


@pytest.mark.parametrize(("text", "key", "value"), [
    ("train: {compile: off}", "train.compile", "off"),
    ("optim: {lr: 1e-3}", "optim.lr", 0.001),
    ("optim: {lr: 2}", "optim.lr", 2.0),
    ("optim: {eps: 1.0e-08}", "optim.eps", 1e-8),
    ("eval: {tta: none}", "eval.tta", "none"),
    ("run: {seed: 010}", "run.seed", 10),
    ("run: {dir: 2026-11-01}", "run.dir", "2026-11-01"),
    ("data: {root: ~}", "data.root", None),
    ("optim:", "optim.lr", 0.1),
    ("", "optim.lr", 0.1),
    ("run: {loggers: [tensorboard]}", "run.loggers", ["tensorboard"]),
    ("model: {stage_widths: [64, 256]}", "model.stage_widths", [64, 256]),
])  # fmt: skip
def test_yaml_is_read_as_people_mean_it(recipe, text, key, value):
    assert load(recipe("r.yaml", text)).flat()[key] == value


@pytest.mark.parametrize(("word", "key", "value"), [
    ("--optim.lr=1e-3", "optim.lr", 0.001),
    ("--optim.nesterov=false", "optim.nesterov", False),
    ("--run.dir=123", "run.dir", "123"),
    ("--run.dir=null", "run.dir", None),
    ("--run.dir=a=b", "run.dir", "a=b"),
    ("--train.compile=off", "train.compile", "off"),
    ("--run.loggers=wandb,tensorboard", "run.loggers", ["wandb", "tensorboard"]),
    ("--run.loggers=[wandb]", "run.loggers", ["wandb"]),
    ("--run.loggers=[]", "run.loggers", []),
    ("--model.stage_widths=32,64", "model.stage_widths", [32, 64]),
    ("--schedule.points=[[0, 1], [2, 0]]", "schedule.points", [[0.0, 1.0], [2.0, 0.0]]),
])  # fmt: skip
def test_the_command_line_is_read_as_people_mean_it(word, key, value):
    assert load(None, [word]).flat()[key] == value


def test_a_dumped_configuration_reads_back_equal_with_its_recipe_and_says_who_set_what(tmp_path):
    changes = {"train.epochs": 1, "run.dir": "off", "optim.eps": 1e-9, "run.loggers": ["wandb"]}
    cfg = load("rn18-long", changes)
    cfg.dump(tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == cfg
    lines = (tmp_path / "config.yaml").read_text(encoding="utf-8").splitlines()
    assert any(line.split() == "epochs: 1.0 # command line".split() for line in lines)
    assert any(line.split() == "batch_size: 512 # rn18.yaml".split() for line in lines)
    plain = yaml.safe_load("\n".join(lines))
    assert plain.pop("recipe") == "rn18-long"
    assert plain == cfg.to_dict(), "any YAML reader reads the same"


def test_a_configuration_survives_dict_pickle_and_copy():
    cfg = load("rn18")
    assert config.from_dict(cfg.to_dict(), recipe="rn18") == cfg
    assert pickle.loads(pickle.dumps(cfg)) == copy.deepcopy(cfg) == cfg


def test_replace_checks_and_leaves_the_original_alone():
    cfg = load("rn18")
    other = cfg.replace({"train.epochs": 2})
    assert (cfg.train.epochs, other.train.epochs) == (16.0, 2.0)
    assert other.provenance["train.epochs"] == "replaced" and other.provenance["optim.lr"] == "rn18.yaml"
    with pytest.raises(ConfigError, match="train.epochs must be above 0"):
        cfg.replace({"train.epochs": 0})
    with pytest.raises(AttributeError, match="cannot assign to field 'epochs'"):
        cfg.train.epochs = 3
    with pytest.raises(AttributeError, match="'Train' object has no attribute 'epoch'"):
        _ = cfg.train.epoch


def test_the_environment_never_overrides(monkeypatch):
    for name in ("optim.lr", "OPTIM_LR", "optim_lr"):
        monkeypatch.setenv(name, "9")
    assert load(None).optim.lr == 0.1


# ---- what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "message"), [
    ("optim: {learning_rate: 1}", "r.yaml: unknown key optim.learning_rate. Did you mean optim.lr?"),
    ("train: {warmup_fraction: 1}",
     "r.yaml: unknown key train.warmup_fraction. Did you mean schedule.warmup_fraction?"),
    ("train: {epoch: 1}", "r.yaml: unknown key train.epoch. Did you mean train.epochs?"),
    ("train: {qqqq: 1}", "r.yaml: unknown key train.qqqq"),
    ("optimizer: {lr: 1}", "r.yaml: unknown section optimizer. Did you mean optim?"),
    ("optim.lr: 1", "r.yaml: optim.lr is written as lr: in the section optim:"),
    ("optim: 3", "r.yaml: optim must hold indented lines of key: value, got 3"),
    ("schedule: {warmup_fraction: 2}",
     "r.yaml: schedule.warmup_fraction must lie between 0 and 1, got 2 "
     "(a share of the run, not epochs)"),
    ("train: {drop_last: yes}", "r.yaml: train.drop_last must be true or false, got 'yes'"),
    ("train: {epochs: many}",
     "r.yaml: train.epochs must be a number above 0 and at most 100,000, got 'many'"),
    ("train: {epochs: 0}", "r.yaml: train.epochs must be above 0 and at most 100,000, got 0"),
    ("optim: {lr: -1}", "r.yaml: optim.lr must be above 0, got -1"),
    ("optim: {lr: 1, lr: 2}", "r.yaml: broken YAML: line 1: the key 'lr' stands twice"),
    ("train: {epochs: 1}\ntrain: {epochs: 2}", "r.yaml: broken YAML: line 2: the key 'train' stands twice"),
    ("train: {epochs: 1", "r.yaml: broken YAML: line 1: expected ',' or '}', but got '<stream end>'"),
    ("\ttrain: 1", "r.yaml: broken YAML: line 1: found character '\\t' that cannot start any token"),
    ("? [a]\n: b", "r.yaml: broken YAML: line 1: a key must be a word"),
    ("run: !!python/object:os.system {}", None),
    ("just words", "r.yaml: a recipe holds sections (data:, model:, ...), this file holds one str"),
    ("- 1", "r.yaml: a recipe holds sections (data:, model:, ...), this file holds one list"),
    ("base: 3", "r.yaml: base must be text, got 3"),
])  # fmt: skip
def test_a_wrong_recipe_is_refused_with_file_key_and_mistake(recipe, text, message):
    said = complaint(recipe("r.yaml", text))
    assert said == message or message is None and "broken YAML: line 1: could not determine" in said


WHOLE = "a whole number between 1 and 1,000,000"
FITS = "(train.accumulate=0 finds parts that fit)"


@pytest.mark.parametrize(("word", "message"), [
    ("--optim.learning_rate=1", "unknown key optim.learning_rate. Did you mean optim.lr?"),
    ("--optim.lr=-1", "--optim.lr must be above 0, got -1"),
    ("--optim.lr=", "--optim.lr must be a number above 0, got ''"),
    ("--optim.lr=inf", "--optim.lr must be a number above 0, got 'inf'"),
    ("--optim.nesterov=False", "--optim.nesterov must be true or false, got 'False'"),
    ("--optim.nesterov", "--optim.nesterov needs a value: --optim.nesterov=true, for example"),
    ("--train.batch_size=[", f"--train.batch_size must be {WHOLE}, got '[' {FITS}"),
    ("--train.batch_size=1.5", f"--train.batch_size must be {WHOLE}, got 1.5 {FITS}"),
    ("train.epochs=2", "a setting is given as --section.key=value, got 'train.epochs=2'"),
])  # fmt: skip
def test_a_wrong_word_on_the_command_line_is_refused(word, message):
    assert complaint(None, [word]) == message


@pytest.mark.parametrize(("changes", "message"), [
    ({"schedule.name": "piecewise"}, "needs schedule.points"),
    ({"schedule.points": [[1, 0], [0, 1]]}, "rising epochs"),
    ({"train.resolutions": [[0.5, 24], [1.5, 32]]}, "rising shares up to 1"),
    ({"schedule.points": [[0, 1, 2]]}, "rising epochs"),
    ({"schedule.momentum_low": 0.8}, "come together"),
    ({"schedule.momentum_low": 0.9, "schedule.momentum_high": 0.8}, "low at most high"),
    ({"schedule.name": "linear", "schedule.momentum_low": 0.8, "schedule.momentum_high": 0.9},
     "belong to schedule.name=onecycle"),
    ({"schedule.name": "piecewise", "schedule.points": [[0, 1]], "schedule.tail_fraction": 0.1},
     "say it in schedule.points"),
    ({"data.train": "a.beton"}, "come together"),
    ({"optim.momentum": 0.0}, "optim.nesterov=false"),
    ({"train.ema_decay": 0.9, "train.average_tail": 0.1}, "both average the weights"),
    ({"train.accumulate": 8, "train.batch_size": 4}, "less than one image"),
    ({"train.proxy_width": 0.5}, "train.hard_fraction below 1"),
    ({"train.proxy_every": 4}, "for the net of train.proxy_width"),
    ({"train.cuda_graph": True, "train.compile": "reduce-overhead"}, "train.compile=default"),
    ({"train.cuda_graph": True, "schedule.momentum_low": 0.8, "schedule.momentum_high": 0.9},
     "can't follow a momentum"),
    ({"data.subset": 10.5}, "whole count"),
    ({"optim.lr_scaling": "sqrt"}, "needs optim.lr_base_batch"),
    ({"optim.lr_scaling": "linear", "optim.lr_base_batch": 128, "train.loss_reduction": "sum"},
     "what train.loss_reduction=sum scales already"),
    ({"optim.lr_scaling": "linear", "optim.lr_base_batch": 128, "optim.name": "adamw"},
     "optim.name=adamw takes steps of its own length, take sqrt"),
    ({"run.deterministic": True, "train.compile": "max-autotune"}, "picks kernels by their speed"),
])  # fmt: skip
def test_settings_that_cannot_stand_together_are_refused(changes, message):
    assert message in complaint(None, changes)


def test_a_conflict_names_the_file_it_stands_in(recipe):
    path = recipe("r.yaml", "train: {ema_decay: 0.9, average_tail: 0.1}")
    assert complaint(path).startswith("r.yaml: train.ema_decay and train.average_tail both")


def test_recipes_that_inherit_in_a_circle_show_the_chain(recipe):
    recipe("a.yaml", "base: b.yaml")
    recipe("b.yaml", "base: c.yaml")
    assert (
        complaint(recipe("c.yaml", "base: a.yaml"))
        == "c.yaml: the recipes inherit in a circle: c.yaml -> a.yaml -> b.yaml -> c.yaml"
    )


def test_a_mistake_in_a_base_names_the_base_even_where_the_recipe_overrides_it(recipe):
    recipe("low.yaml", "optim: {lr: -1}")
    assert complaint(recipe("top.yaml", "base: low.yaml\noptim: {lr: 1}")).startswith("low.yaml: optim.lr")


def test_a_missing_recipe_is_named_with_what_was_meant(recipe, tmp_path):
    assert complaint("rn81").startswith("no file and no recipe is called rn81. Did you mean rn18?")
    assert complaint(recipe("r.yaml", "base: gone")).startswith("r.yaml: base: no file and no recipe")
    assert complaint(str(tmp_path)).endswith("a folder: --config wants a YAML file or the name of a recipe")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    assert complaint(tmp_path / "r.yaml") == "r.yaml: isn't a text in UTF-8, so no YAML file"


def test_reading_settings_needs_no_torch():
    code = "import sys, fastresnet.settings.config as c; c.load('rn18'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("text", [
    "model: {width: !!bool maybe}",
    'model: {width: !!float ""}',
    "run: {dir: !!timestamp abc}",
    "!!set a: 1",
    "run: {seed: !!int ''}",
    "run: !!binary 5",
])  # fmt: skip
def test_a_tag_before_what_cannot_be_one_is_one_line(recipe, text):
    said = complaint(recipe("r.yaml", text))
    assert said.startswith("r.yaml: ") and "\n" not in said


def test_what_a_recipe_is_called_stays_a_name_of_one_folder(recipe):
    hostile = recipe("r.yaml", 'recipe: "/tmp/x\\e]0;owned"')
    assert load(hostile).recipe == "tmp-x-0-owned"
    assert load(recipe("..\n run:\x1b.yaml", "train: {epochs: 2}")).recipe == "run-"


def test_the_name_of_a_file_adds_no_line_to_the_settings_that_are_kept(recipe, tmp_path):
    odd = load(recipe("a\nrun: {seed: 7}\n.yaml", "train: {epochs: 2}"))
    odd.dump(tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml").run.seed == 0


@pytest.mark.parametrize("word", ["--run.dir=", "--data.root=", "--run.dir=\udcff", "--run.dir=a\0b"])
def test_text_that_no_file_can_keep_or_be_called_by_is_refused(word):
    said = complaint(None, [word])
    assert "must be text (not empty, in UTF-8) or null, got " in said


@pytest.mark.parametrize(
    "key", ["train.max_steps", "data.synthetic_train", "optim.lr_base_batch", "eval.every"]
)
def test_a_number_that_no_floating_point_number_holds_is_refused(key):
    assert f"--{key} must be at least " in complaint(None, [f"--{key}={10**400}"])
