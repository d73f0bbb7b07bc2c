"""The sections of settings that models, optimizers and schedules are built from, with some changed."""

from dataclasses import replace

from fastresnet.settings.sections import CLASSES


def section(name: str, /, **changes):
    """The default settings of a section with some changed; an unknown name fails."""
    return replace(CLASSES[name](), **changes)
