"""The sections of settings that models, optimizers and schedules are built from, as plain objects."""

from types import SimpleNamespace

from fastresnet.settings.declarations import SETTINGS


def section(name: str, /, **changes):
    """The default settings of a section with some changed; an unknown name fails."""
    values = {
        key.split(".")[1]: setting.default for key, setting in SETTINGS.items() if key.startswith(name + ".")
    }
    assert set(changes) <= set(values), set(changes) - set(values)
    return SimpleNamespace(**{**values, **changes})
