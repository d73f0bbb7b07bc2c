"""The house's plan, executed: which room may import which, and what importing the package must not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fastresnet"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# Rooms that stand alone: nothing else of the package, but for their own folder.
ALONE = ["kernels", "schedule", "timing", "beton", "models", "settings", "strict_yaml", "cli"]
# Rooms, and what they may never see: the trainer gets an iterable of batches, knows no loader and no file.
NEVER = {
    "trainer": [
        "loader",
        "augment",
        "kernels",
        "sources",
        "data",
        "beton",
        "config",
        "record",
        "report",
        "run",
    ],
    "evaluate": ["loader", "sources", "data", "beton", "record", "report", "run"],
    "optim": ["trainer", "loader", "data", "run"],
    "config": ["sources", "data", "models", "trainer", "run"],
    "record": ["trainer", "loader", "run", "report"],
}
# What only late imports may bring in: the package works without these, or starts before they are needed.
LATE = [
    "ffcv",
    "torchvision",
    "triton",
    "pyarrow",
    "matplotlib",
    "pynvml",
    "tensorboard",
    "wandb",
    "onnx",
    "torchcodec",
]


def name_of(path: Path) -> str:
    """fastresnet/models/resnet.py -> models.resnet; a folder's __init__ is the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Full names of the modules that a file imports; imports under TYPE_CHECKING don't count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    nodes = [node for node in ast.walk(tree) if id(node) not in typing_only]
    if top_level_only:
        inside = {
            id(inner)
            for node in nodes
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try))
            for inner in ast.walk(node)
        }
        nodes = [node for node in nodes if id(node) not in inside]
    package = ["fastresnet", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def rooms(path: Path) -> set[str]:
    """The rooms of the package that a file imports: the first part after `fastresnet.`."""
    known = {name_of(module).partition(".")[0] for module in MODULES}
    return {name.split(".")[1] for name in imports(path) if name.startswith("fastresnet.")} & known


@pytest.mark.parametrize("room", ALONE)
def test_a_room_that_stands_alone_imports_nothing_else_of_the_package(room):
    files = [path for path in MODULES if name_of(path).partition(".")[0] == room]
    assert files, f"there is no fastresnet/{room}"
    assert {(path.name, other) for path in files for other in rooms(path)} <= {
        (path.name, room) for path in files
    }


@pytest.mark.parametrize(("room", "others"), NEVER.items())
def test_a_room_never_imports_what_comes_after_it(room, others):
    files = [path for path in MODULES if name_of(path).partition(".")[0] == room]
    assert files, f"there is no fastresnet/{room}"
    assert not {(path.name, other) for path in files for other in rooms(path) & set(others)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_brings_in_optional_and_heavy_packages_late(path):
    brought = {name.partition(".")[0] for name in imports(path, top_level_only=True)}
    at_home = {"plots": "matplotlib"}.get(path.stem, path.stem.partition("_")[0])  # triton_*, ffcv_*
    assert not brought & set(LATE) - {at_home}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path.name} opens without a docstring"


def test_nothing_of_the_package_imports_scripts_or_benchmarks():
    seen = {
        (path.name, name)
        for path in MODULES
        for name in imports(path)
        if name.partition(".")[0] in ("scripts", "benchmarks", "tests")
    }
    assert not seen


def test_importing_the_package_is_quiet_and_loads_neither_torch_nor_ffcv():
    code = (
        "import sys, fastresnet; dir(fastresnet); "
        "sys.exit(bool({'torch', 'ffcv', 'torchvision', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_module_reads_settings_from_the_environment():
    allowed = {"FASTRESNET_DATA"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node.value.startswith("FASTRESNET_")
            ):
                assert node.value in allowed, f"{path.name} reads {node.value}"
