"""Full names of settings (`optim.lr`): which there are, what was meant, a value checked under one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fastresnet.settings.sections import SETTINGS

COMMAND_LINE, DEFAULT = "command line", "default"  # who set a value, where no file did
# Names that people know from elsewhere, where letters alone don't lead to ours.
ALIASES = {
    "optim.learning_rate": "optim.lr",
    "optim.wd": "optim.weight_decay",
    "optim.optimizer": "optim.name",
    "train.bs": "train.batch_size",
    "train.amp": "train.precision",
    "train.dtype": "train.precision",
    "train.ema": "train.ema_decay",
    "data.dataset": "data.name",
}


class ConfigError(ValueError):
    """The user's settings are wrong; the message is one line."""


def checked(key: str, value: object, origin: str) -> object:
    """The value in its proper type, or ConfigError; `origin` (a file's name, say) begins the message."""
    try:
        return SETTINGS[key].rule.check(value)
    except ValueError as error:
        prefix = {COMMAND_LINE: "--", DEFAULT: ""}.get(origin, f"{origin}: ")
        raise ConfigError(f"{prefix}{key} {error}") from None


def known(key: object, origin: str = "") -> str:
    """The key itself where such a setting exists, or ConfigError with the likely mistake."""
    if key in SETTINGS:
        return str(key)
    where = f"{origin}: " if origin else ""
    raise ConfigError(f"{where}unknown key {key}.{meant(str(key), SETTINGS)}".rstrip("."))


def meant(name: str, among: Iterable[str]) -> str:
    """` Did you mean X?` or an empty string: by alias, by spelling, by the last word in another section."""
    among = list(among)
    if ALIASES.get(name) in among:
        return f" Did you mean {ALIASES[name]}?"
    last = name.rpartition(".")[2]
    elsewhere = [key for key in among if key.rpartition(".")[2] == last]
    close = elsewhere or difflib.get_close_matches(name, among, 1, 0.7)
    close = close or [k for k in among if difflib.get_close_matches(last, [k.rpartition(".")[2]], 1, 0.75)]
    return f" Did you mean {' or '.join(close[:3])}?" if close else ""
