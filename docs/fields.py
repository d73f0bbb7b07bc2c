"""For the site: the fields of a docstring, `name:  text` a line each, are shown as a list."""

import re

import griffe

NAMES = r"\w+(?:, \w+)*"
FIELDS = re.compile(rf"(?<=\n\n){NAMES}:  +\S.*\n?(?:{NAMES}: +\S.*\n?| +\S.*\n?)*")


class Fields(griffe.Extension):
    """What mkdocstrings asks about each object that it reads."""

    def on_instance(self, *, obj: griffe.Object, **rest: object) -> None:
        if obj.docstring:
            obj.docstring.value = FIELDS.sub(_listed, obj.docstring.value)


def _listed(fields: re.Match[str]) -> str:
    text = re.sub(r"^ +", "  ", fields[0], flags=re.M)
    return re.sub(rf"^({NAMES}): +", r"- `\1`: ", text, flags=re.M) + "\n"
