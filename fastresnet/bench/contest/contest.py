"""The contest: each loader is opened and checked, then all are timed in turns (A B C A B C).

In turns, a busy machine is busy for all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fastresnet import beton
from fastresnet.bench.contest.checks import check, coordinates
from fastresnet.bench.contest.contestants import Contestant, Row, Setting
from fastresnet.bench.contest.entrants import entrants

ROUNDS = 3


def chosen(device: torch.device, only: Sequence[str]) -> list[Contestant]:
    """The entrants that `only` names, by name or its first word; all where it names none.

    Raises ValueError for a name that none has.
    """
    found = entrants(device)
    known = {name for one in found for name in (one.name, one.name.split()[0])}
    for name in only:
        if name not in known:
            words = dict.fromkeys(one.name.split()[0] for one in found)
            raise ValueError(f"--only {name}: there are {', '.join(words)} on a {device.type} device")
    return [one for one in found if not only or {one.name, one.name.split()[0]} & set(only)]


def hold(
    contestants: Sequence[Contestant],
    setting: Setting,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """A row a contestant, after all were measured in turns for `seconds` each."""
    torch.set_num_threads(setting.workers)
    with tempfile.TemporaryDirectory() as folder:
        setting = replace(setting, path=Path(folder) / "images.beton")
        if beton.can_write() and any(one.package == "ffcv" for one in contestants):
            beton.write(setting.path, setting.images, setting.labels)
        own = [
            replace(setting, batch_size=len(setting.labels)) if c.at_once else setting for c in contestants
        ]
        with contextlib.ExitStack() as stack:
            for contestant, one in zip(contestants, own):
                stack.callback(contestant.close)
                begin(contestant, one, say)
            for _ in range(ROUNDS):
                for contestant, one in zip(contestants, own):
                    if contestant.row["status"] == "ok":
                        contestant.measure(one, seconds / ROUNDS)
    return [contestant.row for contestant in contestants]


def setting_of(
    images: int, batch_size: int, device: torch.device, dtype: torch.dtype, workers: int
) -> Setting:
    """Images that say where each pixel came from. Raises ValueError where they don't fill two batches."""
    if images < 2 * batch_size:
        raise ValueError(f"--images {images}: two batches of {batch_size} need {2 * batch_size} or more")
    return Setting(*coordinates(images), Path(), batch_size, device, dtype, workers)


def begin(contestant: Contestant, setting: Setting, say: Callable[[str], None]) -> None:
    """Open it and hold its batches to what all make; a failure is its problem, not the contest's."""
    needs, row = contestant.package, contestant.row
    try:
        if needs and importlib.util.find_spec(needs.split(".")[0]) is None:
            row["status"] = f"{needs} isn't installed"
        else:
            check(contestant, setting, contestant.start(setting))
    except Exception as error:
        row["status"] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    ready = f"ready after {row['first_batch_seconds'] or 0:.1f} s, its batches agree"
    say(f"{contestant.name}: {ready if row['status'] == 'ok' else row['status']}")
