"""Data that changes under a run, between a kill and its continuation, or is killed while it is made."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random

import betons_by_hand
import numpy as np

from fastresnet import beton
from fastresnet.beton.file import BetonFile
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from tests.drill.ground import RECIPE, Changes, Ground, has_checkpoint, last_words, said
from tests.drill.outcome import SURVIVED, Outcome, ended, is_done, lost

SPLITS = ("train", "test")
FACTS = ("stored_digest", "digest", "class_names", "mean", "std", "count", "origin")
LOOKS = 14  # at a streamed file, in a run


def changed_while_it_streams(ground: Ground, chance: Random, number: int) -> Outcome:
    """A streamed beton is cut, flipped or replaced right after a look at it; later it is as it was."""
    changes = _streamed(ground)
    path = Path(str(changes["data.train"]))
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    spoil = (_an_end, _a_bit, _another_set)[number % 3]
    with ground.folder() as folder:
        try:
            mishap = partial(_at_a_look, path, chance.randrange(LOOKS), partial(spoil, path, chance))
            code = ground.train(folder, mishap, changes)
        finally:
            for file, content in before.items():
                file.write_bytes(content)
        if code not in (0, 2):
            return lost(f"it ended with {code}: {last_words(folder)}")
        if code and str(path) not in said(folder):
            return lost(f"the message doesn't name the file: {last_words(folder)}")
        return ground.finish(folder, changes)


@cache
def _streamed(ground: Ground) -> Changes:
    """Settings that stream from a copy of this process's own; FFCV compiles here, for all forks to come."""
    from fastresnet.loading import ffcv_epoch

    changes = {
        "data.loader": "ffcv",
        "data.workers": 1,
        **_copied(ground, ground.place / f"betons-{os.getpid()}"),
    }
    opened, open_loader = {}, ffcv_epoch.open_loader

    def once(layout: beton.Layout, *more: object) -> object:
        if layout.path not in opened:
            opened[layout.path] = open_loader(layout, *more), layout
        return opened[layout.path][0]

    ffcv_epoch.open_loader = once
    one = Experiment(config.load(RECIPE, {**ground.settings, **changes}))
    one.loaders.warm_up()
    one.close()
    return changes


def _at_a_look(path: Path, number: int, mishap: Callable[[], object], folder: Path) -> None:
    """Let the mishap happen when this file was found unchanged for the `number`-th time (from 0)."""
    check, looks = BetonFile.check_unchanged, itertools.count()

    def look(file: BetonFile) -> None:
        check(file)
        if file.path == path and next(looks) == number:
            mishap()

    BetonFile.check_unchanged = look


# ---- between a kill and the continuation -------------------------------------------------------------------


def other_data_before_it_goes_on(ground: Ground, chance: Random, number: int) -> Outcome:
    """A run is killed, its data are replaced, damaged, cut or relabelled; then they are as before."""
    with ground.folder() as folder:
        betons = folder.with_name("betons")
        changes = _copied(ground, betons)
        child = ground.begin(folder, changes=changes)
        while not has_checkpoint(folder) and not is_done(child):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        ended(child)
        before = {path: path.read_bytes() for path in betons.iterdir()}
        spoil = SPOILED[number % len(SPOILED)]
        spoil(betons / "train.beton", chance)
        if not (folder / "result.json").exists():
            code = ground.train(folder, changes=changes)
            if code != 2:
                judged = ground.judge(folder, changes) if code == 0 else lost(f"it ended with {code}")
                return Outcome(judged.what, f"{spoil.__name__}: {judged.why}")
        for path, content in before.items():
            path.write_bytes(content)
        return ground.finish(folder, changes)


def _copied(ground: Ground, to: Path) -> dict[str, object]:
    """Settings that name a copy of the ground's betons in the folder `to`."""
    shutil.copytree(next(ground.betons.glob("*/train.beton")).parent, to)
    return {f"data.{split}": str(to / f"{split}.beton") for split in SPLITS}


def _another_set(path: Path, chance: Random) -> None:
    """A sound beton of other images with a sidecar of its own takes its place."""
    beside = beton.sidecar_path(path)
    facts = json.loads(beside.read_text())
    images, labels = beton.read(path)
    other = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, images.shape, np.uint8)
    betons_by_hand.make(path, list(other), labels.tolist())
    kept = {key: facts[key] for key in facts if key not in ("checksums", "seal", "stored_digest")}
    betons_by_hand.beside(path, kept)


def _a_bit(path: Path, chance: Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _an_end(path: Path, chance: Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _a_word_beside(path: Path, chance: Random) -> None:
    beside = beton.sidecar_path(path)
    facts = json.loads(beside.read_text())
    facts[chance.choice(["mean", "std"])] = [0.25, 0.25, 0.25]
    beside.write_text(json.dumps(facts))


SPOILED = (_another_set, _a_bit, _an_end, _a_word_beside)


# ---- while they are made -----------------------------------------------------------------------------------


def killed_while_it_converts(ground: Ground, chance: Random, number: int) -> Outcome:
    """A conversion is killed at any time; the same command makes the same betons and leaves nothing else."""
    with ground.folder() as folder:
        log = folder.with_name("log")
        child = ground.convert(folder, log)
        time.sleep(chance.uniform(0, 1.1 * ground.converting))
        os.kill(child, signal.SIGKILL if number % 3 else signal.SIGTERM)
        ended(child)
        if code := ended(ground.convert(folder, log)):
            return lost(f"the same command ended with {code}: {log.read_text().strip()}")
        for split in SPLITS:
            own, theirs = (next(place.glob(f"*/{split}.beton")) for place in (folder, ground.betons))
            try:
                facts, wanted = (beton.verify(path)[1] for path in (own, theirs))
            except beton.BetonError as error:
                return lost(error)
            assert facts is not None and wanted is not None
            if any(facts[key] != wanted[key] for key in FACTS):
                return Outcome("wrong", f"the {split} set is another one")
        left = list(folder.rglob(".*.tmp"))
        return lost(f"{left[0].name} was left") if left else SURVIVED
