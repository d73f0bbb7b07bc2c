"""Names that strangers gave (of files, classes, recipes) made harmless for where they go.

Refuses to guess what was meant: what is no plain text there is shown as its escape, or replaced.
"""

import re
from typing import Any

LONGEST_NAME = 80  # characters of a file or folder name made from a stranger's word
IN_MARKDOWN = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "/"})


def for_terminal(text: object) -> str:
    """On one line of plain text: control characters, line ends and turns of direction as codes."""
    return "".join(
        letter if letter == " " or letter.isprintable() else _escape(letter) for letter in str(text)
    )


def for_path(text: object) -> str:
    """As one name inside a folder: no separator, no leading dot, nothing that a shell or a terminal reads."""
    name = re.sub(r"[^\w.+=-]+", "-", str(text), flags=re.ASCII).lstrip(".-")[:LONGEST_NAME]
    return name or "unnamed"


def for_markdown(text: object) -> str:
    """In a line or a cell of Markdown: neither HTML nor another cell."""
    return for_terminal(text).translate(IN_MARKDOWN)


def harmless(value: Any) -> Any:
    """Plain data from a stranger's file, its texts as `for_terminal` has them: they are told and kept so."""
    if isinstance(value, str):
        return for_terminal(value)
    if isinstance(value, dict):
        return {harmless(key): harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value


def slug(text: str) -> str:
    """`1x NVIDIA H200` -> `1x-nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
