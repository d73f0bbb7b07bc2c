"""Names that strangers gave do no harm where they go."""

import json

import numpy as np
import pytest
from made_run import call, write_checkpoint, write_run
from PIL import Image

from fastresnet.base import exits
from fastresnet.base.sinks import LONGEST_NAME, for_markdown, for_path, for_terminal, harmless

HOSTILE = "x\x1b]0;owned\x07<img src=x onerror=alert(1)>|\u202e"


@pytest.mark.parametrize("text, shown", [
    ("cat", "cat"), ("Größe, 猫 ½", "Größe, 猫 ½"), ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
    ("two\nlines\r", "two\\x0alines\\x0d"), ("a\u202eb\u2028c", "a\\u202eb\\u2028c"), ("\udcff", "\\udcff"),
    ("\x9b31m\U000e0001", "\\x9b31m\\U000e0001"),
])  # fmt: skip
def test_what_moves_a_terminal_is_shown_as_its_code(text, shown):
    assert for_terminal(text) == shown and for_terminal(text).encode().isascii() == shown.isascii()
    assert harmless({text: [text, 1, None]}) == {shown: [shown, 1, None]}


@pytest.mark.parametrize("text, name", [
    ("cifar10-jpg90", "cifar10-jpg90"), ("../../etc/passwd", "etc-passwd"), ("/tmp/x", "tmp-x"),
    ("..", "unnamed"), ("a b;$(c)\n", "a-b-c-"), ("x" * 200, "x" * LONGEST_NAME),
])  # fmt: skip
def test_a_name_stays_one_name_inside_its_folder(text, name):
    assert for_path(text) == name


def test_markdown_gets_neither_html_nor_another_cell_nor_another_line():
    assert for_markdown("<b> & a|b\n# x") == "&lt;b&gt; &amp; a/b\\x0a# x"


def test_an_error_reaches_the_terminal_as_plain_text(capsys):
    def main():
        raise ValueError("x\x1b[2J.png is not an image")

    assert exits.exit_code(main) == exits.USER_ERROR
    assert capsys.readouterr().err == "error: x\\x1b[2J.png is not an image\n"


def test_an_interruption_reaches_the_terminal_as_plain_text(capsys):
    def main():
        raise exits.Interrupted("continue with --run.resume=\x1b[2J")

    assert exits.exit_code(main) == exits.INTERRUPTED
    assert capsys.readouterr().err == "continue with --run.resume=\\x1b[2J\n"


def run_of_a_stranger(folder):
    """A run whose recipe, data, machine, classes and image are called as a stranger likes; and that image."""
    path, images = write_run(folder)
    record = json.loads((path / "result.json").read_text())
    record["recipe"] = record["hardware"]["cpu"]["model"] = HOSTILE
    record["data"]["name"] = record["software"]["torch"] = HOSTILE
    (path / "result.json").write_text(json.dumps(record))
    classes = [f"{k}{HOSTILE}" for k in range(4)]
    stored = dict(np.load(path / "predictions.npz"))
    np.savez(path / "predictions.npz", **(stored | {"class_names": np.array(classes)}))
    data = {"name": HOSTILE, "digest": HOSTILE, "synthetic": True}
    write_checkpoint(path / "checkpoints" / "last.pt", classes=classes, recipe=HOSTILE, data=data)
    picture = path / f"{HOSTILE.replace('/', '')}.png"
    Image.fromarray(images[0]).save(picture)
    return path, picture


def test_no_command_lets_a_strangers_names_reach_the_terminal_a_page_or_a_path(tmp_path, monkeypatch, capfd):
    one, picture = run_of_a_stranger(tmp_path / "one")
    other, _ = run_of_a_stranger(tmp_path / "other")
    for words in (
        ("predict", picture.parent, "--checkpoint", one, "--top", 4),
        ("predict", picture, "--checkpoint", one, "--json"),
        ("export", "--checkpoint", one, "--formats=card", "--out", tmp_path / "card"),
        ("report", one),
        ("report", one, other, "--out", tmp_path / "both.html"),
        ("describe", "model", "--model.pretrained", one, "--out", tmp_path / "drawn"),
    ):
        assert call(monkeypatch, *words) == 0, words
    said = "".join(capfd.readouterr())
    assert "owned" in said and not {"\x1b", "\x07", "\u202e"} & set(said)
    pages = [file for kind in ("html", "md", "svg") for file in tmp_path.rglob(f"*.{kind}")]
    assert len(pages) >= 4
    for page in pages:
        assert "<img src=x" not in page.read_text(), page
