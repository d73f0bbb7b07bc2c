"""Changes the code a little, again and again, and asks the tests whether they notice: `make mutants`.

A mutant is one change in one place of a module: an operator, a constant, a condition, a dropped keyword or
statement. It dies when a test of the module fails, can't be collected or runs much longer than before; what
survives is printed with its place, for a test to be written or the code to be made simpler.

    python tests/mutants.py                       a sample of every module in MODULES
    python tests/mutants.py optim.muon --all      every mutant of one

Not mutated: annotations, docstrings, texts of errors, assertions, and what shows on a GPU alone.
"""

import argparse
import ast
import copy
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import forked

# Module: the test files that are asked, the quickest first.
MODULES: dict[str, tuple[str, ...]] = {
    "optim.schedule": ("test_schedule", "test_plain"),
    "optim.muon": ("test_muon", "test_plain"),
    "optim.averaging": ("test_averaging", "test_plain"),
    "optim.optimizers": ("test_optim", "test_plain"),
    "optim.rates": ("test_rates", "test_trainer", "test_plain"),
    "training.step": ("test_trainer", "test_step", "test_handed", "test_plain", "test_promises"),
    "training.trainer": ("test_trainer", "test_plain", "test_promises"),
    "training.selection": ("test_proxy", "test_trainer"),
    "training.evaluation": ("test_evaluate", "test_promises"),
    "augment.choices": ("test_augment", "test_choice", "test_extras", "test_kernels"),
    "augment.counter": ("test_counter", "test_augment"),
    "augment.dispatch": ("test_augment", "test_extras", "test_kernels"),
    "augment.kernels.reference": ("test_augment", "test_kernels"),
    "base.statistics": ("test_statistics",),
    "bench.judging.significance": ("test_compare",),
    "bench.protocol.protocol": ("test_protocol", "test_reproduce", "test_promises"),
    "runs.checkpoint": ("test_checkpoint",),
}
ON_A_CPU_THE_SAME = {"device", "non_blocking", "fused"}  # keywords
# Functions and classes that no CPU executes.
GPU_ONLY = {"recorded", "set_on_device", "_captured", "whole_step", "_time_with_events"}

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node: the same with one thing changed."""

    def changed(**fields: object) -> ast.AST:
        other = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield changed(ops=[COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield changed(op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield changed(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield copy.deepcopy(node.operand)
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield changed(test=ast.UnaryOp(ast.Not(), copy.deepcopy(node.test)))
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield changed(value=not value)
        elif isinstance(value, (int, float)):
            yield changed(value=value + 1)
        elif isinstance(value, str):
            yield changed(value=value + "?")
    if isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg in ON_A_CPU_THE_SAME:
                continue
            yield changed(keywords=[k for j, k in enumerate(node.keywords) if j != i])
    if isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Yield)):
        yield ast.copy_location(ast.Pass(), node)
    if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield changed(value=ast.Constant(None))
    if isinstance(node, (ast.Break, ast.Continue)):
        yield ast.copy_location(ast.Continue() if isinstance(node, ast.Break) else ast.Break(), node)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """(parent, field, index or None) of every node below that may be mutated."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "type_comment"):
            continue
        if isinstance(value, ast.AST) and not _left_alone(value):
            yield node, name, None
            yield from places(value)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, ast.AST) and not _left_alone(item):
                    yield node, name, i
                    yield from places(item)


def _left_alone(node: ast.AST) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in GPU_ONLY:
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, ast.keyword) and node.arg in ON_A_CPU_THE_SAME:
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return True
    return isinstance(node, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr))


def mutants(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, what was changed, the whole text with it) of each mutant of a module's text."""
    tree = ast.parse(text)
    for parent, name, index in list(places(tree)):
        held = getattr(parent, name)
        node = held if index is None else held[index]
        line = getattr(node, "lineno", getattr(parent, "lineno", 0))
        for other in variants(node):
            _put(parent, name, index, other)
            words = f"{_head(node)}  ->  {_head(other)}"
            yield line, words, ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, name, index, node)


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def _head(node: ast.AST) -> str:
    lines = ast.unparse(node).splitlines() or [""]
    return lines[0][:90]


def judge(tree: Path, module: str, sample: int, seed: int) -> tuple[int, int]:
    """Try mutants of a module; (how many, how many died). Prints survivors."""
    inner = tree / "fastresnet" / module.replace(".", "/")
    path = inner / "__init__.py" if inner.is_dir() else inner.with_suffix(".py")
    text = path.read_text("utf-8")
    tests = [f"tests/{name}.py" for name in MODULES[module] if (tree / "tests" / f"{name}.py").exists()]
    sound = forked.run(tree, tests, 600)
    if sound.what != "passed":
        print(f"{module}: its tests fail without any mutant ({sound.what} {sound.first})")
        return 0, 0
    limit = 20 + 4 * sound.seconds
    every = list(mutants(text))
    chosen = every if not sample else random.Random(seed).sample(every, min(sample, len(every)))
    died = 0
    for line, words, changed in sorted(chosen):
        path.write_text(changed, "utf-8")
        outcome = forked.run(tree, tests, limit)
        died += outcome.what != "passed"
        if outcome.what == "passed":
            where = text.splitlines()[line - 1].strip()
            print(f"  survived {module}:{line}  {words}  in  {where}", flush=True)
    path.write_text(text, "utf-8")
    print(f"{module:<28} {len(chosen):>4} of {len(every):>4} mutants tried, {died:>4} died, "
          f"{100 * died / max(1, len(chosen)):5.1f} %", flush=True)  # fmt: skip
    return len(chosen), died


def main() -> int:
    """Judge the modules that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--sample", type=int, default=60, metavar="N", help="mutants of each module (60)")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    asked = parser.parse_args()
    unknown = set(asked.modules) - set(MODULES)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}")
    forked.import_what_is_slow()
    tried = died = 0
    with forked.copied_tree() as tree:
        for module in asked.modules or MODULES:
            more = judge(tree, module, 0 if asked.all else asked.sample, asked.seed)
            tried, died = tried + more[0], died + more[1]
    print(f"{'in all':<28} {tried:>4} mutants tried, {died:>4} died, {100 * died / max(1, tried):5.1f} %")
    return 0 if died >= 0.9 * tried else 1


if __name__ == "__main__":
    sys.exit(main())
