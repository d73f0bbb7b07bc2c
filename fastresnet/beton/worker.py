"""The process that holds ffcv: jobs come pickled on standard input, how it goes is told as JSON lines.

FFCV's writer waits for ever when one of its workers fails. Here every worker reports its failure, a watchdog
sees workers that died without a word, and the first failure ends the whole process group.
"""

import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from typing import Protocol

import numpy as np

from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels

_OUT = os.dup(1)  # the real standard output; what ffcv prints goes elsewhere
_POLL_SECONDS = 0.2
_STALL_SECONDS = 600.0  # no image finished for so long: something hangs


class Images(Protocol):
    """uint8 (N,H,W,3), or anything that gives images (H,W,3) by number; its `shapes` save a look at each."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Pixels: ...
    def __iter__(self) -> Iterator[Pixels]: ...


@dataclass(frozen=True)
class Job:
    """One beton to write."""

    images: Images  # uint8 (N,H,W,3), or (H,W,3) each
    labels: Labels
    mode: str
    quality: int
    workers: int
    page_size: int  # bytes
    smart_threshold: int  # bytes from which mode smart makes JPEGs

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """What FFCV's writer wants of a sample."""
        return self.images[index], int(self.labels[index])


def _say(**message: str | int | bool | None) -> None:
    """One line in one write, so that lines of several processes don't mix."""
    os.write(_OUT, (json.dumps(message) + "\n").encode())


def _end_group() -> None:
    """End this process and every process it started."""
    os.killpg(os.getpgid(0), signal.SIGTERM)
    os._exit(1)


class _Worker(ForkProcess):
    """FFCV's worker process, whose exceptions are reported instead of lost."""

    started: "list[_Worker]" = []

    def start(self) -> None:
        super().start()
        _Worker.started.append(self)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            super().run()
        except BaseException as error:
            _say(error=f"{error}" or type(error).__name__, errno=getattr(error, "errno", None))
            os._exit(3)


class _Progress:
    """Stands where FFCV puts tqdm: passes on how many images are written, and when the last one moved."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        _Progress.moved = time.monotonic()

    moved = time.monotonic()  # when the worker began: nothing has moved yet, and nothing stalls yet

    def update(self, count: int) -> None:
        self.done += int(count)
        _Progress.moved = time.monotonic()
        _say(done=self.done, total=self.total)

    def close(self) -> None:
        """Nothing is left to show."""


def _watch(parent: int) -> None:
    """End everything when a worker has died, nothing moves, or the process that gave the job is gone."""
    while True:
        time.sleep(_POLL_SECONDS)
        dead = [worker for worker in _Worker.started if worker.exitcode not in (None, 0)]
        if dead:
            if dead[0].exitcode != 3:  # 3: it has reported by itself
                code = dead[0].exitcode
                _say(error=f"a worker of ffcv was ended by signal or memory limit (exit code {code})")
            _end_group()
        if _Worker.started and time.monotonic() - _Progress.moved > _STALL_SECONDS:
            _say(error=f"no image was finished in {_STALL_SECONDS:.0f} s")
            _end_group()
        if os.getppid() != parent:
            _end_group()


def main(parent_number: str) -> None:
    """Write jobs until standard input ends, or the process of this number does, which gives them."""
    parent = int(parent_number)
    signal.signal(signal.SIGTERM, lambda *_: _end_group())
    multiprocessing.set_start_method("fork")  # FFCV hands its workers objects that only a fork can carry
    os.dup2(2, 1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    try:
        from ffcv import writer as ffcv_writer
        from ffcv.fields import IntField, RGBImageField
    except Exception as error:
        _say(error=f"ffcv can't be imported: {error}")
        return
    ffcv_writer.Process, ffcv_writer.tqdm = _Worker, _Progress
    while True:
        try:
            path, job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if os.getppid() != parent:  # nobody waits for the file, or would clear it away
            return
        try:
            np.random.seed(0)  # mode proportion draws from it
            image = RGBImageField(
                write_mode=job.mode, jpeg_quality=job.quality, smart_threshold=job.smart_threshold
            )
            fields = {"image": image, "label": IntField()}
            ffcv_writer.DatasetWriter(
                path, fields, page_size=job.page_size, num_workers=job.workers
            ).from_indexed_dataset(job)
        except Exception as error:
            _say(error=str(error) or type(error).__name__, errno=getattr(error, "errno", None))
            _end_group()
        _Worker.started.clear()
        _say(written=True)
