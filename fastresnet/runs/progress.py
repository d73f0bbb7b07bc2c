"""What a person sees while something long goes on: notes, a live line on a terminal, a line an epoch.

Notes and the live line go to standard error; the lines of epochs, which people redirect and grep, to
standard output. A line that is rewritten needs no rich, whose output ends with the terminal. Measures and
decides nothing.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from fastresnet.base import words
from fastresnet.base.sinks import for_terminal
from fastresnet.reports.finished import Row

LIVE_SECONDS = 0.5  # between rewrites of the live line
PLAIN_SECONDS = 10.0  # between status lines where there is no terminal
LONG_RUN_SECONDS = 1800.0  # on a CPU, a run expected to last longer gets told which recipe suits a CPU
ADVICE_STEPS = 5  # steps to watch before saying so
TERMINAL_SECONDS, LOG_SECONDS = 4.0, 60.0  # of silence, before a line on a terminal, and in a log
LEAST = ("lr ", "train ", "loss ")  # what the line of an epoch leaves out first on a narrow terminal


class Heartbeat:
    """Says where something stands when nothing was said for a while; a thread looks. Nothing on the clock.

    where:  gives the line; None: what `at` was told last
    quiet:  says nothing
    say:    where lines go; None: standard error
    """

    def __init__(
        self,
        where: Callable[[], str] | None = None,
        *,
        quiet: bool = False,
        patience: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.where, self.quiet, self._say = where, quiet, say
        self.patience = patience or (TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS)
        self._line, self._over = "starting", threading.Event()
        self._said_at = self._since = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def at(self, line: str) -> None:
        """Where it stands now: said when the silence is long enough."""
        if line != self._line:
            self._line, self._since = line, time.monotonic()

    def say(self, line: str) -> None:
        """One line; the silence begins anew."""
        line, self._said_at = for_terminal(line), time.monotonic()
        if self._say is not None:
            self._say(line)
        elif not self.quiet:
            print(words.fitted(line, sys.stderr), file=sys.stderr, flush=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            rest = self._said_at + self.patience - time.monotonic()
            if self._over.wait(max(rest, 0.01)):
                return
            if time.monotonic() - self._said_at >= self.patience:
                self.say(self.where() if self.where else self._stands())

    def _stands(self) -> str:
        """Where it stands, and for how long if that is long."""
        took = time.monotonic() - self._since
        return self._line if took < self.patience else f"{self._line} ... {words.duration(took, digits=0)}"


class Progress:
    """Prints a run's progress. A terminal or file that can't be written any more doesn't end the run.

    mode:    auto (a live line if `err` is a terminal), plain (status lines), off (errors alone)
    peek:    whether a running loss may be read in the middle of an epoch: free on a CPU, a wait on a GPU
    """

    def __init__(
        self, mode: str = "auto", *, peek: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.out, self.err = out or sys.stdout, err or sys.stderr
        self.silent = mode == "off"
        self.live = mode == "auto" and self.err.isatty()
        self.peek = peek
        self._lost: set[TextIO] = set()
        self._line_length = 0
        self._shown_at = 0.0
        self._advised = False
        self._lock = threading.RLock()  # of the live line, which a thread rewrites while something is busy

    def _print(self, line: str, stream: TextIO, end: str = "\n") -> None:
        """Write to a stream while it lasts: a closed pipe or a full disk is told once, on the other one."""
        if stream in self._lost:
            return
        try:
            stream.write(line + end)
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: a closed file
            self._lost.add(stream)
            name, other = ("output", self.err) if stream is self.out else ("error", self.out)
            reason = getattr(error, "strerror", None) or error
            self._print(f"standard {name} is lost ({reason}): the run goes on without it", other)

    def start(
        self, *, epochs: float, total_steps: int, batch_size: int, first_step: int, advise: bool
    ) -> None:
        """The training begins at `first_step`; `advise` allows the word about slow runs on a CPU."""
        self.epochs, self.total_steps, self.batch_size = epochs, total_steps, batch_size
        self._began = self._shown_at = time.monotonic()
        self._first_step, self._advised = first_step, not advise

    def note(self, line: str) -> None:
        """One choice or event the user should know of."""
        with self._lock:
            if self.silent:
                return
            self.clear()
            self._print(words.fitted(for_terminal(line), self.err), self.err)

    def banner(self, lines: str) -> None:
        """What mustn't be missed, even with progress off."""
        rows = list(map(for_terminal, lines.splitlines()))
        width = max(map(len, rows))
        edge = "!" * (width + 6)
        with self._lock:
            self.clear()
            self._print("\n".join(["", edge, *(f"!! {row:<{width}} !!" for row in rows), edge, ""]), self.err)

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        """After each step; prints now and then. `loss`: the epoch's mean so far, None where unknown."""
        if self.silent:
            return
        now = time.monotonic()
        done = step - self._first_step
        if not self._advised and done >= ADVICE_STEPS:
            self._advise(now - self._began, done)
        if now - self._shown_at < (LIVE_SECONDS if self.live else PLAIN_SECONDS):
            return
        self._shown_at = now
        per_step = (now - self._began) / max(done, 1)
        text = (
            f"epoch {epoch + 1}/{self.epochs:g}  step {step}/{self.total_steps}"
            + (f"  loss {loss:.3f}" if loss is not None else "")
            + f"  {self.batch_size / per_step:,.0f} images/s"
            + f"  left {words.duration(per_step * (self.total_steps - step))}"
        )
        if self.live:
            self.rewrite(text)
        else:
            self._print("  " + text, self.err)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """On a terminal the live line says so, and for how long, while the block lasts."""
        if self.silent or not self.live:
            yield
            return
        began = time.monotonic()

        def told() -> str:
            return f"{what} ... {words.duration(time.monotonic() - began, digits=0)}"

        self.rewrite(f"{what} ...")
        try:
            with Heartbeat(told, patience=1.0, say=self.rewrite):
                yield
        finally:
            self.clear()

    def epoch(self, row: Row, seconds_left: float) -> None:
        """One aligned line for a finished epoch; `row` is its entry of `per_epoch`."""
        if self.silent:
            return
        self.clear()
        cells = [f"epoch {row['epoch']:>3}/{self.epochs:g}", f"loss {row['train_loss']:.3f}"]
        measured = {
            split: cast(dict[str, Any], row)[f"{split}_accuracy"] for split in ("train", "val", "test")
        }
        cells += [f"{split} {100 * share:5.2f} %" for split, share in measured.items() if share is not None]
        cells += [
            f"lr {row['lr']:.4g}",
            f"{row['images_per_second']:,.0f} images/s",
            f"left {words.duration(max(seconds_left, 0))}",
        ]
        self._print("  ".join(_fitting(cells) if self.out.isatty() else cells), self.out)

    def say(self, line: str) -> None:
        """One line of the result, on standard output."""
        with self._lock:
            self.clear()
            if not self.silent:
                self._print(words.fitted(for_terminal(line), self.out), self.out)

    def _advise(self, seconds: float, steps: int) -> None:
        self._advised = True
        expected = seconds / steps * (self.total_steps - self._first_step)
        if expected > LONG_RUN_SECONDS:
            self.note(
                f"this run will take about {words.duration(expected)} on this CPU; `--config cpu.yaml` suits "
                "a CPU and learns in minutes"
            )

    def rewrite(self, text: str) -> None:
        """The live line, cut where the terminal would break it."""
        text = text[: _columns() - 1]
        with self._lock:
            self.clear()
            self._print(text, self.err, end="")
            self._line_length = len(text)

    def clear(self) -> None:
        """Wipe the live line."""
        if self._line_length:
            self._print("\r" + " " * self._line_length + "\r", self.err, end="")
            self._line_length = 0


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _fitting(cells: list[str]) -> list[str]:
    """The cells of a line that fit the terminal."""
    for name in LEAST:
        if len("  ".join(cells)) > _columns():
            cells = [cell for cell in cells if not cell.startswith(name)]
    return cells
