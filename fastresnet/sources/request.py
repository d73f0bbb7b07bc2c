"""What is asked of a source, and what a source is: three functions and the endings of its files."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastresnet.sources.image_set import FolderSet, ImageSet, SourceError

Origin = dict[str, str | int | float]


@dataclass(frozen=True)
class Request:
    """What is wanted; each source takes what concerns it. `split` is asked for apart: "train" or "test"."""

    root: Path | None = None  # the folder of its files
    name: str = "cifar10"  # the data set, for sources that know several
    counts: Mapping[str, int] = field(default_factory=lambda: {"train": 10000, "test": 2000})  # to be drawn
    size: int = 32  # of drawn images, px
    seed: int = 0  # of drawn images
    image_size: int = 0  # px; above 0, images of several sizes are welcome: they come one by one
    test_fraction: float = 0.2  # of each class, where a folder has no test set of its own
    workers: int = 0  # threads (0: one a core)
    on_error: str = "raise"  # skip: images that can't be decoded are left out
    # Bytes that decoded images may take; a larger set comes image by image, or not at all.
    memory: int = 4 << 30

    def folder(self, source: str) -> Path:
        """The folder to read; SourceError where it isn't given or isn't there."""
        if self.root is None or not self.root.is_dir():
            raise SourceError(
                f"data.source={source} needs data.root, the folder of its files; got {self.root or 'none'}"
            )
        return self.root

    def check_memory(self, what: str, needed: int) -> None:
        """SourceError where `needed` bytes are more than the request allows."""
        if needed > self.memory:
            raise SourceError(
                f"{what} needs {needed / 2**30:,.1f} GiB of memory, and only"
                f" {self.memory / 2**30:,.1f} GiB may be used"
            )


@dataclass(frozen=True)
class Source:
    """A way in which images come.

    read:     (request, split) -> the images of a split, checked; ValueError names what is wrong
    holds:    whether a folder holds what it reads, by names alone; None: it reads no folder
    may_hold: the same where the user named the folder, so that less will do
    endings:  of its files, lower case; they are watched for changes
    origin:   what else identifies the images of a request beside the files: equal origins, equal images
    """

    read: Callable[[Request, str], "ImageSet | FolderSet"]
    holds: Callable[[Path], bool] | None = None
    may_hold: Callable[[Path], bool] | None = None
    endings: tuple[str, ...] = ()
    origin: Callable[[Request], Origin] = lambda request: {}


def fingerprint(root: Path, endings: tuple[str, ...]) -> str:
    """Changes when files with these endings under `root` do: their names, sizes, times of modification."""
    seen = sorted(
        (str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.suffix.lower() in endings and path.is_file()
    )
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:32]
