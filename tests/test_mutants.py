"""The scripts that change the code to try the tests: what they change, and that the tree is put right."""

import ast

import mutants
import planted_faults
import pytest

TEXT = '''
"""A docstring stays."""
__all__ = ["limit"]


def limit(value: int, low: int = 2) -> int:
    """So does this one."""
    assert value + 1
    if value < low and not value:
        raise ValueError("an error's text too")
    return clip(value * 3, to=low)
'''
CHANGED = {
    "value <= low", "value < low or not value", "if not (value < low and (not value)):", "low: int=3",
    "value / 3", "value * 4", "clip(value * 3)", "return None", "value < low and value",
}  # fmt: skip


def test_each_mutant_changes_one_place_of_the_code_and_no_text():
    plain = ast.unparse(ast.parse(TEXT)).splitlines()
    seen = set()
    for line, words, text in mutants.mutants(TEXT):
        differing = [(old, new) for old, new in zip(plain, text.splitlines(), strict=True) if old != new]
        ((_, new),) = differing
        assert words and TEXT.splitlines()[line - 1].strip()
        seen |= {change for change in CHANGED if change in new}
        assert "docstring" not in new and "assert" not in new and "error" not in new and "__all__" not in new
    assert seen == CHANGED


@pytest.mark.parametrize(
    "old, said", [(r"x = 1", "noticed by"), (r"y = 1", "NOT PLANTED: its pattern stands 0")]
)
def test_a_fault_is_planted_where_its_pattern_stands_once_and_taken_back(old, said, tmp_path, monkeypatch):
    file = tmp_path / "fastresnet" / "a.py"
    file.parent.mkdir()
    file.write_text("x  =\n1\n")
    seen = []

    def run(tree, tests, limit):
        seen.append(file.read_text())
        return planted_faults.forked.Outcome("failed", "a test", 1.0)

    monkeypatch.setattr(planted_faults.forked, "run", run)
    fault = planted_faults.Fault("wrong", old, "x = 2", ("tests",))
    assert planted_faults.planted(tmp_path, fault).startswith(said)
    assert file.read_text() == "x  =\n1\n" and all(text == "x = 2\n" for text in seen)
