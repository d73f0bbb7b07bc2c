"""The house's plan, executed: the one order of the rooms, no circles, and what importing must not need."""

import ast
import subprocess
import sys
from functools import cache

import pytest
from house import NAMES, ORDER, PACKAGE, PAGE, imports, name_of, needs, page, room_of

# Rooms that could be taken out and used elsewhere: nothing of the package but `base`.
ALONE = ["settings", "machine", "sources", "beton", "augment"]
# In the room where everything meets one module alone may know loaders and data.
MEETING_PLACE = {"training": ("training.experiment", ["loading", "data", "sources", "beton", "augment"])}
# What only late imports may bring in: the package works without these, or starts before they are needed.
LATE = ["ffcv", "torchvision", "triton", "pyarrow", "matplotlib", "pynvml", "tensorboard", "wandb", "onnx"]
LATE += ["torchcodec"]


def test_the_order_names_every_room_and_no_other():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == {room for room in ORDER if room and "." not in room}
    assert {name for name in NAMES if not room_of(name)} == {"", "__main__"} & set(NAMES)


def test_a_module_imports_only_rooms_that_stand_before_its_own():
    place = {name: ORDER.index(room_of(name)) for name in NAMES}
    assert not [(name, other) for name in NAMES for other in needs(name) if place[other] > place[name]]


def test_no_import_closes_a_circle():
    """Between modules, late imports counted; a room's __init__ counts as the module it is."""
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in sorted(needs(name)):
                walk(other, (*above, name))
            done.add(name)

    for name in NAMES:
        walk(name, ())


@pytest.mark.parametrize("room", ALONE)
def test_a_room_that_stands_alone_imports_nothing_but_base(room):
    seen = {room_of(other) for name in NAMES if room_of(name) == room for other in needs(name)}
    assert seen <= {room, "base"}


@pytest.mark.parametrize("room", MEETING_PLACE)
def test_only_the_meeting_place_knows_what_its_room_must_not(room):
    place, forbidden = MEETING_PLACE[room]
    others = [name for name in NAMES if room_of(name) == room and name != place]
    assert not {(name, other) for name in others for other in needs(name) if room_of(other) in forbidden}


def test_a_room_has_no_more_modules_than_one_can_keep_in_mind():
    for folder in {path.parent for path in NAMES.values()} - {PACKAGE}:
        assert len(list(folder.glob("*.py"))) - 1 <= 10, f"{name_of(folder)} wants to be two rooms"


def test_a_module_brings_in_optional_and_heavy_packages_late():
    for name, path in NAMES.items():
        brought = {full.partition(".")[0] for full in imports(path, top_level_only=True)}
        leaf = name.rpartition(".")[2]
        at_home = {"plots": "matplotlib"}.get(leaf, leaf.partition("_")[0])  # triton_*, ffcv_*
        assert not brought & set(LATE) - {at_home}, name


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_module_says_what_it_is():
    for name, path in NAMES.items():
        docstring = ast.get_docstring(tree(path))
        assert docstring, f"{name} opens without a docstring"
        if path.name == "__init__.py" and name:
            assert "Refuses to" in docstring, f"{name} says what it is, and not what it refuses"


def test_no_module_is_longer_than_300_lines_and_no_class_than_200():
    for name, path in NAMES.items():
        assert path.read_text(encoding="utf-8").count("\n") <= 300, name
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno - node.lineno < 200, f"{name}: {node.name}"


def test_the_drawing_of_the_rooms_is_what_the_imports_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "`make tables` draws it anew"


def test_nothing_of_the_package_imports_scripts_or_tests():
    seen = {(name, full) for name, path in NAMES.items() for full in imports(path)}
    assert not {pair for pair in seen if pair[1].partition(".")[0] in ("scripts", "benchmarks", "tests")}


def test_entry_points_are_a_few_lines():
    folders = [PACKAGE.parent / name for name in ("scripts", "benchmarks")]
    for path in [path for folder in folders for path in folder.glob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 15, f"{path.name} does work of its own"


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
    allowed = {"FASTRESNET_DATA", "FASTRESNET_TURNS"}  # the latter a socket that a suite hands its processes
    for path in NAMES.values():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and str(node.value).startswith("FASTRESNET_"):
                assert node.value in allowed, f"{path.name} reads {node.value}"
