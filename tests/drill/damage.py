"""Damaged files of every format, read in this process: each is refused in words or says what it holds.

What bears a checksum (checkpoints, betons) must be the same or be refused. Texts and Parquet bear none: what
is read of them must obey its rules and be what goes into the record.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import fuzz_beton
import numpy as np
import torch
from PIL import Image

from fastresnet import beton, sources
from fastresnet.base import digest, exits, pictures
from fastresnet.models import pretrained
from fastresnet.reports import finished, run_page
from fastresnet.runs import checkpoint, record
from fastresnet.runs.folder import LAST
from fastresnet.settings import config
from fastresnet.settings.reading import RECIPES
from fastresnet.sources import Request
from tests.drill.ground import Ground, address_space, same
from tests.drill.outcome import SURVIVED, Outcome, lost, wrong

MEMORY = 2 << 30  # bytes of address space beyond what the process has: no file may make it take more
IMAGES = 8


@dataclass(frozen=True)
class Format:
    """A kind of file.

    whole:  of a sound one, made once in each process
    check:  reads the damaged one; says what is wrong with what it read, None where nothing is. Raises
            ValueError where it refuses the file
    """

    whole: Callable[[Ground], Path]
    check: Callable[[Ground, Path], str | None]
    tries: int = 10000

    def attempt(self, ground: Ground, chance: Random, number: int) -> Outcome:
        """One damaged file."""
        path, content = _sound(self, ground)
        path.write_bytes(mutated(content, chance))
        try:
            problem = self.check(ground, path)
        except ValueError as error:
            return _refused(error)
        except Exception as error:
            return lost(f"{type(error).__name__}: {error}")
        finally:
            path.write_bytes(content)
        return wrong(problem) if problem else SURVIVED


def _refused(error: ValueError) -> Outcome:
    """Whether a command would say it in one line: what a library raises would be a traceback."""
    if exits.is_ours(error) and "\n" not in str(error):
        return SURVIVED
    return lost(f"not in our words: {type(error).__name__}: {error}")


def mutated(whole: bytes, chance: Random) -> bytes:
    """Some bits changed, a stretch left out, repeated or zeroed, or the end cut off."""
    kind, at, length = chance.randrange(6), chance.randrange(len(whole)), chance.randrange(1, 64)
    if kind == 0:
        return whole[:at]
    if kind == 1:
        return whole[:at] + whole[at + length :]
    if kind == 2:
        return whole[:at] + whole[max(0, at - length) :]
    if kind == 3:
        return whole[:at] + bytes(length) + whole[at + length :]
    changed = bytearray(whole)
    for _ in range(chance.randrange(1, 4)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


@cache
def _sound(kind: Format, ground: Ground) -> tuple[Path, bytes]:
    """The file of this process to damage, and its sound content; memory is limited from here on."""
    path = kind.whole(ground)
    limit = address_space("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return path, path.read_bytes()


def _own_folder(ground: Ground) -> Path:
    folder = ground.place / f"damaged-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    return folder


# ---- checkpoints -------------------------------------------------------------------------------------------


def _last(ground: Ground) -> Path:
    return Path(shutil.copy(ground.place / "whole" / LAST, _own_folder(ground)))


def _same_weights(ground: Ground, path: Path) -> str | None:
    model, _ = checkpoint.load_model(path)
    return None if same(dict(model.state_dict()), dict(ground.whole[-1])) else "other weights"


def _forged_weights(ground: Ground, path: Path) -> str | None:
    """As one who knows how to seal would change it: it may hold other weights, of the right shapes."""
    content = path.read_bytes()
    path.write_bytes(content[: -digest.SEAL_BYTES])
    if len(content) > digest.SEAL_BYTES + 2:
        digest.seal(path)
    checkpoint.load_model(path)
    return None


def _same_start(ground: Ground, path: Path) -> str | None:
    """Weights that another run starts from."""
    model = _empty(ground)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    pretrained.load_into(model, path)
    return None if same(dict(model.state_dict()), dict(ground.whole[-1])) else "other weights"


@cache
def _empty(ground: Ground) -> torch.nn.Module:
    """The run's network, to be filled."""
    return checkpoint.load_model(ground.place / "whole" / LAST)[0]


# ---- a run's texts -----------------------------------------------------------------------------------------


def _of_the_run(name: str) -> Callable[[Ground], Path]:
    def whole(ground: Ground) -> Path:
        folder = _own_folder(ground)
        for file in (ground.place / "whole").glob("*.*"):
            shutil.copy(file, folder)
        if name == "metrics.jsonl":
            (folder / "result.json").unlink()  # or nobody reads the rows
        if name != "predictions.npz":
            (folder / "predictions.npz").unlink()  # or each page takes its time
        return folder / name

    return whole


def _record_is_read(ground: Ground, path: Path) -> str | None:
    found = record.read(path, "result")
    run_page.write(path.parent)
    return None if json.loads(record.dumps(found)) == found else "it isn't what is passed on"


def _rows_are_read(ground: Ground, path: Path) -> str | None:
    rows = finished.read(path.parent).history
    run_page.write(path.parent)
    return None if all(isinstance(row["epoch"], (int, float)) for row in rows) else "a row without an epoch"


def _predictions_are_read(ground: Ground, path: Path) -> str | None:
    found = finished.predictions(path.parent)
    wanted = finished.predictions(ground.place / "whole")
    assert found is not None and wanted is not None
    alike = np.array_equal(found.logits, wanted.logits) and np.array_equal(found.labels, wanted.labels)
    return None if alike else "other predictions"


def _recipe(ground: Ground) -> Path:
    return Path(shutil.copy(RECIPES / "smoke.yaml", _own_folder(ground)))


def _settings_are_read(ground: Ground, path: Path) -> str | None:
    cfg = config.load(path)
    recorded = config.from_dict(json.loads(json.dumps(cfg.to_dict())), recipe=cfg.recipe)
    return None if recorded == cfg else "the record would hold other settings"


# ---- data --------------------------------------------------------------------------------------------------


def _parquet(ground: Ground) -> Path:
    import pyarrow
    from betons_by_hand import jpeg
    from pyarrow import parquet

    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), np.uint8)
    rows = [{"bytes": jpeg(image), "path": None} for image in images]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"img": pyarrow.array(rows, kind), "label": list(range(IMAGES))})
    path = _own_folder(ground) / "train.parquet"
    (path.parent / "sound").mkdir()
    for to in (path, path.parent / "sound" / path.name):
        parquet.write_table(table, to)
    return path


def _named_as_it_is(ground: Ground, path: Path) -> str | None:
    found, sound = _images(path), _sound_images(path.parent)
    alike = np.array_equal(found.images, sound.images) and np.array_equal(found.labels, sound.labels)
    return None if (found.digest == sound.digest) == alike else "the digest isn't the images'"


def _images(path: Path) -> sources.ImageSet:
    images = sources.load("parquet", "train", Request(root=path.parent, workers=1, memory=MEMORY // 8))
    assert isinstance(images, sources.ImageSet)
    return images


@cache
def _sound_images(folder: Path) -> sources.ImageSet:
    """Those of the file that lies apart and is never damaged."""
    return _images(folder / "sound" / "train.parquet")


FORMATS = {
    "checkpoint damaged": Format(_last, _same_weights),
    "checkpoint forged": Format(_last, _forged_weights, 2000),
    "weights to start from damaged": Format(_last, _same_start, 2000),
    "recipe damaged": Format(_recipe, _settings_are_read),
    "record damaged": Format(_of_the_run("result.json"), _record_is_read),
    "metrics damaged": Format(_of_the_run("metrics.jsonl"), _rows_are_read),
    "predictions damaged": Format(_of_the_run("predictions.npz"), _predictions_are_read),
    "Parquet damaged": Format(_parquet, _named_as_it_is),
}


# ---- pictures ----------------------------------------------------------------------------------------------


def picture_damaged(ground: Ground, chance: Random, number: int) -> Outcome:
    """A picture of each kind in turn: pixels of the size that its header says, or refused."""
    kinds = list(_encoded())
    content = mutated(_encoded()[kinds[number % len(kinds)]], chance)
    try:
        pixels = pictures.decode(content, "it")
    except ValueError as error:
        return _refused(error)
    except Exception as error:
        return lost(f"{type(error).__name__}: {error}")
    right = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    return SURVIVED if right else wrong(f"pixels {pixels.dtype} {pixels.shape}")


@cache
def _encoded() -> dict[str, bytes]:
    """One picture in each format that this Pillow writes."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8))
    exif, found = Image.Exif(), dict[str, bytes]()
    exif[pictures.ORIENTATION] = 6
    for kind in pictures.FORMATS:
        file = io.BytesIO()
        try:
            image.save(file, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
        except (OSError, KeyError):  # built without it
            continue
        found[kind] = file.getvalue()
    return found


# ---- betons, by what lies where in them --------------------------------------------------------------------


def beton_damaged(ground: Ground, chance: Random, number: int) -> Outcome:
    """A beton with its sidecar, one of them changed: the same images and labels, or refused."""
    made = _betons(ground)
    name = chance.choice(list(made))
    path, content, words, images, labels = made[name]
    beside = beton.sidecar_path(path)
    patches, length = dict[int, bytes](), -1
    if number % 4 == 0:
        beside.write_bytes(mutated(words, chance))
    else:
        _, patches, length = fuzz_beton.mutate(content, np.random.default_rng(chance.getrandbits(64)))
        _patch(path, patches, length if length >= 0 else None)
    try:
        found = beton.read(path, threads=1)
        alike = np.array_equal(found[0], images) and np.array_equal(found[1], labels)
        return SURVIVED if alike else wrong(f"other images or labels ({name})")
    except beton.BetonError:
        return SURVIVED
    except Exception as error:
        return lost(f"{type(error).__name__}: {error} ({name})")
    finally:
        _patch(path, {at: content[at : at + len(piece)] for at, piece in patches.items()}, len(content))
        if length >= 0:
            _patch(path, {length: content[length:]}, None)
        if number % 4 == 0:
            beside.write_bytes(words)


def _patch(path: Path, pieces: dict[int, bytes], length: int | None) -> None:
    """Put bytes at offsets, then cut the file to a length."""
    with path.open("r+b", buffering=0) as file:
        for at, piece in pieces.items():
            os.pwrite(file.fileno(), piece, at)
        if length is not None:
            file.truncate(length)


Made = tuple[Path, bytes, bytes, np.ndarray, np.ndarray]


@cache
def _betons(ground: Ground) -> dict[str, Made]:
    """Betons of this process's own, raw, JPEG and both, with their sidecars and what they hold."""
    import betons_by_hand

    facts = {
        "name": "made", "split": "train", "digest": "0" * 64, "class_names": list("abcdefgh"),
        "source": "made", "mean": [0.5] * 3, "std": [0.25] * 3, "count": fuzz_beton.SAMPLES,
        "synthetic": True,
    }  # fmt: skip
    made: dict[str, Made] = {}
    folder = _own_folder(ground)
    for name, content in fuzz_beton.sample_betons(folder):
        path = folder / f"{name}.beton"
        if name != "sizes":
            words = betons_by_hand.beside(path, facts).read_bytes()
            made[name] = (path, content, words, *beton.read(path))
    limit = address_space("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return made
