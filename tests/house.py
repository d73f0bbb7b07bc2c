"""The house as the imports have it: rooms in their order, modules, who needs whom. `python tests/house.py`
draws it into docs/architecture.md.
"""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastresnet"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- begin: rooms -->\n", "<!-- end: rooms -->"

# A room imports only rooms that stand before it. `bench` is no more than a name: its rooms follow; the last
# is the package itself, its public names.
ORDER = """base settings machine ranks sources beton data augment loading cpu models optim training watching
reports runs inference series bench bench.places bench.measuring bench.contest bench.judging bench.protocol
bench.pages bench.commands commands""".split()
ORDER.append("")


def name_of(path: Path) -> str:
    """fastresnet/models/resnet.py -> models.resnet; a folder's __init__ is the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(name: str) -> str:
    """The room of ORDER that a module belongs to: the longest one that its name begins with."""
    rooms = [room for room in ORDER if name == room or name.startswith(f"{room}.")]
    return max(rooms, key=len, default="")


@cache
def imports(path: Path, *, top_level_only: bool = False) -> frozenset[str]:
    """Full names of all that a file imports, late imports too; those for type checking alone don't count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    skipped = [node for node in skipped if "TYPE_CHECKING" in ast.dump(node.test)]  # type: ignore[attr-defined]
    if top_level_only:
        late = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try)
        skipped += [node for node in ast.walk(tree) if isinstance(node, late)]
    hidden = {id(node) for block in skipped for node in ast.walk(block)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@cache
def needs(name: str) -> frozenset[str]:
    """The modules of the package that a module imports; a room stands for its __init__."""
    wanted = {full.removeprefix("fastresnet.") for full in imports(NAMES[name]) if "fastresnet." in full}
    return frozenset(part for part in wanted if part in NAMES and part != name)


def says(name: str) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(NAMES[name].read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def drawing() -> str:
    """The rooms as a table and as a Mermaid graph, whose arrows go to what is needed."""
    rooms = [room for room in ORDER if room and "." not in room]
    lines = ["| room | what it is | modules |", "| --- | --- | --- |"]
    for room in rooms:
        modules = [name for name in NAMES if name.startswith(f"{room}.")]
        inner = sorted({name.split(".")[1] for name in modules})
        lines.append(f"| `{room}` | {says(room)} | {', '.join(inner)} |")
    lines += ["", "```mermaid", "graph BT"]
    pairs = {(name.split(".")[0], other.split(".")[0]) for name in NAMES for other in needs(name)}
    arrows = {pair for pair in pairs if pair[0] != pair[1] and set(pair) <= set(ORDER) - {""}}
    direct = {pair for pair in arrows if not _by_a_third(pair, arrows)}
    lines += [f"    {user} --> {used}" for user, used in sorted(direct, key=_place)]
    return "\n".join([*lines, "```", ""])


def _by_a_third(pair: tuple[str, str], arrows: set[tuple[str, str]]) -> bool:
    """Whether the arrow also goes by way of another room: drawn, it would only be in the way."""
    reached, new = set(), {used for user, used in arrows if user == pair[0] and used != pair[1]}
    while new:
        reached |= new
        new = {used for user, used in arrows if user in new} - reached
    return pair[1] in reached


def _place(pair: tuple[str, str]) -> tuple[int, int]:
    return ORDER.index(pair[0]), ORDER.index(pair[1])


def page() -> str:
    """docs/architecture.md with the drawing as it is now."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start] + drawing() + text[end:]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
