"""The project as a newcomer finds it: set-up, targets, packaging, licence; nothing large, nothing private."""

import ast
import importlib.metadata
import inspect
import os
import re
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import fastresnet

ROOT = Path(__file__).parent.parent
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
SETUP_SH = (ROOT / "scripts/setup.sh").read_text(encoding="utf-8")
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
# Packages by the name they are imported under, where it differs from the name they are installed under.
INSTALLED_AS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "griffe": "mkdocstrings"}


def declared():
    """Names of the packages in setup.py's requirements, in small letters."""
    words = re.findall(r'"([A-Za-z][\w.-]*)(?:\[\w+\])?(?:[<>=;][^"]*)?"', SETUP)
    return {word.lower().replace("_", "-") for word in words}


def imported(path):
    """The first parts of the names of all modules that a file imports, at its top or late."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def test_the_scripts_can_be_called_and_are_sound_shell():
    for path in ("scripts/setup.sh", ".ci/run"):
        assert os.stat(ROOT / path).st_mode & stat.S_IXUSR, f"{path} isn't executable"
        assert subprocess.run(["bash", "-n", str(ROOT / path)]).returncode == 0


def test_ci_runs_the_checks_and_the_readmes_test_command():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "make check" in ci and ci.rstrip().endswith("make test")


def test_setup_installs_what_ffcvs_build_needs_and_says_so_where_it_may_not():
    for package in "g++ pkg-config libopencv-dev libturbojpeg0-dev python3-dev".split():
        assert package in SETUP_SH
    assert "conda install -c conda-forge" in SETUP_SH and "brew install" in SETUP_SH


def test_setup_refuses_an_unknown_option_in_one_line_and_explains_itself():
    def call(word):
        return subprocess.run([str(ROOT / "scripts/setup.sh"), word], capture_output=True, text=True)

    refused, helped = call("--nonsense"), call("--help")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("setup: unknown option --nonsense") and refused.stderr.count("\n") == 1
    assert helped.returncode == 0 and "--without-ffcv" in helped.stdout


def test_nothing_names_a_place_to_install_from():
    for path in ("setup.py", "scripts/setup.sh", "Makefile", "pyproject.toml", ".ci/run"):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not re.search(r"index-url|find-links|https?://(?!github)", text), path


def test_every_package_that_is_imported_is_declared():
    ours = {path.stem for path in ROOT.glob("*/*.py")} | {"fastresnet", "benchmarks", "scripts", "tests"}
    optional = {"pynvml", "amdsmi", "torchcodec", "nvidia", "triton", "setuptools"}
    undeclared = set()
    for name in TRACKED:
        if name.endswith(".py") and (ROOT / name).exists():
            for module in imported(ROOT / name) - ours - optional - set(sys.stdlib_module_names):
                package = INSTALLED_AS.get(module, module).replace("_", "-")
                undeclared |= {(package, name)} if package not in declared() else set()
    assert not undeclared


def test_the_site_shows_the_fields_of_a_docstring_as_a_list():
    pytest.importorskip("griffe", reason="mkdocstrings is in the extra `dev`")
    page = runpy.run_path(str(ROOT / "docs/fields.py"))
    shown = page["FIELDS"].sub(page["_listed"], inspect.cleandoc(fastresnet.train.__doc__)).splitlines()
    items = [line for line in shown if line.startswith("- ")]
    assert items[0].startswith("- `settings`: name of") and items[2].startswith(
        "- `model, loss, augment`: the"
    )
    last = shown.index(items[-1])
    assert len(items) == 5 and shown[last + 1] == "" and shown[last + 2].startswith("A run that was killed")


def test_the_version_is_the_same_everywhere():
    assert importlib.metadata.version("fastresnet") == fastresnet.__version__
    assert f"## {fastresnet.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_carries_its_recipes_and_schemas():
    assert '"**/*.yaml"' in SETUP and '"**/*.json"' in SETUP and '"**/*.css"' in SETUP
    assert list(ROOT.glob("fastresnet/recipes/*.yaml")) and list(ROOT.glob("fastresnet/schemas/*.json"))


def test_warnings_are_errors_and_lines_end_at_110():
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'filterwarnings = [\n    "error",' in settings
    assert "line-length = 110" in settings


@pytest.mark.skipif(not TRACKED, reason="not a git checkout")
def test_no_data_weights_or_large_files_are_tracked():
    kinds = (".beton", ".pt", ".parquet", ".safetensors", ".onnx")
    assert not [name for name in TRACKED if name.endswith(kinds)]
    there = [ROOT / name for name in TRACKED]
    assert not [path for path in there if path.exists() and path.stat().st_size > 600 * 1024]
