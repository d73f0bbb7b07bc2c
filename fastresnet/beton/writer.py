"""Writes betons through FFCV's DatasetWriter, in a process of its own: hangs, prints and forks stay there.

A beton appears under its name only when it is whole: written to a temporary name, verified, renamed.
"""

import contextlib
import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from fastresnet.base import files, words
from fastresnet.base.digest import Labels
from fastresnet.base.system import cores_usable
from fastresnet.beton.file import BetonError
from fastresnet.beton.layout import CHANNELS, JPEG, LARGEST_PAGE, SMALLEST_PAGE, Layout, open_beton
from fastresnet.beton.pages import checksums, stored_digest
from fastresnet.beton.reader import read_one, read_whole
from fastresnet.beton.sidecar import Facts, sidecar_path, write_sidecar
from fastresnet.beton.worker import Images, Job

MODES = ("raw", "jpg", "proportion", "smart")
SMART_THRESHOLD = 128 * 128 * CHANNELS  # bytes: larger images become JPEGs in mode smart
DEFAULT_PAGE = 4 * SMALLEST_PAGE
VERIFIED_JPEGS = 1000  # JPEGs decoded again before a beton gets its name
_START = "import sys; sys.path[0] = sys.argv[1]; from fastresnet.beton.worker import main; main(sys.argv[2])"


def can_write() -> bool:
    """Whether ffcv is installed (it is not imported)."""
    return importlib.util.find_spec("ffcv") is not None


def write(
    path: str | Path,
    images: Images,
    labels: Labels,
    *,
    mode: str = "raw",
    quality: int = 90,
    workers: int = 0,
    sidecar: Facts | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write one beton; see Writer.write. For several, one Writer saves starting ffcv each time."""
    with Writer() as writer:
        writer.write(
            path,
            images,
            labels,
            mode=mode,
            quality=quality,
            workers=workers,
            sidecar=sidecar,
            progress=progress,
        )


class Writer:
    """A process with ffcv in it that writes betons one after another. Use it in a `with` block.

    It starts importing ffcv (seconds) at once, while the caller still reads images.
    """

    def __init__(self) -> None:
        if not can_write():
            raise BetonError(
                "writing betons needs ffcv: run scripts/setup.sh, or pip install ffcv (it compiles C++ and"
                " needs g++, pkg-config, OpenCV and libturbojpeg)"
            )
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _START, str(Path(__file__).parents[2]), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and everything it started."""
        process = self._process
        if process.stdin and not process.stdin.closed:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.stdout:
            process.stdout.close()
        self._errors.close()

    def write(
        self,
        path: str | Path,
        images: Images,
        labels: Labels,
        *,
        mode: str = "raw",
        quality: int = 90,
        workers: int = 0,
        sidecar: Facts | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Write images and labels to `path`, whole or not at all; BetonError when it can't be done.

        images:    uint8 (N,H,W,3), or a sequence of (H,W,3)
        labels:    int64 (N,)
        mode:      raw, jpg, proportion (half of them JPEG) or smart (JPEG above 128x128 px)
        quality:   1..100, of JPEGs
        workers:   processes (0: one a core)
        sidecar:   facts for the .json beside it; None: there will be none
        progress:  called with (done, total)
        """
        path = Path(path)
        largest = _check(path, images, labels, mode, quality)
        page = max(DEFAULT_PAGE, 1 << (largest - 1).bit_length())
        if page > LARGEST_PAGE:
            raise BetonError(f"{path}: an image of {largest} bytes is too large for a beton")
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, images, labels, mode, page)
        workers = max(1, min(workers or cores_usable(), cores_usable(), -(-len(labels) // 100)))
        job = Job(images, labels, mode, quality, workers, page, SMART_THRESHOLD)
        try:
            with files.replacing(path) as temporary:
                self._send(temporary, job)
                self._follow(path, progress)
                written = _verified(temporary, path, images, labels)
                stored = stored_digest(written) if sidecar else ""
                if sidecar and _all_raw(written) and stored != sidecar["digest"]:
                    raise _differs(path)
                sidecar_path(path).unlink(missing_ok=True)
            if sidecar is not None:
                facts: Facts = {**sidecar, "stored_digest": stored}
                write_sidecar(path, facts, checksums(written))
        except BaseException:
            self.close()
            raise

    def _send(self, path: Path, job: Job) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump((str(path), job), self._process.stdin, protocol=5)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BetonError(f"the writing process ended: {self._last_words()}") from None

    def _follow(self, path: Path, progress: Callable[[int, int], None] | None) -> None:
        """Pass on the process's progress until the beton is written; BetonError when it fails."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "error" in message:
                hint = "; the disk is full" if message.get("errno") == 28 else ""
                raise BetonError(f"{path} can't be written: {message['error']}{hint}")
            if message.get("written"):
                return
            if progress is not None:
                progress(message["done"], message["total"])
        raise BetonError(f"{path} can't be written: the writing process ended ({self._last_words()})")

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {code}")


def _check(path: Path, images: Images, labels: Labels, mode: str, quality: int) -> int:
    """Refuse what would make the writer fail half-way; the bytes of the largest image, uncompressed."""
    if mode not in MODES:
        raise BetonError(f"write mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not 1 <= quality <= 100:
        raise BetonError(f"JPEG quality must lie between 1 and 100, got {quality}")
    if len(images) == 0 or len(images) != len(labels):
        raise BetonError(
            f"{path}: needs as many labels as images and at least one, got {len(images)} images and"
            f" {len(labels)} labels"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise BetonError(f"{path}: labels must be whole numbers (N,), got {labels.dtype} {labels.shape}")
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != CHANNELS or not images.size:
            raise BetonError(f"{path}: images must be uint8 (N,H,W,3), got {images.dtype} {images.shape}")
        shapes = [images.shape[1:]]
    else:
        shapes = list(getattr(images, "shapes", None) or [image.shape for image in images])
    if max(max(shape[:2]) for shape in shapes) > 65535:
        raise BetonError(f"{path}: a beton holds images of at most 65535 px a side")
    return max(int(np.prod(shape)) for shape in shapes)


def _check_space(path: Path, images: Images, labels: Labels, mode: str, page: int) -> None:
    """Refuse early when the disk can't hold the beton; JPEGs are counted as a tenth of their pixels."""
    shapes = [images.shape] if isinstance(images, np.ndarray) else getattr(images, "shapes", ())
    pixels = sum(int(np.prod(shape)) for shape in shapes)
    share = {"raw": 1.0, "jpg": 0.1, "proportion": 0.55, "smart": 0.1}[mode]
    needed, free = int(pixels * share) + 48 * len(labels) + page, shutil.disk_usage(path.parent).free
    if free < needed:
        raise BetonError(
            f"{path} can't be written: it needs about {words.size(needed)} and the disk has"
            f" {words.size(free)} free"
        )


def _verified(temporary: Path, path: Path, images: Images, labels: Labels) -> Layout:
    """The written file, compared with what was to be written: labels always, pixels where they are exact."""
    try:
        layout = open_beton(temporary)
        jpegs = np.flatnonzero(layout.modes == JPEG)
        for place in np.linspace(0, len(jpegs) - 1, min(VERIFIED_JPEGS, len(jpegs))).astype(np.int64):
            read_one(layout, int(jpegs[place]))
        same = np.array_equal(layout.labels, labels)
        if same and _all_raw(layout) and isinstance(images, np.ndarray):
            same = np.array_equal(read_whole(layout).images, images)
    except BetonError as error:
        reason = str(error).replace(str(temporary), path.name)
        free = words.size(shutil.disk_usage(path.parent).free)
        raise BetonError(
            f"{path} can't be written: what was written does not verify ({reason}; {free} free on the disk)"
        ) from None
    if not same:
        raise _differs(path)
    return layout


def _all_raw(layout: Layout) -> bool:
    return not bool((layout.modes == JPEG).any())


def _differs(path: Path) -> BetonError:
    return BetonError(f"{path} can't be written: what was read back differs from what was to be written")
