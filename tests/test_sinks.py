"""Names that strangers gave do no harm where they go."""

import pytest

from fastresnet.base import exits
from fastresnet.base.sinks import LONGEST_NAME, for_path, for_terminal


@pytest.mark.parametrize("text, shown", [
    ("cat", "cat"), ("Größe, 猫 ½", "Größe, 猫 ½"), ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
    ("two\nlines\r", "two\\x0alines\\x0d"), ("a\u202eb\u2028c", "a\\u202eb\\u2028c"), ("\udcff", "\\udcff"),
    ("\x9b31m\U000e0001", "\\x9b31m\\U000e0001"),
])  # fmt: skip
def test_what_moves_a_terminal_is_shown_as_its_code(text, shown):
    assert for_terminal(text) == shown and for_terminal(text).encode().isascii() == shown.isascii()


@pytest.mark.parametrize("text, name", [
    ("cifar10-jpg90", "cifar10-jpg90"), ("../../etc/passwd", "etc-passwd"), ("/tmp/x", "tmp-x"),
    ("..", "unnamed"), ("a b;$(c)\n", "a-b-c-"), ("x" * 200, "x" * LONGEST_NAME),
])  # fmt: skip
def test_a_name_stays_one_name_inside_its_folder(text, name):
    assert for_path(text) == name


def test_an_error_reaches_the_terminal_as_plain_text(capsys):
    def main():
        raise ValueError("x\x1b[2J.png is not an image")

    assert exits.exit_code(main) == exits.USER_ERROR
    assert capsys.readouterr().err == "error: x\\x1b[2J.png is not an image\n"
