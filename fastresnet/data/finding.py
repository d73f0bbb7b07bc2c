"""Which data the settings mean: betons given, betons made before that fit, or a source to be converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fastresnet import beton, sources
from fastresnet.base.files import locked, remove_left
from fastresnet.beton import Facts
from fastresnet.data.conversion import convert, facts_of, load_both, request_of, statistics
from fastresnet.data.reading import Found, Part, Wanted, read_betons
from fastresnet.data.splits import Split
from fastresnet.sources import SPLITS, FolderSet, ImageSet, SourceError


def find(wanted: Wanted) -> Found:
    """The betons that data.train and data.test name, else betons that fit the settings, else the source."""
    settings = wanted.settings
    remove_left(Path(settings.betons), depth=1)
    if settings.train is not None and settings.test is not None:
        return read_betons({"train": Path(settings.train), "test": Path(settings.test)}, wanted)
    if settings.source != "auto":
        return _of_source(settings.source, settings.root, wanted)
    if settings.root is None:
        ready = _made_before(wanted, lambda facts: facts["name"] == settings.name)
        if ready:
            return read_betons(ready, wanted)
    source, folder = sources.resolve_auto(settings.name, settings.root)
    if source == "betons":
        return read_betons(_in(folder), wanted)
    try:
        return _of_source(source, str(folder), wanted)
    except ValueError as error:
        if source != "torchvision" or not settings.allow_synthetic:
            raise
        wanted.notes(f"{error}; data.allow_synthetic=true: a synthetic set stands in")
        return _of_source("synthetic", None, wanted)


def _of_source(source: str, root: str | None, wanted: Wanted) -> Found:
    """Betons made from this source before, else the source, by way of betons where ffcv is installed."""
    settings, notes = wanted.settings, wanted.notes
    origin = sources.origin(source, request_of(settings, root))

    def made_before() -> dict[str, Path] | None:
        return _made_before(wanted, lambda facts: facts.get("origin") == origin)

    ready = made_before()
    if ready is None and beton.can_write():
        with locked(Path(settings.betons), lambda: notes("waiting for another conversion")):
            ready = made_before() or _in(convert(source, root, settings, notes=notes)[0])
    if ready is not None:
        return read_betons(ready, wanted)
    notes(f"ffcv is not installed, so no beton is written: reading straight from {source} each time")
    return without_betons(load_both(source, root, settings, notes))


def _made_before(wanted: Wanted, fits: Callable[[Facts], bool]) -> dict[str, Path] | None:
    """Betons under data.betons whose sidecars fit the settings; broken ones are told of and passed over."""
    for first in sorted(Path(wanted.settings.betons).glob("*/train.beton.json")):
        paths = _in(first.parent)
        try:
            found = [beton.read_sidecar(beton.open_beton(path)) for path in paths.values()]
        except beton.BetonError as error:
            wanted.notes(f"not used: {error}")
            continue
        facts = [beside[0] for beside in found if beside]
        if len(facts) == len(paths) and all(fits(fact) and wanted.stored_as_asked(fact) for fact in facts):
            return paths
    return None


def _in(folder: Path) -> dict[str, Path]:
    """The betons of a folder, by split."""
    return {split: folder / f"{split}.beton" for split in SPLITS}


def without_betons(sets: Mapping[str, ImageSet | FolderSet]) -> Found:
    """The images of a source as they were loaded."""
    mean, std = statistics(sets["train"].pixels)
    return {split: _part(images, facts_of(images, mean, std)) for split, images in sets.items()}


def _part(images: ImageSet | FolderSet, facts: Facts) -> Part:
    if isinstance(images, FolderSet):
        raise SourceError(
            "images of several sizes, or too many for memory, are streamed from a beton, and writing one"
            " needs ffcv: run scripts/setup.sh, or pip install ffcv"
        )
    return Part(Split.held(images.images, images.labels), facts, "all bytes, hashed as read")
