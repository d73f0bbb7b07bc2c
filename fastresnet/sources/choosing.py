"""Which source, and what it gives. A new source is a file with a `SOURCE` in it, and a line in base.parts."""

import os
from collections.abc import Iterator
from pathlib import Path

from fastresnet.base import parts
from fastresnet.base.sinks import for_terminal
from fastresnet.sources.image_set import SPLITS, FolderSet, ImageSet, SourceError
from fastresnet.sources.known import recognised
from fastresnet.sources.request import Origin, Request, Source, fingerprint


def load(source: str, split: str, request: Request | None = None) -> ImageSet | FolderSet:
    """One split, "train" or "test", of a source, under the name that its content gives it.

    A folder of images of several sizes, or too large for memory, comes as a FolderSet. Names of sets and
    classes hold nothing that a terminal would obey. SourceError, or another ValueError in one line, where the
    data is missing, wrong or too large.
    """
    if split not in SPLITS:
        raise SourceError(f"split must be train or test, got {split!r}")
    try:
        images = _source(source).read(request or Request(), split)
    except MemoryError:
        raise SourceError(f"the {split} set of {source} doesn't fit into memory") from None
    harmless = images.renamed(for_terminal(images.name), tuple(map(for_terminal, images.class_names)))
    return harmless if images.synthetic else recognised(harmless)


def origin(source: str, request: Request) -> Origin:
    """What identifies the images of a request: betons made from an equal origin can be used again."""
    asked = _source(source)
    facts: Origin = {"source": source, **asked.origin(request)}
    if asked.holds is None:
        return facts
    root = request.folder(source)
    return {**facts, "root": str(root.resolve()), "files": fingerprint(root, asked.endings)}


def detect(folder: str | Path, *, named: bool = False) -> str | None:
    """What a folder holds: "betons", a source's name, or None. Looks at names, opens nothing.

    named:  the user named the folder: what would be too little to go by elsewhere will do
    """
    folder = Path(folder)
    if not folder.is_dir():
        return None
    if all((folder / f"{split}.beton").is_file() for split in SPLITS):
        return "betons"
    asked = [(name, _source(name)) for name in parts.SOURCES]
    checks = [(name, one.holds) for name, one in asked]
    checks += [(name, one.may_hold) for name, one in asked if named]
    return next((name for name, holds in checks if holds and holds(folder)), None)


def resolve_auto(name: str = "cifar10", root: str | Path | None = None) -> tuple[str, Path]:
    """(source, folder) for data.source=auto: data.root, FASTRESNET_DATA, data/, else the download into data/.

    The source may also be "betons". SourceError when a folder that the user named holds nothing readable.
    """
    for why, folder in _candidates(name, root):
        found = detect(folder, named=why != "data/")
        if found:
            return found, folder
        if why != "data/":
            state = "is not a folder"
            if folder.is_dir():
                state = "holds no betons, Parquet shards, CIFAR batches or folders of images by class"
            raise SourceError(f"{why}={folder} {state}")
    return "torchvision", Path("data")


def _candidates(name: str, root: str | Path | None) -> Iterator[tuple[str, Path]]:
    """(why, folder) in the order that data.source=auto searches, after betons that were converted before."""
    if root is not None:
        yield "data.root", Path(root)
        return
    if os.environ.get("FASTRESNET_DATA"):
        yield "FASTRESNET_DATA", Path(os.environ["FASTRESNET_DATA"])
    yield from (("data/", Path("data") / inner) for inner in (name, "."))


def _source(name: str) -> Source:
    found = parts.find(parts.SOURCES, "data.source", name)
    assert isinstance(found, Source), f"data.source={name} names {type(found).__name__}, which is no Source"
    return found
