"""The text of the code: docstrings and comments filled evenly, comments on a line of their own."""

import ast
import io
import re
import tokenize
from functools import cache

from house import ROOT

WIDTH = 110
PLACES = ("fastresnet", "benchmarks", "scripts")
FILES = {str(path.relative_to(ROOT)): path for name in PLACES for path in sorted((ROOT / name).rglob("*.py"))}
FIELD = re.compile(r"[\w.,{} /*-]+:\s\s+\S|[\w., ]+: \S|(?:import|from) |[-*] |\d+\. |>>> ")
ENDS = (".", ":", ";", "!", "?", "...")


def paragraphs(lines):
    """Runs of lines of one indentation, as (index of the first line, lines); an indented run may be code."""
    run, start = [], 0
    for index, line in enumerate([*lines, ""]):
        indent = len(line) - len(line.lstrip())
        fresh = FIELD.match(line.strip()) or (run and indent != len(run[-1]) - len(run[-1].lstrip()))
        if run and (not line.strip() or fresh):
            yield start, run
            run = []
        if line.strip():
            start, run = (start, run) if run else (index, [])
            run.append(line.rstrip())
    if run:
        yield start, run


def badly_filled(lines):
    """Lines of running text that end early though the next word would have fitted: (index, line)."""
    for start, run in paragraphs(lines):
        for offset, (line, after) in enumerate(zip(run, run[1:])):
            word = after.split()[0]
            code = line.lstrip().startswith(("import ", "from ", ">>> "))
            runs_on = not code and not line.endswith(ENDS) and re.match(r"[a-z(`0-9]", word)
            if runs_on and len(line) + 1 + len(word) <= WIDTH - 12:
                yield start + offset, line.strip()


@cache
def docstrings(path):
    """(first line's number, lines as they stand in the file) of every docstring."""
    text = path.read_text(encoding="utf-8")
    found, lines = [], text.splitlines()
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and ast.get_docstring(node):
            value = node.body[0]
            found.append((value.lineno, lines[value.lineno - 1 : value.end_lineno]))
    return found


def comments(path):
    """(first line's number, lines) of every block of whole-line comments."""
    block, start = [], 0
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        if re.match(r"\s*# [^-]", line):
            start = start if block else number
            block.append(line.replace("# ", "  ", 1))
        elif block:
            yield start, block
            block = []


def test_docstrings_and_comments_are_filled_evenly():
    found = [
        f"{name}:{first + index}: {line}"
        for name, path in FILES.items()
        for first, lines in [*docstrings(path), *comments(path)]
        for index, line in badly_filled(lines)
    ]
    assert not found, "\n".join(["the next word would have fitted:", *found])


def test_a_docstring_opens_with_one_line():
    found = []
    places = [(name, *one) for name, path in FILES.items() for one in docstrings(path)]
    for name, first, lines in places:
        opening = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
        only_last = opening == 2 and lines[1].strip().startswith(("Raises", "Returns", '"""'))
        if opening > 1 and not only_last and not lines[0].rstrip().endswith(ENDS):
            found.append(f"{name}:{first}: {lines[0].strip()}")
    assert not found, "\n".join(["the first sentence takes more than its line:", *found])


def test_no_value_is_wrapped_around_its_comment():
    wrapped = re.compile(r"^ *[^\n#]*\(\n +[^\n#]+  # [^\n]+\n *\)$", re.M)
    found = {name: wrapped.findall(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
    assert not any(found.values()), f"put the comment on its own line above: {found}"


def test_style_sheets_and_scripts_are_files_of_their_own():
    for name, path in FILES.items():
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        strings = [token.string for token in tokens if token.type == tokenize.STRING]
        held = [text[:60] for text in strings if re.search(r"</?style>.*\{.*\}|<script>\s*\(", text, re.S)]
        assert not held, f"{name}: {held}"


def test_the_check_sees_a_line_that_ends_early_and_passes_an_even_one():
    even = ["word " * 20 + "word", "and the rest of it."]
    early = ["    A sentence that was cut", "    far too early, and goes on."]
    assert not list(badly_filled(even)) and list(badly_filled(early)) == [(0, "A sentence that was cut")]
