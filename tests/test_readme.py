"""The README and the guide tell the truth: their commands, files, recipes, settings and tables exist."""

import re
import shlex
from pathlib import Path

import pytest

from fastresnet.bench.pages import records_table, tables
from fastresnet.machine import hardware
from fastresnet.settings import config
from fastresnet.settings.overrides import take_settings
from fastresnet.settings.reading import recipes
from fastresnet.settings.sections import SECTIONS, SETTINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README}
PAGES |= {f"docs/{path.name}": path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md"))}


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of one language."""
    return [block for name, block in re.findall(r"```(\w*)\n(.*?)```", text, re.S) if name == kind]


COMMANDS = [
    line.partition("#")[0].strip()
    for text in PAGES.values()
    for block in blocks(text, "sh")
    for line in block.splitlines()
]
MAKES = [shlex.split(command) for command in dict.fromkeys(COMMANDS) if command.startswith("make ")]
SCRIPTS = [shlex.split(command) for command in dict.fromkeys(COMMANDS) if command.startswith("python ")]
# What a reader writes, a run leaves, and tests/test_architecture.py adds.
ELSEWHERE = ("mine.yaml", "space.yaml", "config.yaml", "stripes.yaml", "published.yaml", "predicted.yaml")
FIRST = ("rn18.yaml", "rn18-long.yaml", "cpu.yaml", "smoke.yaml")  # of the table of recipes
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def reached() -> dict[str, str]:
    """What each recipe reached in its newest record: accuracy, number of runs, machine."""
    found = {}
    for entry in sorted(records_table.load(ROOT), key=lambda entry: entry.folder):
        made, summary = entry.made, entry.made["summary"]
        accuracy = tables.measured(summary["mean"], summary["std"], summary["n"], "%", 100)
        where = f"n={summary['n']}, {hardware.short_name(made['hardware'])}"
        found[made["recipe"]] = f"[{accuracy}]({entry.folder}/README.md) ({where})"
    return found


def recipes_table() -> str:
    """The README's table of recipes: the heads of the files, what they set, what their records say."""
    rows = ["| recipe | what it is | epochs | aims at | reached (n, machine) |"]
    rows.append("| --- | --- | ---: | ---: | --- |")
    known = reached()
    heads = recipes()
    for name, head in sorted(heads.items(), key=lambda item: item[0] not in FIRST):
        cfg = config.load(name)
        target = f"{100 * cfg.eval.target:.4g} %" if cfg.eval.target else ""
        told = known.get(name.removesuffix(".yaml"), "")
        rows.append(f"| `{name}` | {head} | {cfg.train.epochs:g} | {target} | {told} |")
    return "\n".join(rows)


def headline() -> str:
    """A sentence a machine: the accuracy and time of each record, with its runs."""
    told: dict[str, list[str]] = {}
    for entry in records_table.load(ROOT):
        made, summary = entry.made, entry.made["summary"]
        accuracy = tables.measured(summary["mean"], summary["std"], summary["n"], "%", 100)
        time = tables.measured(summary["seconds_mean"], summary["seconds_std"], summary["n"], "s")
        views = ", with TTA" if summary["accuracy_used"] == "accuracy_tta" else ""
        figure = f"[{accuracy} in {time}]({entry.folder}/README.md) (n={summary['n']}{views})"
        told.setdefault(hardware.used_name(made), []).append(figure)
    return "\n".join(f"Measured on {machine}: {'; '.join(some)}." for machine, some in told.items())


GENERATED = {"recipes": recipes_table, "headline": headline}


def between(name: str) -> tuple[int, int]:
    """Where in the README the text between a pair of markers begins and ends."""
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    assert README.count(begin) == README.count(end) == 1, f"the README lacks the markers of {name}"
    return README.index(begin) + len(begin), README.index(end)


def test_the_two_commands_stand_at_the_top():
    first = blocks(README, "sh")[0].split("\n")
    assert [line.partition("#")[0].strip() for line in first[:2]] == ["make train", "make test"]
    assert README.index("make train") < 1000


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_generated_is_what_recipes_and_records_say(name):
    start, end = between(name)
    assert README[start:end].strip() == GENERATED[name](), "`make tables` writes it anew"


def test_the_tables_of_measurements_have_their_markers():
    assert between("records") and between("results")


@pytest.mark.parametrize("words", MAKES, ids=" ".join)
def test_every_make_target_exists_and_passes_known_arguments(words):
    assert words[1] in TARGETS
    for argument in shlex.split(" ".join(words[2:]).removeprefix("ARGS=")):
        if argument.startswith("tests/"):
            assert (ROOT / argument).exists()


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_every_script_exists_and_its_recipe_and_settings_load(words):
    assert (ROOT / words[1]).is_file(), f"the README calls {words[1]}"
    settings, rest = take_settings(words[2:])
    recipe = rest[rest.index("--config") + 1] if "--config" in rest else None
    config.load(recipe, settings)


@pytest.mark.parametrize("script", sorted({words[1] for words in SCRIPTS}))
def test_every_option_that_the_readme_gives_a_script_is_in_its_help(script, call_script):
    given = {
        word.partition("=")[0]
        for words in SCRIPTS
        if words[1] == script
        for word in words[2:]
        if word.startswith("--") and "." not in word.partition("=")[0]
    }
    if given:
        code, out, err = call_script(script, "--help")
        assert code == 0, err
        assert not {option for option in given if option not in out}


def test_every_setting_named_exists_with_the_values_it_names():
    named = re.findall(r"`((?:" + "|".join(SECTIONS) + r")\.[a-z_0-9]+)`", README)
    assert len(named) > 20
    assert not [key for key in named if key not in SETTINGS and not key.endswith((".beton", ".py"))]
    for key, words in re.findall(r"^\| `([a-z.]+)` \| (.*) \|$", README, re.M):
        if key in SETTINGS:
            assert set(re.findall(r"`([a-z]+)`", words)) <= set(SETTINGS[key].rule.choices)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_recipe_named_exists(page):
    text = PAGES[page]
    for link in re.findall(r"\]\(([^)h][^)]*)\)", text):
        assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists(), link
    for path in re.findall(r"`((?:scripts|tests|benchmarks|examples|docs|fastresnet)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
    for recipe in re.findall(r"[\w-]+\.yaml", text):
        assert recipe in recipes() or recipe in ELSEWHERE, recipe


def test_the_readmes_yaml_is_a_recipe_that_loads(tmp_path):
    found = [block for text in PAGES.values() for block in blocks(text, "yaml")]
    for block in [block for block in found if not block.startswith(("# new file", "# space"))]:
        (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
        assert config.load(tmp_path / "mine.yaml").recipe == "mine"


def test_the_readmes_python_names_what_the_package_offers():
    import fastresnet

    told = [block for text in PAGES.values() for block in blocks(text, "python")]
    names = re.findall(r"\bfr\.(\w+)", "".join(told))
    assert names and set(names) <= set(fastresnet.__all__)


if __name__ == "__main__":
    for name, made in GENERATED.items():
        opening, closing = between(name)
        README = README[:opening] + made() + "\n" + README[closing:]
    (ROOT / "README.md").write_text(README, encoding="utf-8")
